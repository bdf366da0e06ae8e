from __future__ import annotations

import pytest
import torch
from torch import nn

from saddlepoint.errors import InputError
from saddlepoint.evaluation.weights import layers
from saddlepoint.models import CNN


def test_live_and_single_weight_filters_are_counted(network: CNN) -> None:
    with torch.no_grad():
        network.conv1.weight.zero_()
        network.conv1.bias.zero_()
        network.conv1.weight[0, 0, 2, 2] = 1.0  # a threshold filter
    found = layers(network, torch.rand(8, 1, 4, 4))
    assert found.filters.shape == (2, 1, 5, 5)
    assert found.alive.tolist() == [True, False]
    assert found.concentration[0] == 1
    assert found.weights.shape == (2, 64) and found.biases.tolist() == pytest.approx([0.1, 0.1])


def test_a_filter_below_its_threshold_is_dead(network: CNN) -> None:
    with torch.no_grad():
        network.conv1.bias[1] = -100.0
    assert layers(network, torch.rand(8, 1, 4, 4)).alive.tolist() == [True, False]


def test_spread_out_weights_are_not_concentrated(network: CNN) -> None:
    with torch.no_grad():
        network.conv1.weight.fill_(0.5)
    assert layers(network, torch.rand(8, 1, 4, 4)).concentration.tolist() == pytest.approx([1 / 25, 1 / 25])


def test_a_network_without_such_layers() -> None:
    with pytest.raises(InputError, match="Sequential has no convolution"):
        layers(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), torch.rand(1, 1, 4, 4))
