"""Accuracy under an attack: the numbers of the paper's tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from saddlepoint.attacks import Attack, undisturbed
from saddlepoint.data import Split
from saddlepoint.losses import CrossEntropy
from saddlepoint.runtime import Processes, generator


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
    attack: Attack | None,
    *,
    source: nn.Module | None = None,
    batch_size: int = 500,
    seed: int = 0,
    processes: Processes | None = None,
    progress: str | None = None,
) -> Outcome:
    """Classify every example of `split` after `attack` (as they are, for None).

    The attack sees `source`, which is the model itself in a white-box attack (None) and another network in a
    black-box one: the examples are made there, restarts are judged there, and all of it is then shown to the model.
    Every adversarial batch is verified to be finite, in the ball and in the pixel range before it counts.
    Each batch has its own noise, from the seed and its position, so that several `processes`, which take turns
    with the batches and all return the whole outcome, find what one would. `progress` labels a progress bar.
    """
    share, rank = (processes.count, processes.rank) if processes else (1, 0)
    outcomes: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by the batch's first example
    total = -(-len(split) // batch_size)
    for start, x, y in tqdm(
        split.batches(batch_size), progress, total, disable=None if progress else True, leave=False
    ):
        if start // batch_size % share != rank:
            continue
        x_adv = x
        if attack is not None:
            x_adv = attack(source or model, x, y, generator(seed, f"evaluation/{start}", x.device))
            if not attack.threat.contains(x_adv, x).all():
                raise RuntimeError(f"{attack} made examples outside its threat model; nothing was counted")
        with undisturbed(model), torch.no_grad():
            logits = model(x_adv).float()
        losses = CrossEntropy()(logits, y).double()
        outcomes[start] = (logits.argmax(1) == y).cpu().numpy(), losses.cpu().numpy()
    if processes:
        outcomes = {start: outcome for part in processes.gather(outcomes) for start, outcome in part.items()}
    correct, loss = (
        np.concatenate(arrays) for arrays in zip(*(outcomes[key] for key in sorted(outcomes)), strict=True)
    )
    return Outcome(correct, float(loss.mean()))
