"""Figures 1 and 2, and what the text says of the maxima that PGD finds.

The loss along PGD, and where it ends, from many random starts around a few test images; the distances and angles
between the maxima, the loss on the way from one to another, their perturbations and the gradient.
"""

from __future__ import annotations

import numpy as np

from saddlepoint.attacks import PGD
from saddlepoint.data import Split
from saddlepoint.errors import whole
from saddlepoint.evaluation import landscape
from saddlepoint.evaluation.result import Between, Key, Maxima, Result
from saddlepoint.evaluation.subject import Arrays, Subject
from saddlepoint.lab import Lab, Network, Settings
from saddlepoint.paper.item import Item, grid
from saddlepoint.report import figures
from saddlepoint.report.folder import Report
from saddlepoint.report.page import Section
from saddlepoint.report.tables import geometry_table, segments_table
from saddlepoint.runs import build


def networks(cfg: Settings) -> list[Network]:
    return grid([cfg.landscape.model], cfg.landscape.trainings)


def measure_trajectories(subject: Subject, split: Split, attack: PGD, starts: int, seed: int) -> np.ndarray:
    """Losses (examples, starts, steps + 1)."""

    def compute() -> Arrays:
        x = split.images(slice(None))
        return {"losses": landscape.trajectories(subject.model, x, split.labels, attack, starts, seed)}

    key = Key("trajectories", attack=attack.describe(), examples=len(split), starts=starts, seed=seed)
    return subject.arrays(key, compute)["losses"]


def measure_maxima(
    subject: Subject, split: Split, example: int, attack: PGD, starts: int, batch_size: int, seed: int
) -> tuple[Result[Maxima], Arrays]:
    """Around one test image: 100,000 starts take long, and what is measured is kept."""

    def compute() -> tuple[Maxima, Arrays]:
        x, bar = split.images(slice(None)), f"maxima around image {example}, {subject.label}"
        losses, geometry = landscape.maxima(
            subject.model, x, split.labels, example, attack, starts, batch_size=batch_size, seed=seed, progress=bar
        )
        return Maxima(float(np.median(losses)), geometry), {"losses": losses}

    described = attack.describe()
    key = Key(f"maxima-{example}", attack=described, image=example, starts=starts, batch_size=batch_size, seed=seed)
    return subject.measure_arrays(key, compute, Maxima.read)


def measure_segments(
    subject: Subject, split: Split, attack: PGD, starts: int, seed: int
) -> tuple[Result[Between], Arrays]:
    def compute() -> tuple[Between, Arrays]:
        return landscape.segments(subject.model, split.images(slice(None)), split.labels, attack, starts, seed=seed)

    key = Key("segments", attack=attack.describe(), examples=len(split), starts=starts, seed=seed)
    return subject.measure_arrays(key, compute, Between)


def make(lab: Lab, out: Report) -> None:
    settings, seed, dataset = lab.cfg.landscape, lab.cfg.evaluation.seed, lab.cfg.dataset.name
    for name in ("examples", "starts", "histogram_starts"):
        whole(settings[name], f"landscape.{name}", 1 if name == "examples" else 2)  # maxima are told of in pairs
    attack, batch_size = build(settings.attack), lab.cfg.evaluation.batch_size
    split = lab.test_images.take(settings.examples)
    paths, ends, lines = {}, {}, {}
    geometry: list[Result[Maxima]] = []
    between: list[Result[Between]] = []
    for subject in lab.subjects([settings.model], settings.trainings, seeds=1):
        training = subject.run.training
        paths[training] = measure_trajectories(subject, split, attack, settings.starts, seed)
        around = [
            measure_maxima(subject, split, example, attack, settings.histogram_starts, batch_size, seed)
            for example in range(len(split))
        ]
        ends[training] = np.stack([arrays["losses"] for _, arrays in around])
        geometry += [result for result, _ in around]
        result, arrays = measure_segments(subject, split, attack, settings.starts, seed)
        lines[training] = arrays["losses"]
        between.append(result)
    if not paths:
        return
    out.figure("loss_trajectories", figures.loss_trajectories(paths, dataset))
    out.figure("loss_histograms", figures.loss_histograms(ends, dataset))
    out.figure("segments", figures.segments(lines, dataset))
    out.table("maxima", geometry_table(geometry, dataset=dataset))
    out.table("segments", segments_table(between, dataset=dataset))


ITEM = Item(
    name="landscape",
    script="loss_histograms",
    networks=networks,
    make=make,
    sections=(
        Section(
            "The loss along PGD",
            "Figure 1",
            "From every random start the loss rises and plateaus after a few iterations, at clustered values, far "
            "lower on the adversarially trained network.",
            figures=("loss_trajectories",),
        ),
        Section(
            "Where PGD ends",
            "Figure 2",
            "Over 100,000 random starts the losses of the maxima are concentrated and have no outliers, and are far "
            "lower on the adversarially trained network.",
            figures=("loss_histograms",),
        ),
        Section(
            "The maxima that PGD finds",
            "Text after Figure 2",
            "They are distinct: as far apart as random points of the ball and at angles close to 90°; between two of "
            "them the loss is lower by a constant factor, and still far above that of a random point.",
            tables=("maxima", "segments"),
            figures=("segments",),
        ),
    ),
)
