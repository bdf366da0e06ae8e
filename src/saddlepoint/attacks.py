"""Projected gradient descent, the paper's universal first-order adversary (Section 2.1).

    attack = PGD(Threat("linf", "8/255"), steps=20, step_size="2/255")
    x_adv = attack(model, x, y, generator)

FGSM is PGD(threat, steps=1, step_size=eps, random_start=False). An attack is a pure function of the
model, the images (n, c, h, w) in the threat's bounds, the labels (n,) and the generator. It computes the
input's gradient alone, and leaves the model as it found it. Precision is the caller's: under
torch.autocast the forward passes run in the lower precision, while images, steps and projections stay in
float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from saddlepoint.errors import InputError, whole
from saddlepoint.losses import CrossEntropy, Loss
from saddlepoint.threat import Threat, parse_number


class Attack(Protocol):
    """What a measurement needs of an attack: ours, or another library's (evaluation/autoattack.py)."""

    @property
    def threat(self) -> Threat: ...
    def describe(self) -> dict[str, object]: ...
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor: ...


@contextmanager
def undisturbed(model: nn.Module, mode: str = "eval") -> Iterator[None]:
    """The model in `mode` ("eval" or "train"); afterwards every module's mode and every buffer is as before."""
    modes = [(module, module.training) for module in model.modules()]
    # Only train mode moves buffers (batch normalisation's running statistics).
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if mode == "train" else []
    model.train(mode == "train")
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@dataclass
class PGD:
    """Ascend the loss inside the threat's ball: `steps` steps, each projected (Equation in Section 2.1).

    Args:
        threat: the set of allowed perturbations.
        steps: at least 1.
        step_size: in the units of the images, a number or a fraction such as "2/255"; "1.25 eps" is relative
            to the threat's; None means 2.5 eps / steps, the rule of the paper's Figure 6.
        loss: per-example loss to maximise.
        random_start: begin at a uniformly random point of the ball instead of the image.
        restarts: independent runs; the worst is kept per example, and an example that is broken gets no more.
        targeted: labels are classes to reach; the loss is minimised towards them.
        model_mode: "eval", or "train" for batch statistics while crafting (the paper's CIFAR10 training).
    """

    threat: Threat
    steps: int
    step_size: float | str | None = None
    loss: Loss = dataclasses.field(default_factory=CrossEntropy)
    random_start: bool = True
    restarts: int = 1
    targeted: bool = False
    model_mode: str = "eval"

    def __post_init__(self) -> None:
        for name in ("steps", "restarts"):
            whole(getattr(self, name), f"attack.{name}")
        if self.model_mode not in ("eval", "train"):
            raise InputError(f"attack.model_mode={self.model_mode}; choose eval or train")
        given = self.step_size
        if given is None:
            self.alpha = 2.5 * self.threat.eps / self.steps
        elif isinstance(given, str) and given.endswith("eps"):
            self.alpha = self.threat.eps * parse_number(given.removesuffix("eps").strip() or 1, "attack.step_size")
        else:
            self.alpha = parse_number(given, "attack.step_size")
        if self.alpha < 0:
            raise InputError(f"attack.step_size={given} is negative; expected at least 0")

    def describe(self) -> dict[str, object]:
        """Everything that defines the attack, as plain values for a result file."""
        return {
            "norm": self.threat.norm,
            "eps": self.threat.eps_as_written,
            "steps": self.steps,
            "step_size": str(self.step_size if self.step_size is not None else self.alpha),
            "loss": repr(self.loss),
            "random_start": self.random_start,
            "restarts": self.restarts,
            "targeted": self.targeted,
            "model_mode": self.model_mode,
            **({} if self.threat.bounds == (0.0, 1.0) else {"bounds": list(self.threat.bounds)}),
        }

    def scaled(self, factor: float) -> PGD:
        """The same attack with eps and step size times `factor`."""
        if factor == 1:
            return self
        return dataclasses.replace(self, threat=self.threat.scaled(factor), step_size=self.alpha * factor)

    def ascend(self, model: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One step: (the next iterate, this iterate's per-example objective), both detached."""
        with torch.enable_grad():
            x_adv = x_adv.detach().requires_grad_()
            objective = self.objective(model(x_adv), y)
            (grad,) = torch.autograd.grad(objective.sum(), x_adv)
        with torch.no_grad():
            return self.threat.project(self.threat.step(x_adv, grad, self.alpha), x), objective.detach()

    def objective(self, logits: Tensor, y: Tensor) -> Tensor:
        """What is maximised, per example (n,), in float32 whatever the precision of the logits."""
        loss = self.loss(logits.float(), y)
        return -loss if self.targeted else loss

    def start(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """The first iterate."""
        return self.threat.random_point(x, generator) if self.random_start else x

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One run from one start, without looking at the outcome: what training needs, free of synchronisation."""
        with undisturbed(model, self.model_mode):
            x_adv = self.start(x, generator)
            for _ in range(self.steps):
                x_adv, _ = self.ascend(model, x_adv, x, y)
        return x_adv

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The worst example found over all restarts, (n, c, h, w). Raises InputError if x is out of bounds."""
        low, high = self.threat.bounds
        if x.numel() and not (x.amin() >= low and x.amax() <= high):
            raise InputError(
                f"images span [{x.amin():g}, {x.amax():g}], expected [{low:g}, {high:g}]: "
                "attacks work on raw pixels, normalisation belongs inside the model"
            )
        if self.restarts == 1:
            return self.craft(model, x, y, generator)
        worst = x.clone()
        highest = torch.full(y.shape, -torch.inf, device=x.device)
        standing = torch.arange(len(x), device=x.device)  # indices of the examples not broken yet
        for _ in range(self.restarts):
            x_adv = self.craft(model, x[standing], y[standing], generator)
            objective, broken = self._judge(model, x_adv, y[standing])
            better = broken | (objective > highest[standing])
            worst[standing[better]] = x_adv[better]
            highest[standing[better]] = objective[better]
            standing = standing[~broken]
            if not len(standing):
                break
        return worst

    @torch.no_grad()
    def _judge(self, model: nn.Module, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with undisturbed(model):
            logits = model(x_adv)
        hit = logits.argmax(1) == y
        return self.objective(logits, y), hit if self.targeted else ~hit


@dataclass
class Targeted:
    """PGD towards a wrong class: Table 1's Targeted row. The paper does not say which; here the likeliest wrong one.

    Args:
        attack: with `targeted=True`.
    """

    attack: PGD

    def __post_init__(self) -> None:
        if not self.attack.targeted:
            raise InputError("attack.targeted=false inside a targeted attack; expected true")

    @property
    def threat(self) -> Threat:
        return self.attack.threat

    def describe(self) -> dict[str, object]:
        return {**self.attack.describe(), "target": "likeliest wrong class"}

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        with undisturbed(model), torch.no_grad():
            target = model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
        return self.attack(model, x, target, generator)
