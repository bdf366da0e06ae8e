"""ICLR Figures 9 and 10: the first and the last layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from saddlepoint.lab import Lab, Measurement
from saddlepoint.measure.layers import layers
from saddlepoint.measure.result import Key, Learned, Result
from saddlepoint.measure.subject import Arrays, Subject
from saddlepoint.paper.item import Item, Shown
from saddlepoint.paper.numbers import row_of
from saddlepoint.show.charts import Chart, Image, Panel, Series
from saddlepoint.show.names import colour, title
from saddlepoint.show.page import Section
from saddlepoint.show.table import Table

Inspected = tuple[Result[Learned], Arrays]


def needs(lab: Lab) -> dict[str, list[Measurement[Inspected]]]:
    """By the training method."""
    settings = lab.cfg.report.filters
    return {training: [Measurement((settings.model, training, 0), inspect)] for training in settings.trainings}


def inspect(lab: Lab, subject: Subject, _: Subject | None) -> Inspected:
    split = lab.test_images.take(lab.cfg.report.filters.examples)
    key = Key("layers", examples=len(split))
    return subject.measure_arrays(key, lambda: layers(subject.model, split.images(slice(None))), Learned)


def show(found: Mapping[str, Sequence[Inspected]], lab: Lab) -> Shown:
    dataset = lab.cfg.dataset.name
    trained = {training: one for training, each in found.items() for one in each}
    if not trained:
        return
    kernels = {training: arrays["filters"] for training, (_, arrays) in trained.items()}
    last = {training: (arrays["weights"], arrays["biases"]) for training, (_, arrays) in trained.items()}
    yield "filters", filters(kernels, dataset)
    yield "output_layer", output_layer(last, dataset)
    yield "filters", filters_table([result for result, _ in trained.values()], dataset=dataset)


def filters(weights: Mapping[str, np.ndarray], dataset: str) -> Chart:
    """ICLR Figure 9: the first convolution's kernels side by side. `weights`: training -> (n, c, k, k)."""
    rows, most, columns = [], 32, 16
    for training, kernels in weights.items():
        # Colour images have colour kernels: their mean over colours is shown.
        shown = kernels[:most].astype(float).mean(1)
        wide = min(columns, len(shown))
        tiles = np.full((-(-len(shown) // wide) * wide, *(size + 1 for size in shown.shape[1:])), np.nan)
        tiles[: len(shown), :-1, :-1] = shown
        canvas = np.block([list(tiles[start : start + wide]) for start in range(0, len(tiles), wide)])[:-1, :-1]
        top = max(float(np.abs(kernels).max()), 1e-12)
        rows.append([Panel(title=title(training), image=Image(canvas, -top, top, signed=True))])
    return Chart(
        f"{dataset}: first convolution",
        rows,
        size=(7.0, 1.6),
        caption="Figure 9 (ICLR). The kernels of the first convolution. The paper, on MNIST: three of the robust "
        "networks' 32 filters are used, each with a single weight: with the ReLU they are thresholds.",
    )


def output_layer(weights: Mapping[str, tuple[np.ndarray, np.ndarray]], dataset: str) -> Chart:
    """ICLR Figure 10: the last layer. `weights`: training -> (weights, biases)."""
    edges = np.linspace(
        min(float(w.min()) for w, _ in weights.values()), max(float(w.max()) for w, _ in weights.values()), 61
    )
    histogram = [
        Series(title(training), edges, np.histogram(values, edges)[0], colour(training), "bars")
        for training, (values, _) in weights.items()
    ]
    biases = [
        Series(title(training), np.arange(len(values)), values, colour(training), "points")
        for training, (_, values) in weights.items()
    ]
    return Chart(
        f"{dataset}: output layer",
        [[Panel(histogram, x="weight", y="count"), Panel(biases, x="class", y="bias")]],
        size=(3.4, 2.8),
        caption="Figure 10 (ICLR). Weights and biases of the output layer. The paper, on MNIST: similar weights, "
        "biases far from uniform and alike in two robust networks.",
    )


def filters_table(results: Sequence[Result[Learned]], *, dataset: str) -> Table:
    """ICLR Figures 9 and 10 in numbers: a row for each network."""
    rows = []
    for result in results:
        found = result.found
        texts = (
            f"{found.alive} of {found.filters}",
            f"{found.single_weight} of {found.alive}",
            f"{found.bias_low:.3f} to {found.bias_high:.3f}",
        )
        rows.append(row_of(result, dataset, asdict(found), texts))
    header = ["Network", "Filters alive", "Of these, one weight has 90%", "Biases of the output layer"]
    notes = [
        "First convolution: a filter is alive if its response to test images varies by more than 1% of the most "
        "varying one's. The paper, on MNIST: 3 of 32 filters of the robust networks are used, each with one weight."
    ]
    return Table(f"{dataset}: the first and the last layer", header, rows, notes)


ITEM = Item(
    name="filters",
    script="filters",
    needs=needs,
    show=show,
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
