from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from saddlepoint.errors import InputError
from saddlepoint.models import CNN, cnn


@pytest.mark.parametrize(("capacity", "parameters"), [(1, 13514), (2, 52506), (4, 206954), (8, 821706), (16, 3274634)])
def test_parameter_counts_are_the_papers(capacity: int, parameters: int) -> None:
    with torch.device("meta"):
        model = CNN(capacity)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_initial_weights_are_the_authors_truncated_normal() -> None:
    model = CNN(4, generator=torch.Generator().manual_seed(0))
    for layer in (model.conv1, model.conv2, model.fc1, model.fc2):
        assert layer.weight.abs().max() <= 0.2
        # A normal cut at two deviations has 0.880 of its deviation.
        assert layer.weight.std().item() == pytest.approx(0.088, rel=0.1 if layer.weight.numel() < 1000 else 0.03)
        assert layer.weight.mean().abs() < 0.01
        assert (layer.bias == 0.1).all()
    assert model.fc1.weight.abs().max() > 0.19  # cut at two deviations, not at fewer


def test_weights_follow_the_generator() -> None:
    first, again, other = (CNN(1, generator=torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize("avx512", [False, True])
@pytest.mark.parametrize("size", [8, 28])  # fc1 as a matrix product, and with AVX-512 as a convolution for the larger
def test_the_logits_are_those_of_the_paper_s_order_of_layers(
    size: int, avx512: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cnn, "AVX512", avx512)
    model = CNN(2, image_size=size, channels=3, classes=5, generator=torch.Generator().manual_seed(0))
    x = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    hidden = x
    for layer in (model.conv1, model.conv2):
        hidden = F.max_pool2d(F.relu(F.conv2d(hidden, layer.weight, layer.bias, padding=2)), 2)
    hidden = F.relu(hidden.permute(0, 2, 3, 1).reshape(4, -1) @ model.fc1.weight.T + model.fc1.bias)
    torch.testing.assert_close(model(x), hidden @ model.fc2.weight.T + model.fc2.bias)


def test_no_capacity_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.capacity=0"):
        CNN(0)
