"""What training minimises: (model, x, y, ...) -> per-example losses and the logits they came from.

The saddle point problem (Equation 2.1) is min over weights of E[max over the threat of L]. An objective
makes the examples and returns L on them; the loop around it is the same for all.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from saddlepoint import own
from saddlepoint.attacks import PGD, undisturbed
from saddlepoint.errors import InputError
from saddlepoint.losses import CrossEntropy, Divergence


class Objective(Protocol):
    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, progress: float
    ) -> tuple[Tensor, Tensor]:
        """Losses (n,) and logits (n, classes). `progress` runs from 0 to 1 over the training.

        What it remembers from step to step is kept for a resumed training if it has state_dict and load_state_dict.
        """
        ...


def checked(returned: Any, n: int, classes: int) -> tuple[Tensor, Tensor]:
    """What an objective returned for `n` images: losses (n,) and logits (n, classes).

    Raises InputError for anything else. The mean of the losses, say, would train at an n-th of the rate.
    """
    expected = f"expected losses of shape ({n},) and logits of shape ({n}, {classes})"
    parts = returned if isinstance(returned, tuple | list) else [returned]
    if [tuple(each.shape) if isinstance(each, Tensor) else None for each in parts] != [(n,), (n, classes)]:
        found = " and ".join(map(_described, parts)) or "nothing"
        raise InputError(f"training.objective returned {found}; {expected}")
    losses, logits = parts
    if not losses.requires_grad:
        raise InputError("training.objective returned losses without a gradient; leave out detach() and no_grad()")
    return losses, logits


def tried(objective: Objective, model: nn.Module, x: Tensor, y: Tensor, classes: int) -> None:
    """Raises InputError if it fails on a few images (n, c, h, w), or returns what cannot be trained on.

    The model, and what draws from torch's generators, are as before afterwards; so is an objective with a state_dict.
    """
    weights = [each for each in model.parameters() if each.requires_grad]
    if not weights:
        raise InputError("the network has no weights to train: none has requires_grad")
    noise = torch.Generator(x.device).manual_seed(0)
    if hasattr(objective, "state_dict"):
        with own.reported(
            "training.objective cannot be kept for a resumed training ({}); plain values and tensors can"
        ):
            objective, state = copy.deepcopy(objective), io.BytesIO()
            torch.save(objective.state_dict(), state)
            state.seek(0)
            objective.load_state_dict(torch.load(state, weights_only=True))  # type: ignore[attr-defined]
    with (
        torch.random.fork_rng([x.device] if x.device.type == "cuda" else []),
        undisturbed(model, "train"),
        _same_weights(model, weights),
    ):
        with own.reported("training.objective fails ({})"):
            for progress in (0.0, 1.0):
                losses, _ = checked(objective(model, x, y, noise, progress), len(y), classes)
        if all(each is None for each in torch.autograd.grad(losses.sum(), weights, allow_unused=True)):
            raise InputError("training.objective returned losses that do not depend on the weights")


@contextmanager
def _same_weights(model: nn.Module, weights: list[nn.Parameter]) -> Iterator[None]:
    """Raises InputError if the weights are changed inside, or were others in the last pass. They are as before then."""
    before = [each.detach().clone() for each in weights]

    def changed() -> bool:
        same = partial(torch.allclose, rtol=0, atol=0, equal_nan=True)
        return not all(map(same, weights, before))

    others: list[bool] = []

    def look(module: nn.Module, _: Any) -> None:
        if module is model:
            others.append(changed())

    # For all modules: a hook of the model's own would be copied with it.
    watch = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        watch.remove()
        moved = changed()
        with torch.no_grad():
            for each, values in zip(weights, before, strict=True):
                each.copy_(values)
    if moved or others[-1:] == [True]:
        raise InputError(
            "training.objective changes the network's weights; to compute with others, "
            "torch.func.functional_call(model, weights, (x,)) leaves them as they are"
        )


def _described(returned: object) -> str:
    if isinstance(returned, Tensor):
        return f"a tensor of shape {tuple(returned.shape)}"
    return "nothing" if returned is None else f"a {type(returned).__name__}"


@dataclass(frozen=True)
class Standard:
    """Cross-entropy on the natural examples."""

    passes: ClassVar[int] = 1  # forward and backward, an example

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, progress: float
    ) -> tuple[Tensor, Tensor]:
        logits = model(x)
        return CrossEntropy()(logits.float(), y), logits


@dataclass(frozen=True)
class Adversarial:
    """Cross-entropy on new adversarial examples for every minibatch, and on nothing else (Section 2.2).

    Args:
        attack: solves the inner maximisation; PGD is the paper's method, one full step its FGSM baseline.
        warmup: the part of the training, 0 to 1, over which eps and step size grow linearly to full size.
            0 in the paper; short schedules need it where eps is large.
    """

    attack: PGD
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.warmup, int | float) or not 0 <= self.warmup < 1:
            raise InputError(f"recipe.warmup={self.warmup}; expected at least 0 and below 1")
        if not isinstance(self.attack, PGD):
            raise InputError(
                f"attack is a {type(self.attack).__name__}, which a measurement takes; training needs "
                "saddlepoint.attacks.PGD, or a subclass with a craft() of its own"
            )
        if self.attack.restarts != 1:
            raise InputError(f"attack.restarts={self.attack.restarts}; training makes its examples from one start")
        if self.attack.targeted:
            raise InputError("attack.targeted=true lowers the loss; training maximises it over the threat")
        if type(self) is Adversarial and isinstance(self.attack.loss, Divergence):
            raise InputError("attack=trades maximises what only training=trades gives it; choose another attack")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, progress: float
    ) -> tuple[Tensor, Tensor]:
        logits = model(self._attack(progress).craft(model, x, y, generator))
        return CrossEntropy()(logits.float(), y), logits

    @property
    def passes(self) -> int:
        """Forward and backward, an example."""
        return self.attack.steps + 1

    def _attack(self, progress: float) -> PGD:
        return self.attack.scaled(1.0 if progress >= self.warmup else progress / self.warmup)


@dataclass(frozen=True)
class Trades(Adversarial):
    """Cross-entropy on natural examples and `beta` times the divergence of the adversarial predictions from them.

    Zhang et al. 2019, Equation 5, the method most people compare with. The attack maximises the divergence
    (losses.Divergence), from a random point of the ball.
    """

    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.beta, int | float) or not 0 <= self.beta < math.inf:
            raise InputError(f"training.objective.beta={self.beta}; expected a number of at least 0, such as 6")

    @property
    def passes(self) -> int:
        return self.attack.steps + 3

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, progress: float
    ) -> tuple[Tensor, Tensor]:
        with undisturbed(model, self.attack.model_mode), torch.no_grad():  # as the attack sees it
            natural = model(x).float().softmax(1)
        # Some torch keep the weights that autocast casts here, without a gradient, for the passes below.
        torch.clear_autocast_cache()
        x_adv = self._attack(progress).craft(model, x, natural, generator)
        natural_logits, logits = model(x).float(), model(x_adv)
        # From logarithms: through a probability that is exactly 0 the gradient of Divergence would be 0 / 0.
        log_p, log_q = natural_logits.log_softmax(1), logits.float().log_softmax(1)
        divergence = (log_p.exp() * (log_p - log_q)).sum(1)
        return CrossEntropy()(natural_logits, y) + self.beta * divergence, logits
