"""The threat model: the set S of allowed perturbations (Section 2). The only file that computes in a norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor

from saddlepoint.errors import InputError


def parse_number(value: float | str, name: str) -> float:
    """`value` as a float; a string may be a fraction such as "8/255". Raises InputError naming `name`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(Fraction(value)) if isinstance(value, str) else float(value)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise InputError(f"{name}={value} is not a number; write it like 0.3 or 8/255") from None
    if not math.isfinite(number):
        raise InputError(f"{name}={value} is not finite")
    return number


def _per_example(values: Tensor, x: Tensor) -> Tensor:
    """Shape (n,) -> (n, 1, 1, ...), to broadcast against x."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


Bounds = tuple[float, float]


class Norm(Protocol):
    """Geometry of the ball {x + delta : ||delta|| <= eps}, for images (n, ...)."""

    @staticmethod
    def size(delta: Tensor) -> Tensor:
        """The norm of each perturbation, (n,)."""
        ...

    @staticmethod
    def random(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
        """A uniformly random point of each ball, which may be out of bounds."""
        ...

    @staticmethod
    def ascend(x_adv: Tensor, grad: Tensor, step_size: float) -> Tensor:
        """The steepest step of this size in this norm, which may leave the ball."""
        ...

    @staticmethod
    def projection(x: Tensor, eps: float, bounds: Bounds) -> Callable[[Tensor], Tensor]:
        """A function that moves images into the balls around x, then into the bounds."""
        ...


class Linf:
    @staticmethod
    def size(delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().amax(1)

    @staticmethod
    def random(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
        return x + torch.empty_like(x).uniform_(-eps, eps, generator=generator)

    @staticmethod
    def ascend(x_adv: Tensor, grad: Tensor, step_size: float) -> Tensor:
        return x_adv.add(grad.sign(), alpha=step_size)

    @staticmethod
    def projection(x: Tensor, eps: float, bounds: Bounds) -> Callable[[Tensor], Tensor]:
        low, high = (x - eps).clamp_(*bounds), (x + eps).clamp_(*bounds)  # once for all steps
        return lambda x_adv: x_adv.clamp(low, high)


class L2:
    @staticmethod
    def size(delta: Tensor) -> Tensor:
        return delta.flatten(1).norm(dim=1)

    @staticmethod
    def random(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
        direction = torch.empty_like(x).normal_(generator=generator)
        radius = torch.empty(len(x), device=x.device).uniform_(generator=generator)
        radius = eps * radius ** (1 / x[0].numel())  # uniform in volume, not in radius
        return x + direction * _per_example(radius / L2.size(direction), x)

    @staticmethod
    def ascend(x_adv: Tensor, grad: Tensor, step_size: float) -> Tensor:
        # Scaled to a largest entry of 1 first: squares of a tiny gradient would vanish. A zero gradient stays zero.
        scaled = grad / _per_example(Linf.size(grad).clamp_min(torch.finfo(grad.dtype).tiny), grad)
        return x_adv + scaled * _per_example(step_size / L2.size(scaled).clamp_min(1), x_adv)

    @staticmethod
    def projection(x: Tensor, eps: float, bounds: Bounds) -> Callable[[Tensor], Tensor]:
        def project(x_adv: Tensor) -> Tensor:
            delta = x_adv - x
            length = L2.size(delta).clamp_min(torch.finfo(delta.dtype).tiny)
            return (x + delta * _per_example((eps / length).clamp_max(1), x)).clamp_(*bounds)

        return project


NORMS: dict[str, type[Norm]] = {"linf": Linf, "l2": L2}


class Threat:
    """All images within `eps` of x in the given norm, and in [0, 1].

    Args:
        norm: "linf" or "l2".
        eps: radius in the units of the images, a number or a fraction such as "8/255". At least 0, and
            for linf at most 1.
        bounds: (0, 1). A network that expects another range stands inside models.Normalized.

    Images are (n, ...) tensors; every method returns a tensor of their shape unless it says otherwise.
    """

    bounds: Bounds = (0.0, 1.0)

    def __init__(self, norm: str, eps: float | str, bounds: Sequence[float] = (0, 1)) -> None:
        if norm not in NORMS:
            raise InputError(f"unknown norm {norm!r}; choose {' or '.join(NORMS)}")
        if bounds not in ((0, 1), [0, 1]):
            raise InputError(
                f"threat.bounds={bounds}; expected [0, 1]: images are in [0, 1], and saddlepoint.models.Normalized "
                "around a network says what it expects"
            )
        self.norm = norm
        self.eps = parse_number(eps, "threat.eps")
        self.eps_as_written = str(eps)
        if self.eps < 0:
            raise InputError(f"threat.eps={eps} is negative; expected a radius of at least 0")
        if norm == "linf" and self.eps > 1:
            raise InputError(f"threat.eps={eps} is above the pixel range 1; images are in [0, 1]")
        self._norm = NORMS[norm]

    def __repr__(self) -> str:
        return f"Threat({self.norm}, eps={self.eps_as_written})"

    def scaled(self, factor: float) -> Threat:
        """The same threat with eps times `factor`."""
        return Threat(self.norm, self.eps * factor)

    def random_point(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A point drawn uniformly from the ball around each image, clipped to the bounds."""
        return self._norm.random(x, self.eps, generator).clamp_(*self.bounds)

    def step(self, x_adv: Tensor, grad: Tensor, step_size: float) -> Tensor:
        """Steepest ascent by `step_size` in this norm; not yet projected. A gradient that is NaN counts as zero."""
        return self._norm.ascend(x_adv, grad.nan_to_num(0.0), step_size)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Back into the ball around x, then into the bounds (which never leaves the ball, as x is inside them)."""
        return self.projection(x)(x_adv)

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` for many steps around the same images."""
        return self._norm.projection(x, self.eps, self.bounds)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Length of each perturbation in this norm, shape (n,)."""
        return self._norm.size(x_adv - x)

    def contains(self, x_adv: Tensor, x: Tensor, tolerance: float = 1e-5) -> Tensor:
        """Whether each example is finite, in the ball and in the bounds up to rounding: bool, shape (n,)."""
        flat = x_adv.flatten(1)
        in_bounds = (flat.amin(1) >= 0) & (flat.amax(1) <= 1)  # a NaN compares false
        return in_bounds & (self.distance(x_adv, x) <= self.eps + tolerance * max(1.0, self.eps))
