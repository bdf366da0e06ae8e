"""Figure 4 and its table: accuracy by capacity and training method."""

from __future__ import annotations

from operator import itemgetter

from saddlepoint.evaluation.result import Accuracy, Result
from saddlepoint.lab import Lab, Network, Settings
from saddlepoint.paper.item import Item, grid
from saddlepoint.report.figures import capacity
from saddlepoint.report.folder import Report
from saddlepoint.report.page import Section
from saddlepoint.report.tables import Place, accuracy_numbers, accuracy_table
from saddlepoint.runs import build


def networks(cfg: Settings) -> list[Network]:
    # Wide networks come first: the longest trainings should not be the last to start.
    return grid(list(reversed(cfg.models)), cfg.trainings, range(cfg.seeds))


def make(lab: Lab, out: Report) -> None:
    cfg, settings, dataset = lab.cfg, lab.cfg.evaluation, lab.cfg.dataset.name
    attacks = {name: lab.attack(name) for name in settings.attacks}
    split, first = lab.test_images, lab.runtime.processes.first
    places = [(training, model, name) for training in cfg.trainings for model in cfg.models for name in attacks]
    found: dict[Place, list[Result[Accuracy]]] = {place: [] for place in places}
    capacities: dict[str, int] = {}
    for subject in lab.subjects(cfg.models, cfg.trainings):
        own = {name: lab.accuracy(subject, name, attack, split) for name, attack in attacks.items()}
        for name, result in own.items():
            found[subject.run.training, subject.run.model, name].append(result)
        if subject.capacity is not None:
            capacities[subject.run.model] = subject.capacity
        if first:
            subject.track(build(cfg.logger.tracker), list(own.values()))
    if not first:
        return
    numbers = accuracy_numbers(found, dataset=dataset, compare=lab.comparable)
    table = accuracy_table(numbers, dataset=dataset, compare=lab.comparable)
    suffix = "" if settings.checkpoint == "last" else f"-{settings.checkpoint}"
    suffix += "" if len(split) == lab.total else f"-first{len(split)}"
    widths = "-widths" if len(cfg.models) > 2 else ""
    out.table(f"{settings.name}{widths}{suffix}", table)
    if len(capacities) > 1:
        chart = capacity(numbers, dict(sorted(capacities.items(), key=itemgetter(1))), dataset)
        out.figure(f"capacity{widths}{suffix}", chart)


ITEM = Item(
    name="accuracy",
    script="accuracy_table",
    networks=networks,
    make=make,
    sections=(
        Section(
            "Capacity and training method",
            "Figure 4 and its table",
            "Wider networks withstand one-step attacks better; networks trained on FGSM examples fall to PGD all the "
            "same; networks trained on PGD examples withstand it, the better the wider, and small ones may not learn "
            "at all.",
            tables=("accuracy",),
            figures=("capacity",),
        ),
    ),
)
