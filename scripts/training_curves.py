"""Figure 5, the adversarial training loss, and robust overfitting: python scripts/training_curves.py dataset=mnist

From the histories that trainings leave; nothing is measured.
"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.report import figures
from saddlepoint.results import read_csv


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    lab, methods, dataset = Lab(cfg), cfg.report.methods, cfg.dataset.name
    robust = {
        each.label: read_csv(each.directory.history)
        for each in lab.subjects(cfg.models, ["pgd"])
        if each.directory.history.exists()  # an imported network has none
    }
    by_method = {
        each.training["training"]: read_csv(each.directory.history)
        for each in lab.subjects([methods.model], methods.trainings, seeds=1)
        if each.directory.history.exists()
    }
    with lab.report() as out:
        if robust:
            out.figure("training_loss", figures.training_loss(robust, dataset, lab.comparable))
        if by_method:
            out.figure("robust_overfitting", figures.robust_overfitting(by_method, dataset))


if __name__ == "__main__":
    main()
