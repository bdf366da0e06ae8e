"""Learning rates as pure functions of progress (0 to 1): nothing to save, nothing to resume."""

from __future__ import annotations

import math
from dataclasses import dataclass

from saddlepoint.errors import InputError


@dataclass(frozen=True)
class Peaked:
    """What the schedules share."""

    peak: float

    def __post_init__(self) -> None:
        if not isinstance(self.peak, int | float) or not 0 <= self.peak < math.inf:
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

    def __call__(self, progress: float) -> float:
        return self.peak * self.factor ** sum(progress >= point for point in self.at)


@dataclass(frozen=True)
class OneCycle(Peaked):
    """Linearly from 0 up to the peak at `rise`, and linearly down to 0."""

    rise: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rise < 1:
            raise InputError(f"recipe.schedule.rise={self.rise}; expected at least 0 and below 1")

    def __call__(self, progress: float) -> float:
        up = progress / self.rise if self.rise else 1.0
        return self.peak * min(up, (1 - progress) / (1 - self.rise))
