from __future__ import annotations

import pytest
import torch
from torch import nn

from saddlepoint.errors import InputError
from saddlepoint.models import Normalized


def test_the_network_sees_the_range_it_expects() -> None:
    x = torch.rand(2, 3, 4, 4)
    model = Normalized(nn.Identity(), scale=255, mean=[10, 20, 30], std=[1, 2, 4])
    expected = torch.stack([255 * x[:, 0] - 10, (255 * x[:, 1] - 20) / 2, (255 * x[:, 2] - 30) / 4], 1)
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(Normalized(nn.Identity(), mean=[0.5], std=[0.5])(x), 2 * x - 1)
    assert torch.equal(Normalized(nn.Identity())(x), x)


def test_its_state_is_the_networks() -> None:
    model = Normalized(nn.Linear(2, 2), mean=[0.5])
    assert list(model.state_dict()) == ["network.weight", "network.bias"]


@pytest.mark.parametrize("wrong", [{"scale": 0}, {"std": [0.2, 0, 0.2]}])
def test_what_cannot_be_divided_by_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected numbers above 0"):
        Normalized(nn.Identity(), **wrong)  # type: ignore[arg-type]
