"""What an attack maximises: (logits (n, classes), labels (n,)) -> one loss per example, (n,)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class CrossEntropy:
    """-log softmax(z)_y: the loss of the paper's PGD."""

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
