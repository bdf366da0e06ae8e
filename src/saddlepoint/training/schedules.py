"""Learning rates as pure functions of progress (0 to 1): nothing to save, nothing to resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from saddlepoint import own
from saddlepoint.errors import InputError

Schedule = Callable[[float], float]

EXAMPLE = "{_target_: saddlepoint.training.schedules.Constant, peak: 0.001}"


def finite(value: object) -> bool:
    """Whether it is a finite number, and neither true nor false."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def checked(schedule: Any) -> Schedule:
    """The schedule, tried at progress 0, 0.5 and 1.

    Raises InputError unless it returns a finite rate of at least 0 for each.
    """
    if not callable(schedule):
        raise InputError(f"recipe.schedule={schedule}; expected a function of progress, such as {EXAMPLE}")
    for progress in (0.0, 0.5, 1.0):
        with own.reported(f"recipe.schedule fails at progress {progress} ({{}})"):
            rate = schedule(progress)
        if not finite(rate) or rate < 0:
            raise InputError(f"recipe.schedule is {rate} at progress {progress}; expected a finite rate of at least 0")
    known: Schedule = schedule
    return known


@dataclass(frozen=True)
class Peaked:
    """What the schedules share."""

    peak: float

    def __post_init__(self) -> None:
        if not finite(self.peak) or self.peak < 0:
            raise InputError(f"recipe.schedule.peak={self.peak}; expected a number of at least 0, such as 1e-3")


@dataclass(frozen=True)
class Constant(Peaked):
    """The peak rate throughout (the paper's MNIST)."""

    def __call__(self, progress: float) -> float:
        return self.peak


@dataclass(frozen=True)
class Steps(Peaked):
    """The peak rate times `factor` after each of `at` (the paper's CIFAR10: 0.1 after 1/2 and after 3/4)."""

    at: tuple[float, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.at, list | tuple) or not all(finite(point) and 0 < point < 1 for point in self.at):
            raise InputError(f"recipe.schedule.at={self.at}; expected numbers between 0 and 1, such as [0.5,0.75]")
        if not finite(self.factor) or self.factor <= 0:
            raise InputError(f"recipe.schedule.factor={self.factor}; expected a number above 0, such as 0.1")

    def __call__(self, progress: float) -> float:
        return self.peak * self.factor ** sum(progress >= point for point in self.at)


@dataclass(frozen=True)
class OneCycle(Peaked):
    """Linearly from 0 up to the peak at `rise`, and linearly down to 0."""

    rise: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not finite(self.rise) or not 0 <= self.rise < 1:
            raise InputError(f"recipe.schedule.rise={self.rise}; expected at least 0 and below 1")

    def __call__(self, progress: float) -> float:
        up = progress / self.rise if self.rise else 1.0
        return self.peak * min(up, (1 - progress) / (1 - self.rise))
