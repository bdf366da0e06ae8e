"""Accuracy under an attack: the numbers of the paper's tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from saddlepoint.attacks import PGD, undisturbed
from saddlepoint.data import Split
from saddlepoint.losses import CrossEntropy
from saddlepoint.runtime import generator


@dataclass(frozen=True)
class Outcome:
    """`correct`: bool (n,), per example; `loss`: mean cross-entropy on the examples that were classified."""

    correct: np.ndarray
    loss: float

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


def evaluate(
    model: nn.Module,
    split: Split,
    attack: PGD | None,
    *,
    batch_size: int = 500,
    seed: int = 0,
    progress: str | None = None,
) -> Outcome:
    """Classify every example of `split` after `attack` (as they are, for None).

    Every adversarial batch is verified to be finite, in the ball and in the pixel range before it counts.
    Each batch has its own noise, from the seed and its position. `progress` labels a progress bar.
    """
    correct, losses = [], []
    batches = split.batches(batch_size)
    bar = tqdm(batches, progress, -(-len(split) // batch_size), disable=None if progress else True, leave=False)
    for start, x, y in bar:
        x_adv = x
        if attack is not None:
            x_adv = attack(model, x, y, generator(seed, f"evaluation/{start}", x.device))
            if not attack.threat.contains(x_adv, x).all():
                raise RuntimeError(f"{attack} made examples outside its threat model; nothing was counted")
        with undisturbed(model), torch.no_grad():
            logits = model(x_adv).float()
        correct.append(logits.argmax(1) == y)
        losses.append(CrossEntropy()(logits, y))
    return Outcome(torch.cat(correct).cpu().numpy(), torch.cat(losses).double().mean().item())
