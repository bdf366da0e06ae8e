"""The authors' AutoAttack (Croce and Hein 2020) as one of our attacks: pip install -e .[autoattack]"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import ClassVar

import torch
from torch import Tensor, nn

from saddlepoint.attacks import classified, undisturbed
from saddlepoint.errors import InputError, nearest, whole
from saddlepoint.threat import Threat

# The classes that each part's loss needs: the targeted difference of logits ratio compares four logits.
CLASSES = {"apgd-ce": 2, "apgd-dlr": 3, "apgd-t": 4, "fab": 2, "fab-t": 2, "square": 2}


@dataclass
class AutoAttack:
    """The standard ensemble, or one part of it.

    Args:
        threat: the norm and eps.
        only: None for all of APGD-CE, targeted APGD, targeted FAB and Square (with fewer than four classes all but
            targeted APGD, whose loss needs four); or the name of one, such as "square", which is a random search that
            sees no gradient.
        queries: of Square, for each image.
    """

    threat: Threat
    only: str | None = None
    queries: int = 5000

    # Added to the description in a lower precision: what is broken in it alone is attacked once more (see __call__).
    in_lower_precision: ClassVar[dict[str, str]] = {"then": "float32"}

    def __post_init__(self) -> None:
        if self.only is not None and self.only not in CLASSES:
            raise InputError(
                f"AutoAttack has no {self.only}; choose {', '.join(CLASSES)}{nearest(self.only, [*CLASSES])}"
            )
        whole(self.queries, "queries")
        try:
            self.version = version("pyautoattack")
        except ImportError:
            raise InputError("AutoAttack is not installed; pip install -e .[autoattack]") from None

    def describe(self) -> dict[str, object]:
        """Everything that defines the attack, as plain values for a result file."""
        return {
            "norm": self.threat.norm,
            "eps": self.threat.eps_as_written,
            "autoattack": self.only or "standard",
            "queries": self.queries,
            "version": self.version,
        }

    def check(self, shape: Sequence[int]) -> None:
        """Raises InputError for images of a shape (..., h, w) that the authors' code cannot attack.

        In l2 Square starts from tiles of a fifth of the height, set off from the edge. They have to fit.
        """
        if self.threat.norm != "l2" or self.only not in (None, "square"):
            return
        height, width = shape[-2:]
        tile = height // 5
        # A tile of one pixel may stand outside the image, where an empty slice takes it; a larger one may not.
        if tile == 0 or (tile > 1 and width >= tile and height % 5 // 2 > min(height % tile, width % tile)):
            raise InputError(
                f"Square in l2, which AutoAttack includes, fails on images of {height}x{width} pixels; "
                f"leave this attack out, or pad the images to a height of {5 * -(-height // 5)}"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """The examples it breaks as it broke them, the others as they were. Raises InputError where it cannot work.

        Under torch.autocast, what is broken in the lower precision alone is attacked once more in float32.
        """
        import pyautoattack  # only where it is asked for

        self.check(x.shape)
        logging.getLogger("auto-attack").setLevel(logging.WARNING)
        with undisturbed(model), torch.no_grad():
            classes = model(x[:1]).shape[1]
        if self.only and classes < CLASSES[self.only]:
            raise InputError(f"{self.only} needs {CLASSES[self.only]} classes, and the network has {classes}")
        parts = [self.only] if self.only else ["apgd-ce", "fab-t", "square"] if classes < 4 else None
        choice = {"version": "custom", "attacks": parts} if parts else {"version": "standard"}
        norm = {"linf": "Linf", "l2": "L2"}[self.threat.norm]
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))

        def scores(images: Tensor) -> Tensor:
            return model(images).float()  # Square compares with losses in float32

        ensemble = pyautoattack.AutoAttack(scores, norm=norm, eps=self.threat.eps, seed=seed, device=x.device, **choice)
        ensemble.square.n_queries = self.queries
        ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = min(9, classes - 1)

        def attacked(x: Tensor, y: Tensor) -> Tensor:
            made: Tensor = ensemble.run_standard_evaluation(x, y, batch_size=len(x))[0]
            return made

        @torch.no_grad()
        def correct(x: Tensor) -> Tensor:
            return classified(model(x), y)

        # It draws from torch's own generator, which is not its to move.
        devices = [x.device] if x.device.type == "cuda" else []
        # Nor are the weights' gradients, which FAB would compute and leave behind.
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        try:
            for weight in weights:
                weight.requires_grad_(False)
            with undisturbed(model), torch.random.fork_rng(devices):
                x_adv = attacked(x, y)
                if torch.is_autocast_enabled(x.device.type):
                    # What is broken, perhaps in the lower precision alone, got no further attack.
                    broken = (x_adv != x).flatten(1).any(1) | ~correct(x_adv)
                    with torch.autocast(x.device.type, enabled=False):
                        again = broken & correct(x_adv)
                        if again.any():
                            x_adv[again] = attacked(x[again], y[again])
        finally:
            for weight in weights:
                weight.requires_grad_(True)
        return x_adv
