from __future__ import annotations

import pytest
import torch
from torch import nn

from saddlepoint.errors import InputError
from saddlepoint.measure.layers import layers
from saddlepoint.models import CNN


def test_live_and_single_weight_filters_are_counted(network: CNN) -> None:
    with torch.no_grad():
        network.conv1.weight.zero_()
        network.conv1.bias.zero_()
        network.conv1.weight[0, 0, 2, 2] = 1.0  # a threshold filter
    found, arrays = layers(network, torch.rand(8, 1, 4, 4))
    assert (found.filters, found.alive, found.single_weight) == (2, 1, 1)
    assert (found.bias_low, found.bias_high) == pytest.approx((0.1, 0.1))
    assert {name: values.shape for name, values in arrays.items()} == {
        "filters": (2, 1, 5, 5),
        "weights": (2, 64),
        "biases": (2,),
    }


def test_a_filter_below_its_threshold_is_dead(network: CNN) -> None:
    with torch.no_grad():
        network.conv1.bias[1] = -100.0
    assert layers(network, torch.rand(8, 1, 4, 4))[0].alive == 1


def test_spread_out_weights_are_not_concentrated(network: CNN) -> None:
    with torch.no_grad():
        network.conv1.weight.fill_(0.5)
    found, _ = layers(network, torch.rand(8, 1, 4, 4))
    assert (found.alive, found.single_weight) == (2, 0)


@pytest.mark.parametrize(("others", "count"), [(0.09, 1), (0.11, 0)])
def test_one_weight_has_to_have_nine_tenths(network: CNN, others: float, count: int) -> None:
    with torch.no_grad():
        network.conv1.weight.fill_(others / 24)
        network.conv1.weight[:, 0, 2, 2] = 1 - others
        network.conv1.weight[1].zero_()
    assert layers(network, torch.rand(8, 1, 4, 4))[0].single_weight == count


def test_a_network_without_such_layers() -> None:
    with pytest.raises(InputError, match="Sequential has no convolution"):
        layers(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), torch.rand(1, 1, 4, 4))


@pytest.mark.parametrize(("scale", "alive"), [(0.02, 2), (0.005, 1)])
def test_a_filter_lives_that_varies_by_a_hundredth_of_the_most_varying_one(
    network: CNN, scale: float, alive: int
) -> None:
    with torch.no_grad():
        network.conv1.weight.zero_()
        network.conv1.bias.zero_()
        network.conv1.weight[:, 0, 2, 2] = torch.tensor([1.0, scale])
    found, _ = layers(network, torch.rand(8, 1, 4, 4))
    assert (found.alive, found.single_weight) == (alive, alive)  # of a dead filter nothing is counted
