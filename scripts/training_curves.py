"""Figure 5, the adversarial training loss, and robust overfitting: python scripts/training_curves.py dataset=mnist

From the histories that trainings leave; nothing is measured.
"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.paper import make, overfitting, training_curves


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    make(Lab(cfg), training_curves.ITEM, overfitting.ITEM)


if __name__ == "__main__":
    main()
