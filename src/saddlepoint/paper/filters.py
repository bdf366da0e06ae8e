"""ICLR Figures 9 and 10: the first and the last layer."""

from __future__ import annotations

from saddlepoint.data import Split
from saddlepoint.evaluation.result import Key, Learned, Result
from saddlepoint.evaluation.subject import Arrays, Subject
from saddlepoint.evaluation.weights import layers
from saddlepoint.lab import Lab, Network, Settings
from saddlepoint.paper.item import Item, grid
from saddlepoint.report import figures
from saddlepoint.report.folder import Report
from saddlepoint.report.page import Section
from saddlepoint.report.tables import filters_table


def networks(cfg: Settings) -> list[Network]:
    return grid([cfg.report.filters.model], cfg.report.filters.trainings)


def inspect(subject: Subject, split: Split) -> tuple[Result[Learned], Arrays]:
    key = Key("layers", examples=len(split))
    return subject.measure_arrays(key, lambda: layers(subject.model, split.images(slice(None))), Learned)


def make(lab: Lab, out: Report) -> None:
    settings, dataset = lab.cfg.report.filters, lab.cfg.dataset.name
    split = lab.test_images.take(settings.examples)
    found = {
        each.run.training: inspect(each, split) for each in lab.subjects([settings.model], settings.trainings, seeds=1)
    }
    if not found:
        return
    kernels = {training: arrays["filters"] for training, (_, arrays) in found.items()}
    last = {training: (arrays["weights"], arrays["biases"]) for training, (_, arrays) in found.items()}
    out.figure("filters", figures.filters(kernels, dataset))
    out.figure("output_layer", figures.output_layer(last, dataset))
    out.table("filters", filters_table([result for result, _ in found.values()], dataset=dataset))


ITEM = Item(
    name="filters",
    script="filters",
    networks=networks,
    make=make,
    sections=(
        Section(
            "Inside the robust MNIST network",
            "ICLR Figures 9 and 10",
            "It uses 3 of its 32 first filters, each with a single weight, as thresholds; the biases of its output "
            "layer are far from uniform.",
            tables=("filters",),
            figures=("filters", "output_layer"),
        ),
    ),
)
