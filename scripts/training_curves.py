"""Figure 5, the adversarial training loss, and robust overfitting: python scripts/training_curves.py dataset=mnist

From the histories that trainings leave; nothing is measured.
"""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.config import alone, report_folder, subjects, variation
from saddlepoint.report import figures
from saddlepoint.results import read_csv

log = logging.getLogger("training_curves")


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    alone(cfg)
    folder, methods, dataset = report_folder(cfg) / "figures", cfg.report.methods, cfg.dataset.name
    robust = {
        each.label: read_csv(each.directory.history)
        for each in subjects(cfg, cfg.models, ["pgd"])
        if each.directory.history.exists()  # an imported network has none
    }
    by_method = {
        each.training["training"]: read_csv(each.directory.history)
        for each in subjects(cfg, [methods.model], methods.trainings, seeds=1)
        if each.directory.history.exists()
    }
    written = figures.training_loss(robust, dataset, not variation()).write(folder, "training_loss") if robust else []
    if by_method:
        written += figures.robust_overfitting(by_method, dataset).write(folder, "robust_overfitting")
    log.info("wrote %s", ", ".join(map(str, written)))


if __name__ == "__main__":
    main()
