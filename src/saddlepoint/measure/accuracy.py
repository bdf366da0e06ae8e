"""Accuracy under an attack: the numbers of the paper's tables."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from saddlepoint.attacks import PGD, Attack, Targeted, classified, undisturbed
from saddlepoint.data import Split
from saddlepoint.losses import CrossEntropy
from saddlepoint.measure.store import Unfinished, pack, unpack
from saddlepoint.runtime import Processes, duration, generator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """`correct`: bool (n,), per example; `loss`: mean cross-entropy on the examples that were classified, without those
    whose logits are not finite, which are not correct; NaN if there are no others.

    `blind`: the share of examples that stand where the attack starts and have no gradient there (PGD.blind); None for
    no attack and for another library's.
    """

    correct: np.ndarray
    loss: float
    blind: float | None = None

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
    precision: torch.dtype = torch.float32,
    processes: Processes | None = None,
    count_blind: bool = True,
    progress: str | None = None,
    unfinished: Unfinished | None = None,
) -> Outcome:
    """Classify every example of `split` after `attack` (as they are, for None).

    The attack sees `source`, which is the model itself in a white-box attack (None) and another network in a
    black-box one: the examples are made there, restarts are judged there, and all of it is then shown to the model.
    Every adversarial batch is verified to be finite, in the ball and in the pixel range before it counts.
    Each batch has its own noise, from the seed and its position, so that several `processes`, which take turns
    with the batches and all return the whole outcome, find what one would. `precision` is of the passes that make the
    examples; they are always classified in float32. `count_blind`: find out for how many images the attack has no
    gradient at its start, which takes one more pass. `progress` labels a progress bar;
    `unfinished` keeps the batches that are done, for the next time if this one is interrupted.
    """
    share, rank = (processes.count, processes.rank) if processes else (1, 0)
    parts = unfinished.read() if unfinished else {}  # by the batch's first example: who is right, what else is summed
    starts = range(0, len(split), batch_size)
    own = [start for start in starts[rank::share] if str(start) not in parts]
    if parts and rank == 0:
        log.info("resuming after %d of %d batches", len(parts), len(starts))
    begun = time.monotonic()
    for done, start in enumerate(tqdm(own, progress, disable=None if progress else True, leave=False), 1):
        batch = slice(start, start + batch_size)
        x, y = split.images(batch), split.labels[batch]
        x_adv, blind = x, None  # how many images, None where it is not known
        if attack is not None:
            noise, lower = f"evaluation/{start}", precision != torch.float32
            with torch.autocast(x.device.type, dtype=precision if lower else None, enabled=lower):
                x_adv = attack(source or model, x, y, generator(seed, noise, x.device))
                if count_blind and isinstance(attack, PGD | Targeted):  # from the same start
                    blind = int(attack.blind(source or model, x, y, generator(seed, noise, x.device)).sum())
            if not attack.threat.contains(x_adv, x).all():
                raise RuntimeError(f"{attack} made examples outside its threat model; nothing was counted")
        parts[str(start)] = {**_judged(model, x_adv, y), "blind": blind}
        if unfinished and unfinished.keep(parts) and rank == 0 and done < len(own):
            left = (len(own) - done) * (time.monotonic() - begun) / done
            log.info("%d of %d batches, %s left", done, len(own), duration(left))
    if processes:
        parts = {start: part for found in processes.gather(parts) for start, part in found.items()}
    counts = [min(batch_size, len(split) - start) for start in starts]
    correct = [unpack(parts[str(start)]["correct"], count) for start, count in zip(starts, counts, strict=True)]
    finite = sum(parts[str(start)].get("finite", count) for start, count in zip(starts, counts, strict=True))
    blinds: list[int | None] = [parts[str(start)].get("blind") for start in starts]
    known = [each for each in blinds if each is not None]
    return Outcome(
        np.concatenate(correct),
        sum(parts[str(start)]["loss"] for start in starts) / finite if finite else float("nan"),
        sum(known) / len(split) if len(known) == len(blinds) else None,
    )


@torch.no_grad()
def _judged(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Who is classified as y; the sum of the cross-entropies over the finite logits, and how many these are."""
    with undisturbed(model):
        logits = model(x).float()
    finite = logits.isfinite().all(1)
    if strange := int((~finite).sum()):
        log.warning(
            "the network's logits are not finite for %d of %d images: counted as misclassified", strange, len(y)
        )
    loss = CrossEntropy()(logits[finite], y[finite]).double().sum().item()
    return {"correct": pack(classified(logits, y).cpu().numpy()), "loss": loss, "finite": len(y) - strange}
