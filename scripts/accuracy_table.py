"""The paper's accuracy table: python scripts/accuracy_table.py dataset=mnist recipe=fast

Measures what is missing, writes md, tex and csv, and prints the table. Other runs: models=[simple,wide]
trainings=[pgd] seeds=3; another checkpoint: evaluation.checkpoint=best; a part of the
test set: evaluation.examples=1000.
"""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.config import build, report_folder, subjects, test_images
from saddlepoint.report.tables import accuracy_table

log = logging.getLogger("accuracy_table")


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    attacks = {name: build(attack) for name, attack in cfg.evaluation.attacks.items()}
    split, total = test_images(cfg)
    results = [
        subject.accuracy(name, attack, split, total, batch_size=cfg.evaluation.batch_size, seed=cfg.evaluation.seed)
        for subject in subjects(cfg, cfg.models, cfg.trainings)
        for name, attack in attacks.items()
    ]
    if not build(cfg.runtime).processes.first:
        return
    table = accuracy_table(
        results, dataset=cfg.dataset.name, measurements=list(attacks), models=cfg.models, trainings=cfg.trainings
    )
    suffix = "" if cfg.evaluation.checkpoint == "last" else f"-{cfg.evaluation.checkpoint}"
    paths = table.write(report_folder(cfg) / "tables", f"accuracy{suffix}")
    log.info("\n%s\n\nwrote %s", table.text(), ", ".join(map(str, paths)))


if __name__ == "__main__":
    main()
