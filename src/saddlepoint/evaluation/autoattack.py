"""The authors' AutoAttack (Croce and Hein 2020) as one of our attacks: pip install -e .[autoattack]"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor, nn

from saddlepoint.attacks import undisturbed
from saddlepoint.errors import InputError
from saddlepoint.threat import Threat


@dataclass
class AutoAttack:
    """The standard ensemble, or one part of it.

    Args:
        threat: bounds must be [0, 1].
        only: None for all of APGD-CE, targeted APGD, targeted FAB and Square (with fewer than four classes all but
            targeted APGD, whose loss needs four); or the name of one, such as "square", which is a random search that
            sees no gradient.
        queries: of Square, for each image.
    """

    threat: Threat
    only: str | None = None
    queries: int = 5000

    def __post_init__(self) -> None:
        if self.threat.bounds != (0.0, 1.0):
            raise InputError(f"threat.bounds={self.threat.bounds}; AutoAttack knows images in [0, 1] only")
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

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """The examples it breaks as it broke them, the others as they were."""
        import pyautoattack  # only where it is asked for

        logging.getLogger("auto-attack").setLevel(logging.WARNING)
        with undisturbed(model), torch.no_grad():
            classes = model(x[:1]).shape[1]
        parts = [self.only] if self.only else ["apgd-ce", "fab-t", "square"] if classes < 4 else None
        choice = {"version": "custom", "attacks": parts} if parts else {"version": "standard"}
        norm = {"linf": "Linf", "l2": "L2"}[self.threat.norm]
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        ensemble = pyautoattack.AutoAttack(model, norm=norm, eps=self.threat.eps, seed=seed, device=x.device, **choice)
        ensemble.square.n_queries = self.queries
        ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = min(9, classes - 1)
        # It draws from torch's own generator, which is not its to move.
        devices = [x.device] if x.device.type == "cuda" else []
        # Nor are the weights' gradients, which FAB would compute and leave behind.
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        try:
            for weight in weights:
                weight.requires_grad_(False)
            with undisturbed(model), torch.random.fork_rng(devices):
                x_adv, _ = ensemble.run_standard_evaluation(x, y, batch_size=len(x))
        finally:
            for weight in weights:
                weight.requires_grad_(True)
        return x_adv
