"""Projected gradient descent, the paper's universal first-order adversary (Section 2.1).

    attack = PGD(Threat("linf", "8/255"), steps=20, step_size="2/255")
    x_adv = attack(model, x, y, generator)

FGSM is PGD(threat, steps=1, step_size=eps, random_start=False). An attack is a pure function of the
model, the images (n, c, h, w) in [0, 1], the labels (n,) and the generator. It computes the
input's gradient alone, and leaves the model as it found it, except in the mode "track". Precision is the
caller's: under torch.autocast the forward passes run in the lower precision, while images, steps and
projections stay in float32.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from saddlepoint import own
from saddlepoint.errors import InputError, flag, whole
from saddlepoint.files import digest
from saddlepoint.losses import CrossEntropy, LogOdds, Loss, surrogate
from saddlepoint.threat import Threat, parse_number

log = logging.getLogger(__name__)


class Attack(Protocol):
    """What a measurement needs of an attack: ours, yours, or another library's (measure/autoattack.py)."""

    @property
    def threat(self) -> Threat: ...

    def describe(self) -> dict[str, object]:
        """Every setting that changes the examples, as plain values for a JSON file."""
        ...

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Images inside the threat around x (n, c, h, w) in [0, 1] with labels y (n,); the model is as before."""
        ...


def classified(logits: Tensor, y: Tensor) -> Tensor:
    """Whether each example is classified as y: bool (n,). Logits that are not finite classify nothing."""
    return (logits.argmax(1) == y) & logits.isfinite().all(1)


@contextmanager
def undisturbed(model: nn.Module, mode: str = "eval") -> Iterator[None]:
    """The model in `mode`; afterwards every module's mode is as before, and every buffer unless the mode is "track"."""
    modes = [(module, module.training) for module in model.modules()]
    # Only train mode moves buffers (batch normalisation's running statistics).
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if mode == "train" else []
    model.train(mode != "eval")
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

    Cross-entropy is softplus(d) with d = log(sum_{j != y} exp z_j) - z_y, and its gradient is that of d times
    sigmoid(d), a factor that sign and normalised steps cancel but float32 rounds to 0: the attack ascends d
    (losses.LogOdds). What is reported, `objective`, is the loss itself.

    Args:
        threat: the set of allowed perturbations.
        steps: at least 1.
        step_size: in the units of the images, a number or a fraction such as "2/255"; "1.25 eps" is relative
            to the threat's; None means 2.5 eps / steps, the rule of the paper's Figure 6.
        loss: per-example loss to maximise.
        random_start: begin at a uniformly random point of the ball instead of the image.
        restarts: independent runs; the worst is kept per example, and an example that is broken gets no more.
        targeted: labels are classes to reach; the loss is minimised towards them.
        model_mode: "eval"; "train" for batch statistics while crafting; "track" for these, and the running statistics
            follow them, which training in the authors' code on CIFAR10 does. Measure with "eval".
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
        for name in ("random_start", "targeted"):
            flag(getattr(self, name), f"attack.{name}")
        if self.model_mode not in ("eval", "train", "track"):
            raise InputError(f"attack.model_mode={self.model_mode}; choose eval, train or track")
        given = self.step_size
        if given is None:
            self.alpha = 2.5 * self.threat.eps / self.steps
        elif isinstance(given, str) and given.endswith("eps"):
            self.alpha = self.threat.eps * parse_number(given.removesuffix("eps").strip() or 1, "attack.step_size")
        else:
            self.alpha = parse_number(given, "attack.step_size")
        if self.alpha < 0:
            raise InputError(f"attack.step_size={given} is negative; expected at least 0")
        if not self.reaches:
            log.warning(
                "attack: %d steps of %g reach %g, and eps is %g: it is weaker than its threat",
                *(self.steps, self.alpha, self.steps * self.alpha, self.threat.eps),
            )
        if self.restarts > 1 and not self.random_start:
            log.warning("attack: %d restarts without a random start are one run, repeated", self.restarts)
        if self.steps > 1 and self.alpha > 2 * self.threat.eps > 0:
            log.warning(
                "attack: steps of %g cross the whole ball of eps %g; smaller steps make it stronger",
                *(self.alpha, self.threat.eps),
            )

    @property
    def reaches(self) -> bool:
        """Whether the steps together lead from the image to the edge of the ball."""
        return self.steps * self.alpha >= self.threat.eps * (1 - 1e-6)

    def describe(self) -> dict[str, object]:
        """Everything that defines the attack, as plain values for a result file."""
        ascended = surrogate(self.loss)
        return {
            "norm": self.threat.norm,
            "eps": self.threat.eps_as_written,
            "steps": self.steps,
            "step_size": str(self.step_size if self.step_size is not None else self.alpha),
            "loss": _in_words(self.loss),
            "random_start": self.random_start,
            "restarts": self.restarts,
            "targeted": self.targeted,
            "model_mode": self.model_mode,
            **({} if ascended is self.loss else {"ascends": repr(ascended)}),
            **({} if self.reaches else {"reach": f"{self.steps * self.alpha:g}"}),
        }

    def scaled(self, factor: float) -> PGD:
        """The same attack with eps and step size times `factor`."""
        if factor == 1:
            return self
        attack = copy.copy(self)  # its arguments are known to be right, and what was said of it is said
        attack.threat = self.threat.scaled(factor)
        attack.alpha = attack.step_size = self.alpha * factor
        return attack

    def ascend(self, model: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One step: (the next iterate, this iterate's per-example objective), both detached."""
        grad, logits = self.gradient(model, x_adv, y)
        return self._step(x_adv, grad, self.threat.projection(x)), self.objective(logits, y)

    def objective(self, logits: Tensor, y: Tensor) -> Tensor:
        """What is maximised, per example (n,), in float32 whatever the precision of the logits."""
        return self._signed(self.loss, logits, y)

    def ascended(self, logits: Tensor, y: Tensor) -> Tensor:
        """As `objective`, what the steps follow and restarts are ranked by: it rises with the objective."""
        return self._signed(surrogate(self.loss), logits, y)

    def _signed(self, function: Loss, logits: Tensor, y: Tensor) -> Tensor:
        loss = function(logits.float(), y)
        return -loss if self.targeted else loss

    def gradient(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Of what is ascended at x, and the logits there; both detached."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = model(x)
            (grad,) = torch.autograd.grad(logits, x, self._by_logits(logits.detach(), y))
        return grad, logits.detach()

    def _by_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """The gradient of what is ascended by the logits."""
        ascended = surrogate(self.loss)
        if isinstance(ascended, LogOdds):  # known in closed form, in fewer operations
            grad = ascended.gradient(logits.float(), y).to(logits.dtype)
            return grad.neg_() if self.targeted else grad
        logits.requires_grad_()
        (grad,) = torch.autograd.grad(self.ascended(logits, y).sum(), logits)
        return grad

    @torch.no_grad()
    def _step(self, x_adv: Tensor, grad: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
        return project(self.threat.step(x_adv, grad, self.alpha))

    def blind(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Examples that are not broken where a run starts and have no gradient there: zero or not finite. Bool (n,)."""
        with undisturbed(model, self.model_mode):
            grad, logits = self.gradient(model, self.start(x, generator), y)
        flat = grad.flatten(1)
        return ~(flat.isfinite().all(1) & (flat.any(1) | self._broken(logits, y)))

    def _broken(self, logits: Tensor, y: Tensor, true: Tensor | None = None) -> Tensor:
        """Bool (n,): not classified as `true`; without it, classified as the target y, or not as the label y."""
        if self.targeted and true is None:
            return classified(logits, y)
        return ~classified(logits, y if true is None else true)

    def start(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """The first iterate."""
        return self.threat.random_point(x, generator) if self.random_start else x

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One run from one start, without looking at the outcome: what training needs, free of synchronisation."""
        with undisturbed(model, self.model_mode):
            x_adv, project = self.start(x, generator), self.threat.projection(x)
            for _ in range(self.steps):
                grad, _ = self.gradient(model, x_adv, y)
                x_adv = self._step(x_adv, grad, project)
        return x_adv

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator | None = None,
        true: Tensor | None = None,
    ) -> Tensor:
        """The first broken example of each image over all restarts, else the one of highest loss: (n, c, h, w).

        `true` (n,): the labels, where y are targets and any other class counts as broken. Raises InputError unless x
        are float images in [0, 1], and y a whole number for each.
        """
        _refuse_batch(x, y)
        if self.restarts == 1:
            return self.craft(model, x, y, generator)
        worst = x.clone()
        highest = torch.full(y.shape, -torch.inf, device=x.device)
        standing = torch.arange(len(x), device=x.device)  # indices of the examples not broken yet
        for _ in range(self.restarts):
            x_adv = self.craft(model, x[standing], y[standing], generator)
            ascended, broken = self._judge(model, x_adv, y[standing], None if true is None else true[standing])
            better = broken | (ascended > highest[standing])
            worst[standing[better]] = x_adv[better]
            highest[standing[better]] = ascended[better]
            standing = standing[~broken]
            if not len(standing):
                break
        return worst

    @torch.no_grad()
    def _judge(self, model: nn.Module, x_adv: Tensor, y: Tensor, true: Tensor | None) -> tuple[Tensor, Tensor]:
        # In float32, as scored: an example that only a lower precision calls broken would get no more restarts.
        with undisturbed(model), torch.autocast(x_adv.device.type, enabled=False):
            logits = model(x_adv)
        ascended = self.ascended(logits, y)
        if ascended.shape != y.shape:
            raise InputError(f"attack.loss returns shape {tuple(ascended.shape)}; expected one loss for each image")
        return ascended, self._broken(logits, y, true)


def _refuse_batch(x: Tensor, y: Tensor) -> None:
    if x.dtype not in (torch.float32, torch.float64):
        raise InputError(f"images are {x.dtype}; give float32 images, and run the model under torch.autocast")
    if x.numel() and not (x.amin() >= 0 and x.amax() <= 1):
        raise InputError(
            f"images span [{x.amin():g}, {x.amax():g}], expected [0, 1]: "
            "attacks work on raw pixels, normalisation belongs inside the model"
        )
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise InputError(f"labels are {y.dtype} {tuple(y.shape)}; expected torch.int64 ({len(x)},), one for each image")


def _in_words(loss: Loss) -> str:
    """Its repr; of what has none of its own, the name and the settings, which are the same in every process."""
    if " at 0x" not in repr(loss):
        return repr(loss)
    made = loss.func if isinstance(loss, functools.partial) else loss
    settings = loss.keywords if isinstance(loss, functools.partial) else getattr(loss, "__dict__", {})
    kind = made if hasattr(made, "__qualname__") else type(made)
    return (
        f"{kind.__module__}.{kind.__qualname__}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"
    )


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
        return self.attack(model, x, self._target(model, x, y), generator, true=y)

    def blind(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """As PGD's."""
        return self.attack.blind(model, x, self._target(model, x, y), generator)

    @torch.no_grad()
    def _target(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with undisturbed(model):
            return model(x).scatter(1, y[:, None], -torch.inf).argmax(1)


def described(attack: Attack) -> dict[str, object]:
    """Its description; of one of your own with digests of its code and of all its settings."""
    code = own.code(attack)
    yours = {"code": code, "settings": digest(own.settings(attack), 16)} if code else {}
    return {**attack.describe(), **yours}


def measurable(attack: object, name: str) -> Attack:
    """The attack, if an accuracy can be measured under it. Raises InputError naming the setting `name` if not."""
    if not (callable(attack) and callable(getattr(attack, "describe", None)) and hasattr(attack, "threat")):
        raise InputError(
            f"{name} is a {type(attack).__name__}; expected a _target_ that makes an attack, such as "
            "saddlepoint.attacks.PGD; one of your own has threat, describe() and __call__"
        )
    if isinstance(attack, PGD | Targeted):
        pgd = attack if isinstance(attack, PGD) else attack.attack
        if pgd.targeted and isinstance(attack, PGD):
            raise InputError(
                f"{name}.targeted=true moves images towards their own class; put saddlepoint.attacks.Targeted around it"
            )
        if pgd.model_mode != "eval":
            raise InputError(f"{name}.model_mode={pgd.model_mode} is for training; a measurement needs eval")
        logits, labels = torch.zeros(2, 3), torch.tensor([0, 1])
        with own.reported(f"{name}.loss fails on logits (2, 3) and labels (2,) ({{}})"):
            losses = pgd.objective(logits, labels)
        if losses.shape == (2,):
            with own.reported(f"{name}.loss has no gradient by its logits ({{}})"):
                pgd._by_logits(logits, labels)
        else:
            raise InputError(
                f"{name}.loss returns shape {tuple(losses.shape)} for 2 images; expected one loss for each, (2,)"
            )
    found: Attack = attack  # type: ignore[assignment]
    try:
        json.dumps(described(found))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: its describe() is for a JSON file, and holds more than plain values ({error})"
        ) from None
    return found
