"""What is seen of a training while it runs: held-out accuracies and losses, and examples to look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from saddlepoint.attacks import PGD, measurable, undisturbed
from saddlepoint.data import Split
from saddlepoint.errors import InputError, whole
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.runtime import Processes, generator


@dataclass(frozen=True)
class Monitor:
    """What is measured on the held-out images as training goes, and which of it chooses the best checkpoint.

    Args:
        attack: measures the robust accuracy.
        examples: how many of the held-out images are used.
        select: "robust" or "natural" accuracy.
        batch_size: images at a time.
    """

    attack: PGD
    examples: int
    select: str = "robust"
    batch_size: int = 250

    def __post_init__(self) -> None:
        whole(self.examples, "recipe.monitor.examples")
        whole(self.batch_size, "monitor.batch_size")
        if self.select not in ("robust", "natural"):
            raise InputError(f"training.select={self.select}; choose robust or natural")
        measurable(self.attack, "monitor.attack")

    @property
    def chosen(self) -> str:
        """The measurement that chooses the best checkpoint."""
        return f"held_out_{self.select}"

    def measure(self, model: nn.Module, held_out: Split, seed: int, processes: Processes) -> dict[str, float]:
        """Accuracies (0 to 1) and mean cross-entropies on the first of the held-out images."""
        part = held_out.take(self.examples)
        robust = evaluate(
            model, part, self.attack, seed=seed, batch_size=self.batch_size, processes=processes, count_blind=False
        )
        natural = evaluate(model, part, None, batch_size=self.batch_size)
        return {
            "held_out_natural": natural.accuracy,
            "held_out_robust": robust.accuracy,
            "held_out_natural_loss": natural.loss,
            "held_out_robust_loss": robust.loss,
        }

    def pictures(self, model: nn.Module, held_out: Split, seed: int, count: int = 8) -> tuple[np.ndarray, list[str]]:
        """Strips of natural, perturbation (eps as full scale) and adversarial image, (n, h, 3w, c), and captions."""
        part = held_out.take(count)
        x, y = part.images(slice(None)), part.labels
        x_adv = self.attack(model, x, y, generator(seed, "examples", x.device))
        with undisturbed(model), torch.no_grad():
            before, after = model(x).argmax(1).tolist(), model(x_adv).argmax(1).tolist()
        magnified = (0.5 + (x_adv - x) / (2 * max(self.attack.threat.eps, 1e-9))).clamp(0, 1)
        strips = torch.cat([x, magnified, x_adv], 3).permute(0, 2, 3, 1).cpu().numpy()
        captions = [
            f"true {label}, natural {one}, adversarial {two}"
            for label, one, two in zip(y.tolist(), before, after, strict=True)
        ]
        return strips if strips.shape[-1] in (1, 3, 4) else strips[..., :1], captions  # which are pictures
