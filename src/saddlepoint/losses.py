"""What an attack maximises: (logits (n, classes), labels (n,)) -> one loss per example, (n,)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LogOdds:
    """d = log(sum_{j != y} exp z_j) - z_y: the log-odds that the label is wrong. It saturates nowhere."""

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        label = y[:, None]
        return logits.scatter(1, label, -torch.inf).logsumexp(1) - logits.gather(1, label).squeeze(1)

    @staticmethod
    def gradient(logits: Tensor, y: Tensor) -> Tensor:
        """By the logits, (n, classes): the other classes' probabilities among themselves, and -1 at the label."""
        label = y[:, None]
        return logits.scatter(1, label, -torch.inf).softmax(1).scatter_(1, label, -1)


@dataclass(frozen=True)
class CrossEntropy:
    """-log softmax(z)_y: the loss of the paper's PGD.

    It is softplus(d) of the log-odds d, so d rises with it and has a gradient of the same direction. PGD ascends d, the
    `surrogate`: where d is below -17, cross-entropy and a part of its gradient round to 0 in float32, below -104 all.
    """

    surrogate: ClassVar[Loss] = LogOdds()

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, reduction="none")


@dataclass(frozen=True)
class Margin:
    """-max(0, z_y - max_{j != y} z_j + kappa): Carlini and Wagner's loss as the authors use it.

    The paper's tables call it CW, without its kappa, and CW+ with kappa = 50, which keeps pushing past the boundary.
    """

    kappa: float = 0.0

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        true = logits.gather(1, y[:, None]).squeeze(1)
        others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        return -F.relu(true - others + self.kappa)


@dataclass(frozen=True)
class Divergence:
    """KL(p || softmax(z)) from the probabilities p (n, classes), which stand where labels do: what TRADES maximises."""

    def __call__(self, logits: Tensor, p: Tensor) -> Tensor:
        return F.kl_div(F.log_softmax(logits, 1), p, reduction="none").sum(1)


def surrogate(loss: Loss) -> Loss:
    """What PGD ascends to maximise `loss`: the increasing function of it that the loss names, else the loss itself."""
    if isinstance(loss, nn.CrossEntropyLoss) and loss.weight is None and not loss.label_smoothing:  # torch's own
        return CrossEntropy.surrogate
    if isinstance(loss, partial) and loss.func is F.cross_entropy and {*loss.keywords} <= {"reduction"}:
        return CrossEntropy.surrogate
    found: Loss = getattr(loss, "surrogate", loss)
    return found
