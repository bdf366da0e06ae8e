"""Does a network withstand the attack, or only hide from it? The signs of masked gradients (Athalye et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn

from saddlepoint.attacks import PGD
from saddlepoint.data import Split
from saddlepoint.measure.landscape import input_gradient
from saddlepoint.measure.result import Check


def zero_gradients(model: nn.Module, split: Split, attack: PGD, batch_size: int = 500) -> float:
    """The share of images whose loss has a gradient of exactly zero: PGD from there goes nowhere."""
    zero = [(input_gradient(model, attack, x, y) == 0).all(1) for _, x, y in split.batches(batch_size)]
    return float(torch.cat(zero).float().mean())


def judge(
    *,
    by_steps: Mapping[int, float],
    by_restarts: Mapping[int, float],
    by_eps: Mapping[float, float],
    at_full_range: float,
    black_box: float | None,
    gradient_free: float,
    zero: float,
    tolerance: float,
) -> list[Check]:
    """The checks, from accuracies in 0..1 under each attack.

    Args:
        by_steps, by_restarts, by_eps: accuracy under PGD by its number of steps, of restarts (from 1), and by eps.
        at_full_range: under PGD with eps the whole pixel range.
        black_box: under PGD from an independent copy; it is held against PGD with one restart. None without a copy.
        gradient_free: under an attack that sees no gradient; it is held against PGD with the most restarts.
        zero: share of images without a gradient.
        tolerance: how far sampling alone may move an accuracy: half of its 95% interval.
    """

    def falls(accuracies: Sequence[float]) -> bool:
        return all(later <= earlier + tolerance for earlier, later in pairwise(accuracies))

    def named(unit: str, values: Mapping[int, float] | Mapping[float, float]) -> dict[str, float]:
        return {f"{unit} {key:g}": value for key, value in values.items()}

    white_box, *_, strongest = by_restarts.values()
    transferred = []
    if black_box is not None:
        numbers = {"black box": black_box, "white box": white_box}
        transferred = [Check("black box", "no stronger than white", numbers, black_box >= white_box - tolerance)]
    return [
        Check("more steps", "no weaker", named("steps", by_steps), falls(list(by_steps.values()))),
        Check("more restarts", "no weaker", named("restarts", by_restarts), falls(list(by_restarts.values()))),
        Check("larger eps", "no weaker", named("eps", by_eps), falls(list(by_eps.values()))),
        Check("eps is the pixel range", "no accuracy left", {"accuracy": at_full_range}, at_full_range <= tolerance),
        *transferred,
        Check(
            "gradient-free attack",
            "no stronger than white",
            {"gradient-free": gradient_free, "strongest white box": strongest},
            gradient_free >= strongest - tolerance,
        ),
        Check("zero gradients", "below 5% of images", {"share": zero}, zero < 0.05),
    ]
