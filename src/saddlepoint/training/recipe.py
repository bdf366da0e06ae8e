"""How weights are fitted, whatever the method: batches, optimiser, schedule, image sizes, averaging."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from saddlepoint import own
from saddlepoint.data import CropFlip, resized
from saddlepoint.errors import InputError, whole
from saddlepoint.threat import parse_number
from saddlepoint.training.schedules import checked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything that the loop needs besides a network, an objective and data.

    Args:
        batch_size: images a step, over all processes.
        optimizer: makes the optimiser from parameter groups.
        schedule: learning rate as a function of progress, 0 to 1.
        steps: optimiser steps; or give `epochs`.
        weight_decay: on convolution and fully connected weights only, as the authors' code has it.
        reduction: "mean" or "sum" of the losses over the batch.
        precision: of the forward passes, where the hardware has it.
        evaluations: how often over the whole training the held-out images are measured and history written.
        augmentation: of the natural images, before the attack.
        grow: image height in pixels -> the progress, 0 to 1, until which the network trains on images resized to it.
            Sizes and progress increase; after the last the images are whole. A convolutional network costs a quarter
            at half the size.
        averaging: decay of the exponential mean of the weights, 0 to below 1; 0 keeps no mean. Buffers such as batch
            normalisation's statistics are averaged alike.
    """

    batch_size: int
    optimizer: Callable[[list[dict[str, Any]]], Optimizer]
    schedule: Callable[[float], float]
    steps: int | None = None
    epochs: float | str | None = None
    weight_decay: float = 0.0
    reduction: str = "mean"
    precision: str = "float32"
    evaluations: int = 20
    augmentation: CropFlip | None = None
    grow: Mapping[int, float | str] | None = None
    averaging: float = 0.0

    def __post_init__(self) -> None:
        if self.reduction not in ("mean", "sum"):
            raise InputError(f"recipe.reduction={self.reduction}; choose mean or sum")
        whole(self.batch_size, "recipe.batch_size")
        whole(self.evaluations, "recipe.evaluations")
        if not _between(self.weight_decay, math.inf):
            raise InputError(f"recipe.weight_decay={self.weight_decay}; expected a number of at least 0")
        if not _between(self.averaging, 1):
            raise InputError(f"recipe.averaging={self.averaging}; expected at least 0 and below 1, such as 0.999")
        if self.augmentation is not None and not callable(self.augmentation):
            raise InputError(f"dataset.augmentation={self.augmentation}; expected null, or a _target_ that is callable")
        checked(self.schedule)
        before = (0, 0.0)
        for size, until in self.stages:
            whole(size, "recipe.grow (an image size)")
            if not (before[0] < size and before[1] < until < 1):
                raise InputError(
                    f"recipe.grow={self.grow}; sizes and progress have to increase, progress below 1, "
                    "such as {16: 0.5, 24: 0.7}"
                )
            before = (size, until)

    @cached_property
    def stages(self) -> list[tuple[int, float]]:
        """The sizes before the images are whole, and the progress at which each ends."""
        if not isinstance(self.grow, Mapping | None):
            raise InputError(f"recipe.grow={self.grow}; expected sizes and progress, such as {{16: 0.5, 24: 0.7}}")
        return [(size, parse_number(until, f"recipe.grow.{size}")) for size, until in (self.grow or {}).items()]

    def size(self, progress: float) -> int | None:
        """The height to which images are resized at this progress; None for whole images."""
        return next((size for size, until in self.stages if progress < until), None)

    def resized(self, x: Tensor, progress: float) -> Tensor:
        """Images (n, c, h, w) as they are trained on at this progress."""
        size = self.size(progress)
        return x if size is None else resized(x, size)

    def optimizer_of(self, groups: list[dict[str, Any]]) -> Optimizer:
        """The optimiser of these parameter groups. Raises InputError if it does not take its settings."""
        if not callable(self.optimizer):
            raise InputError(f"recipe.optimizer={self.optimizer}; expected a _target_ with _partial_: true")
        given = getattr(self.optimizer, "keywords", {})
        if "weight_decay" in given:
            raise InputError("recipe.optimizer.weight_decay would be ignored; write recipe.weight_decay=... instead")
        if "lr" in given:
            log.warning("recipe.optimizer.lr has no effect: recipe.schedule sets the rate of every step")
        with own.reported("recipe.optimizer: {}"):
            self._step_once(groups)
            made = self.optimizer(groups)
        if not isinstance(made, Optimizer):
            raise InputError(f"recipe.optimizer makes a {type(made).__name__}; expected a torch.optim.Optimizer")
        return made

    def _step_once(self, groups: list[dict[str, Any]]) -> None:
        """On small zeros with as many dimensions as the weights: whether it takes gradients as the loop gives them."""
        zeros = [
            {**group, "params": [torch.zeros((2,) * n, device=device, requires_grad=True) for n, device in kinds]}
            for group in groups
            if (kinds := {(each.ndim, each.device) for each in group["params"]})
        ]
        for each in (each for group in zeros for each in group["params"]):
            each.grad = torch.zeros_like(each)
        made = self.optimizer(zeros)
        if isinstance(made, Optimizer):
            made.step()

    def number_of_steps(self, per_epoch: int) -> int:
        """Of a whole training. Raises InputError unless exactly one of `steps` and `epochs` is given."""
        if (self.steps is None) == (self.epochs is None):
            raise InputError(f"recipe.steps={self.steps} and recipe.epochs={self.epochs}; give one of them")
        steps = self.steps
        if steps is None:
            assert self.epochs is not None
            steps = round(parse_number(self.epochs, "recipe.epochs") * per_epoch)
        whole(steps, "recipe.steps")
        if steps > 2**53:
            raise InputError(f"recipe.steps={steps} is more than any training; expected at most {2**53}")
        return steps


def _between(value: object, end: float) -> bool:
    """Whether it is a number of at least 0 and below `end`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < end
