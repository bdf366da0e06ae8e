"""Figures 1 and 2, and what the text says of the maxima that PGD finds.

The loss along PGD, and where it ends, from many random starts around a few test images; the distances and angles
between the maxima, the loss on the way from one to another, their perturbations and the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from saddlepoint.attacks import PGD, described
from saddlepoint.data import Split
from saddlepoint.errors import whole
from saddlepoint.lab import Lab, Measurement, refuse_text
from saddlepoint.measure import landscape
from saddlepoint.measure.result import Between, Key, Maxima, Result
from saddlepoint.measure.subject import Arrays, Subject
from saddlepoint.paper.item import Item, Shown
from saddlepoint.paper.lines import alone, by_image
from saddlepoint.paper.numbers import row_of
from saddlepoint.show.charts import Chart, Panel, Series
from saddlepoint.show.names import colour, title
from saddlepoint.show.page import Section
from saddlepoint.show.table import Table


@dataclass(frozen=True)
class Around:
    """What was found around the first test images: losses (examples, starts, steps + 1), (examples, starts) and
    (examples, pairs, points); the maxima of each image, and what is between them."""

    paths: np.ndarray
    ends: np.ndarray
    lines: np.ndarray
    maxima: Sequence[Result[Maxima]]
    between: Result[Between]


def needs(lab: Lab) -> dict[str, list[Measurement[Around]]]:
    """By the training method."""
    settings = lab.cfg.landscape
    for name in ("examples", "starts", "histogram_starts"):
        whole(settings[name], f"landscape.{name}", 1 if name == "examples" else 2)  # maxima are told of in pairs
    refuse_text("landscape.trainings", settings.trainings)
    make = partial(around, attack=lab.pgd(settings.attack))
    return {training: [Measurement((settings.model, training, 0), make)] for training in settings.trainings}


def around(lab: Lab, subject: Subject, _: Subject | None, *, attack: PGD) -> Around:
    maxima = [measure_maxima(lab, subject, attack, example) for example in range(len(_chosen(lab)[0]))]
    between, lines = measure_segments(lab, subject, attack)
    return Around(
        paths=measure_trajectories(lab, subject, attack),
        ends=np.stack([arrays["losses"] for _, arrays in maxima]),
        lines=lines["losses"],
        maxima=[result for result, _ in maxima],
        between=between,
    )


def measure_trajectories(lab: Lab, subject: Subject, attack: PGD) -> np.ndarray:
    """Losses (examples, starts, steps + 1)."""
    split, starts, seed = _chosen(lab)

    def compute() -> Arrays:
        x = split.images(slice(None))
        return {"losses": landscape.trajectories(subject.model, x, split.labels, attack, starts, seed)}

    key = Key("trajectories", attack=described(attack), examples=len(split), starts=starts, seed=seed)
    return subject.arrays(key, compute)["losses"]


def measure_maxima(lab: Lab, subject: Subject, attack: PGD, example: int) -> tuple[Result[Maxima], Arrays]:
    """Around one test image: 100,000 starts take long, and what is measured is kept."""
    split, _, seed = _chosen(lab)
    starts, batch_size = lab.cfg.landscape.histogram_starts, lab.cfg.evaluation.batch_size

    def compute() -> tuple[Maxima, Arrays]:
        x, bar = split.images(slice(None)), f"maxima around image {example}, {subject.label}"
        losses, geometry = landscape.maxima(
            subject.model, x, split.labels, example, attack, starts, batch_size=batch_size, seed=seed, progress=bar
        )
        return Maxima(float(np.median(losses)), geometry), {"losses": losses}

    description = described(attack)
    key = Key(f"maxima-{example}", attack=description, image=example, starts=starts, batch_size=batch_size, seed=seed)
    return subject.measure_arrays(key, compute, Maxima.read)


def measure_segments(lab: Lab, subject: Subject, attack: PGD) -> tuple[Result[Between], Arrays]:
    split, starts, seed = _chosen(lab)

    def compute() -> tuple[Between, Arrays]:
        return landscape.segments(subject.model, split.images(slice(None)), split.labels, attack, starts, seed=seed)

    key = Key("segments", attack=described(attack), examples=len(split), starts=starts, seed=seed)
    return subject.measure_arrays(key, compute, Between)


def _chosen(lab: Lab) -> tuple[Split, int, int]:
    """The images, the starts around each and the seed."""
    settings = lab.cfg.landscape
    return lab.test_images.take(settings.examples), settings.starts, lab.cfg.evaluation.seed


def show(found: Mapping[str, Sequence[Around]], lab: Lab) -> Shown:
    dataset = lab.cfg.dataset.name
    trained = {training: one for training, each in found.items() for one in each}
    if not trained:
        return
    yield "loss_trajectories", loss_trajectories({name: each.paths for name, each in trained.items()}, dataset)
    yield "loss_histograms", loss_histograms({name: each.ends for name, each in trained.items()}, dataset)
    yield "segments", segments({name: each.lines for name, each in trained.items()}, dataset)
    yield "maxima", geometry_table([result for each in trained.values() for result in each.maxima], dataset=dataset)
    yield "segments", segments_table([each.between for each in trained.values()], dataset=dataset)


def loss_trajectories(losses: Mapping[str, np.ndarray], dataset: str) -> Chart:
    """Figure 1: loss against PGD iteration. `losses`: training method -> (examples, starts, steps + 1).

    One row of panels for each network, one column for each test image, as in the paper each with its own scale.
    """
    _, starts, points = next(iter(losses.values())).shape
    rows = by_image(alone(losses), np.arange(points), "PGD iteration")
    return Chart(
        f"{dataset}: loss along PGD from {starts} random starts",
        rows,
        caption="Figure 1. The loss along PGD from random starts around one test image each. The paper: it plateaus "
        "after a few iterations, at clustered values, far lower on the adversarially trained network. Mind the scales.",
    )


def loss_histograms(losses: Mapping[str, np.ndarray], dataset: str) -> Chart:
    """Figure 2: where PGD ends. `losses`: training method -> (examples, starts). Logarithmic frequency."""
    examples, starts = next(iter(losses.values())).shape
    top = max(float(values.max()) for values in losses.values())
    bins = np.linspace(0, max(top, 1e-6) * 1.02, 61)
    row = [
        Panel(
            [
                Series(title(training), bins, np.histogram(values[example], bins)[0], colour(training), "bars")
                for training, values in losses.items()
            ],
            title=f"test image {example}",
            x="loss",
            y="frequency (log)" if example == 0 else "",
            log_y=True,
        )
        for example in range(examples)
    ]
    return Chart(
        f"{dataset}: loss at the end of PGD from {starts:,} random starts",
        [row],
        share=True,
        caption=f"Figure 2. The losses of the local maxima that PGD finds from {starts:,} random starts around one "
        "test image each (the paper: 100,000). The paper: concentrated, without outliers, and far lower on the "
        "adversarially trained network.",
    )


def segments(losses: Mapping[str, np.ndarray], dataset: str) -> Chart:
    """Loss along the line between two maxima. `losses`: training -> (examples, pairs, points)."""
    rows = by_image(alone(losses), np.linspace(0, 1, next(iter(losses.values())).shape[2]), "share of the way")
    return Chart(
        f"{dataset}: loss along the line between two maxima",
        rows,
        caption="The text after Figure 2: along the segment between two maxima the loss is highest at the ends and "
        "lower by a constant factor in the middle. One line for each pair of maxima around a test image.",
    )


def geometry_table(results: Sequence[Result[Maxima]], *, dataset: str) -> Table:
    """What the text after Figure 2 says of the maxima around one example: their distances and angles."""
    rows = []
    for result in results:
        image, loss, found = result.key.image, result.found.loss_median, result.found.geometry
        numbers = {"image": image, "starts": result.key.starts, "loss_median": loss, **asdict(found)}
        texts = (
            f"{loss:.3g}",
            f"{found.distance_mean:.2f} ± {found.distance_sd:.2f}",
            f"{found.random_distance:.2f}",
            f"{found.angle_mean:.0f} ± {found.angle_sd:.0f}",
        )
        rows.append(row_of(result, dataset, numbers, texts, f", image {image}"))
    header = ["Network", "Median loss", "Distance between maxima", "Between random points", "Angle (degrees)"]
    notes = [
        "Euclidean distances on images in [0, 1], mean ± standard deviation over pairs of end points of PGD.",
        'Paper: distances "close to the expected distance between two random points", angles "close to 90°".',
    ]
    return Table(f"{dataset}: the maxima that PGD finds", header, rows, notes)


def segments_table(results: Sequence[Result[Between]], *, dataset: str) -> Table:
    """What the text says of the segment between two maxima, and of the gradient; a row for each network."""
    header = ["Network", "Loss at the maxima", "In the middle", "At random points", "Highest at an end"]
    header += ["Cosine with the gradient", "Negative cosines"]
    rows = []
    for result in results:
        found = result.found
        texts = (
            *(f"{loss:.3g}" for loss in (found.ends, found.middle, found.random)),
            f"{100 * found.highest_at_an_end:.0f}%",
            f"{found.cosine:.3f}",
            f"{100 * found.negative_cosines:.0f}%",
        )
        rows.append(row_of(result, dataset, asdict(found), texts))
    notes = [
        "Means over pairs of maxima around a few test images. The paper: along the segment between two maxima the loss "
        "is highest at the ends and lower by a constant factor in the middle, still far above that of a random point; "
        "some adversarial perturbations have a negative inner product with the gradient."
    ]
    return Table(f"{dataset}: between the maxima", header, rows, notes)


ITEM = Item(
    name="landscape",
    script="loss_histograms",
    needs=needs,
    show=show,
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
