"""The paper's accuracy table and Figure 4: python scripts/accuracy_table.py dataset=mnist recipe=fast

Measures what is missing, prints the table, and writes it (md, tex, csv, json) and the figure. Other runs:
models=[simple,wide] trainings=[pgd] seeds=3; another checkpoint: evaluation.checkpoint=best; a part of the test set:
evaluation.examples=1000. With logger=wandb the numbers also join the runs they belong to.
"""

from __future__ import annotations

import logging
from operator import itemgetter

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.report.figures import capacity
from saddlepoint.report.tables import accuracy_table
from saddlepoint.runs import build

log = logging.getLogger("accuracy_table")


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    lab = Lab(cfg, alone=False)
    settings, results, capacities = cfg.evaluation, [], {}
    attacks = {name: lab.attack(name) for name in settings.attacks}
    split, first = lab.test_images, lab.runtime.processes.first
    for subject in lab.subjects(cfg.models, cfg.trainings):
        own = [lab.accuracy(subject, name, attack, split) for name, attack in attacks.items()]
        results += own
        if subject.capacity is not None:
            capacities[subject.training["model"]] = subject.capacity
        if first:
            subject.track(build(cfg.logger.tracker), own)
    if not first:
        return
    table = accuracy_table(
        results,
        dataset=cfg.dataset.name,
        measurements=list(attacks),
        models=cfg.models,
        trainings=cfg.trainings,
        compare=lab.comparable,
    )
    suffix = "" if settings.checkpoint == "last" else f"-{settings.checkpoint}"
    suffix += "" if len(split) == lab.total else f"-first{len(split)}"
    widths = "-widths" if len(cfg.models) > 2 else ""
    with lab.report() as out:
        out.table(f"{settings.name}{widths}{suffix}", table)
        if len(capacities) > 1:
            chart = capacity(table.records, dict(sorted(capacities.items(), key=itemgetter(1))), cfg.dataset.name)
            out.figure(f"capacity{widths}{suffix}", chart)
    if not results:
        log.info("train a network first: python train.py --help")
    elif settings.name == "accuracy" and not (out.path / "figures" / "loss_histograms.json").exists():
        log.info("next, Figures 1 and 2: %s", lab.next_command("loss_histograms"))
    elif settings.name == "accuracy":
        log.info("next, every adversary: %s", lab.next_command("adversaries_table"))


if __name__ == "__main__":
    main()
