from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saddlepoint.attacks import PGD
from saddlepoint.data import Split
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.measure.autoattack import AutoAttack
from saddlepoint.measure.diagnostics import judge, zero_gradients
from saddlepoint.threat import Threat

SOUND: dict[str, Any] = {
    "by_steps": {5: 0.6, 20: 0.5, 100: 0.5},
    "by_restarts": {1: 0.5, 20: 0.48},
    "by_eps": {0.1: 0.7, 0.2: 0.5},
    "at_full_range": 0.0,
    "black_box": 0.7,
    "gradient_free": 0.6,
    "zero": 0.0,
    "tolerance": 0.02,
}


def suspicious(**changes: Any) -> list[str]:
    return [check.name for check in judge(**SOUND | changes) if not check.passed]


def test_a_sound_network_passes() -> None:
    assert suspicious() == []
    assert suspicious(by_steps={5: 0.5, 20: 0.515}) == []  # within what sampling may do


@pytest.mark.parametrize(
    ("changes", "sign"),
    [
        ({"by_steps": {5: 0.5, 20: 0.6}}, "more steps"),
        ({"by_restarts": {1: 0.5, 20: 0.6}}, "more restarts"),
        ({"by_eps": {0.1: 0.5, 0.2: 0.6}}, "larger eps"),
        ({"at_full_range": 0.3}, "eps is the pixel range"),
        ({"black_box": 0.3}, "black box"),
        ({"gradient_free": 0.3}, "gradient-free attack"),
        ({"zero": 0.2}, "zero gradients"),
    ],
)
def test_each_sign_is_seen(changes: dict[str, Any], sign: str) -> None:
    assert suspicious(**changes) == [sign]


def test_without_a_copy_there_is_no_black_box() -> None:
    names = [check.name for check in judge(**SOUND)]
    assert [check.name for check in judge(**SOUND | {"black_box": None})] == [n for n in names if n != "black box"]


class Masked(nn.Module):
    """Bright or dark, told from pixels in eight steps: no gradient, and no robustness either."""

    def forward(self, x: Tensor) -> Tensor:
        excess = 8 * ((8 * x).round() / 8).flatten(1).mean(1) - 4
        return torch.stack([-excess, excess, *[torch.full_like(excess, -50)] * 8], 1)


def test_a_network_that_masks_its_gradients_is_called_suspicious() -> None:
    pixels = torch.tensor([40, 42, 58, 60], dtype=torch.uint8).reshape(4, 1, 1, 1).expand(4, 1, 8, 8)
    split, model = Split(pixels.contiguous(), torch.tensor([0, 0, 1, 1]), 100), Masked()
    attack = PGD(Threat("linf", 0.2), steps=10, random_start=False)

    def accuracy(attack: Any) -> float:
        return evaluate(model, split, attack).accuracy

    pytest.importorskip("pyautoattack")
    assert zero_gradients(model, split, attack) == 1
    signs = suspicious(
        zero=zero_gradients(model, split, attack),
        by_restarts={1: accuracy(attack), 20: accuracy(attack)},
        black_box=1.0,
        gradient_free=accuracy(AutoAttack(attack.threat, "square", 200)),
        at_full_range=accuracy(PGD(Threat("linf", 1), steps=10, random_start=False)),
    )
    assert signs == ["eps is the pixel range", "gradient-free attack", "zero gradients"]


@pytest.mark.parametrize(
    ("changes", "signs"),
    [
        ({"black_box": 0.485}, []),
        ({"black_box": 0.475}, ["black box"]),  # against one restart, 0.5
        ({"gradient_free": 0.465}, []),
        ({"gradient_free": 0.455}, ["gradient-free attack"]),  # against the most restarts, 0.48
        ({"at_full_range": 0.015}, []),
        ({"at_full_range": 0.025}, ["eps is the pixel range"]),
        ({"zero": 0.049}, []),
        ({"zero": 0.05}, ["zero gradients"]),
    ],
)
def test_signs_are_held_against_the_right_number(changes: dict[str, Any], signs: list[str]) -> None:
    assert suspicious(**changes) == signs
