"""Figures from arrays: every function returns a Chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from saddlepoint.evaluation.result import Curve, Result
from saddlepoint.report.charts import Chart, Image, Panel, Series
from saddlepoint.report.table import named, published
from saddlepoint.report.tables import Number, Place

History = Sequence[Mapping[str, str]]  # rows of history.csv

# The paper's colours, by training method: blue for natural, red for adversarial.
COLOURS = {
    "standard": "#2a6fbb",
    "fgsm": "#8a8a8a",
    "pgd": "#c8352c",
    "static": "#b8860b",
    "fgsm_rs": "#5b8c5a",
    "trades": "#7d4f9e",
}
TITLES = {
    "standard": "standard training",
    "static": "static adversarial examples",
    "fgsm_rs": "FGSM with random start",
    "trades": "TRADES",
}
OTHERS = ["#4b8f8c", "#a0522d", "#6b7a1e"]  # for methods of one's own
PAPERS_OWN = {"square": "Decision-boundary attack"}  # where the paper takes another one
ATTACK_COLOURS = {"natural": "#3c3c3c", "fgsm": "#8a8a8a", "pgd": "#c8352c", "square": "#2a6fbb"}


def title(training: str) -> str:
    return TITLES.get(training, f"{named(training)} training")


def colour(training: str) -> str:
    return COLOURS.get(training, OTHERS[sum(training.encode()) % len(OTHERS)])


def loss_trajectories(losses: Mapping[str, np.ndarray], dataset: str) -> Chart:
    """Figure 1: loss against PGD iteration. `losses`: training method -> (examples, starts, steps + 1).

    One row of panels for each network, one column for each test image, as in the paper each with its own scale.
    """
    _, starts, points = next(iter(losses.values())).shape
    rows = _by_image(_alone(losses), np.arange(points), "PGD iteration")
    return Chart(
        f"{dataset}: loss along PGD from {starts} random starts",
        rows,
        caption="Figure 1. The loss along PGD from random starts around one test image each. The paper: it plateaus "
        "after a few iterations, at clustered values, far lower on the adversarially trained network. Mind the scales.",
    )


Lines = Mapping[tuple[str, str], np.ndarray]  # (name, colour) -> (examples, lines, points)


def _alone(losses: Mapping[str, np.ndarray]) -> dict[str, Lines]:
    """Of each training method, lines of one kind, in its colour."""
    return {training: {(title(training), colour(training)): lines} for training, lines in losses.items()}


def _by_image(losses: Mapping[str, Lines], x: np.ndarray, label: str) -> list[list[Panel]]:
    """Lines against x: a row of panels for each training method, a column for each test image."""
    return [
        [
            Panel(
                [Series(name, x, line, shade) for (name, shade), lines in kinds.items() for line in lines[example]],
                title=f"test image {example}" if row == 0 else "",
                x=label if row == len(losses) - 1 else "",
                y=f"{title(training)}\nloss" if example == 0 else "",
                from_zero=True,
            )
            for example in range(len(next(iter(kinds.values()))))
        ]
        for row, (training, kinds) in enumerate(losses.items())
    ]


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


def capacity(numbers: Mapping[Place, Number], capacities: Mapping[str, int], dataset: str) -> Chart:
    """Figure 4: accuracy and training loss against capacity, a panel for each training method.

    Args:
        numbers: the accuracy table's.
        capacities: model -> capacity, in order.
    """
    trainings = list(dict.fromkeys(training for training, _, _ in numbers))

    def series(training: str, measurement: str, name: str, colour: str) -> list[Series]:
        """Ours, and the paper's dashed."""
        places = {(training, model, measurement): capacity for model, capacity in capacities.items()}
        found = {capacity: numbers[place] for place, capacity in places.items() if place in numbers}
        ours = {capacity: number.value for capacity, number in found.items() if number.value is not None}
        theirs = {capacity: number.paper for capacity, number in found.items() if number.paper is not None}
        drawn = []
        if ours:
            low, high = zip(*(found[capacity].bar for capacity in ours), strict=True)
            drawn.append(Series(name, list(ours), list(ours.values()), colour, "line", low, high))
        if theirs:
            drawn.append(Series(f"{name}, paper", list(theirs), list(theirs.values()), colour, "dashed"))
        return drawn

    panels = [
        Panel(
            [each for name in ATTACK_COLOURS for each in series(training, name, named(name), ATTACK_COLOURS[name])],
            title=title(training),
            x="capacity",
            y="accuracy in %" if training == trainings[0] else "",
            log_x=True,
            from_zero=True,
        )
        for training in trainings
    ]
    losses = [
        each for training in trainings for each in series(training, "train_loss", title(training), colour(training))
    ]
    panels.append(
        Panel(losses, title="training loss", x="capacity", y="loss on what is trained on", log_x=True, log_y=True)
    )
    return Chart(
        f"{dataset}: capacity",
        [panels],
        size=(2.7, 3.0),
        caption="Figure 4. Accuracy by capacity and training method, and the training loss. The paper: capacity alone "
        "helps; FGSM training does not withstand PGD; small networks may learn nothing under PGD training; the value "
        "of the saddle point problem falls with capacity. Bars: 95% interval, or deviation over seeds.",
    )


def segments(losses: Mapping[str, np.ndarray], dataset: str) -> Chart:
    """Loss along the line between two maxima. `losses`: training -> (examples, pairs, points)."""
    rows = _by_image(_alone(losses), np.linspace(0, 1, next(iter(losses.values())).shape[2]), "share of the way")
    return Chart(
        f"{dataset}: loss along the line between two maxima",
        rows,
        caption="The text after Figure 2: along the segment between two maxima the loss is highest at the ends and "
        "lower by a constant factor in the middle. One line for each pair of maxima around a test image.",
    )


def training_loss(histories: Mapping[str, History], dataset: str, compare: bool = True) -> Chart:
    """Figure 5: the loss on the examples trained on, against the step. `histories`: network in words -> history."""
    shades = ["#c8352c", "#2a6fbb", "#5b8c5a", "#b8860b", "#7d4f9e", "#8a8a8a"]
    drawn = [
        Series(name, _column(history, "step"), _column(history, "train_loss"), shades[number % len(shades)])
        for number, (name, history) in enumerate(histories.items())
    ]
    paper = published(dataset, "training_loss" if compare else None)
    if paper.source:
        drawn.append(Series("paper, wide", paper.steps, paper.losses, "#3c3c3c", "dashed"))
    return Chart(
        f"{dataset}: adversarial training loss",
        [[Panel(drawn, x="step", y="loss on the adversarial examples", log_y=True)]],
        size=(4.5, 3.2),
        caption="Figure 5. The loss on the adversarial examples trained on falls steadily: the saddle point problem "
        "is being solved." + (f" Paper: {paper.source}; its steps are of its own schedule." if paper.source else ""),
    )


def robust_overfitting(histories: Mapping[str, History], dataset: str) -> Chart:
    """Robust accuracy on held-out images as training goes. `histories`: training -> history."""
    panels = [
        Panel(
            [
                Series(title(training), _column(history, "step"), 100 * _column(history, column), colour(training))
                for training, history in histories.items()
            ],
            title=heading,
            x="step",
            y="accuracy in %" if column == "held_out_natural" else "",
            from_zero=True,
        )
        for column, heading in (
            ("held_out_natural", "held-out images"),
            ("held_out_robust", "held-out images under PGD"),
        )
    ]
    return Chart(
        f"{dataset}: held-out accuracy as training goes",
        [panels],
        size=(3.4, 3.0),
        caption="Beyond the paper: where the robust accuracy falls again while training goes on, the network overfits "
        "robustly (Rice et al. 2020); where it collapses to 0, catastrophically (Wong et al. 2020).",
    )


def _column(history: History, name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in history])


def epsilon(results: Sequence[Result[Curve]], dataset: str, compare: bool = True) -> Chart:
    """Figure 6: accuracy against eps, a panel for each (norm, training); a result is of one network and attack."""
    paper = published(dataset, "epsilon" if compare else None)
    columns: dict[tuple[str, str], list[Series]] = {}
    for result in results:
        norm, training, attack = str(result.key.norm), result.run.training, str(result.key.attack)
        eps = [float(Fraction(each)) for each in result.key.eps or ()]
        low, high = (100 * np.array(ends) for ends in zip(*result.found.intervals, strict=True))
        drawn = columns.setdefault((norm, training), [])
        name, colour = named(attack), ATTACK_COLOURS[attack]
        drawn.append(Series(name, eps, 100 * np.array(result.found.accuracies), colour, "line", low, high))
        theirs = {
            float(place[3]): value for place, value in paper.cells.items() if place[:3] == (norm, training, attack)
        }
        if theirs:
            shown = f"{PAPERS_OWN.get(attack, name)}, paper"
            drawn.append(Series(shown, list(theirs), list(theirs.values()), colour, "dashed"))
    panels = [
        Panel(drawn, title=f"{norm}, {title(training)}", x=f"eps ({norm})", y="accuracy in %", from_zero=True)
        for (norm, training), drawn in columns.items()
    ]
    return Chart(
        f"{dataset}: accuracy against eps",
        [panels[start : start + 2] for start in range(0, len(panels), 2)],
        size=(3.6, 2.8),
        caption="Figure 6. Accuracy under PGD (steps of 2.5 eps / their number) and under an attack that sees no "
        "gradient (here Square, in the paper the decision-boundary attack). Where the latter is lower, PGD is being "
        "hidden from: in l2 on MNIST. Bars: 95% interval." + (f" Paper: {paper.source}." if paper.source else ""),
    )


def directions(paths: Mapping[str, Mapping[str, np.ndarray]], dataset: str) -> Chart:
    """ICLR Figure 7: loss towards adversarial examples. `paths`: training -> kind -> (examples, starts, points)."""
    colours = {"own FGSM": "#c8352c", "own PGD": "#2a6fbb", "copy's FGSM": "#5b8c5a", "copy's PGD": "#3c3c3c"}
    lines = {
        training: {(kind, colours[kind]): values for kind, values in kinds.items()} for training, kinds in paths.items()
    }
    points = next(iter(next(iter(paths.values())).values())).shape[2]
    rows = _by_image(lines, np.linspace(0, 1, points), "share of the way")
    return Chart(
        f"{dataset}: loss towards adversarial examples, own and transferred",
        rows,
        caption="Figure 7 (ICLR). The loss along the straight line from an image to its adversarial examples and to "
        "those of an independently trained copy. (The paper, on CIFAR10: the simple natural network and the wide PGD "
        "one, steps of 0.3/255.)",
    )


def gradient_angles(angles: Mapping[str, Mapping[str, np.ndarray]], dataset: str) -> Chart:
    """ICLR Figure 8: angles between input gradients of a network and its copy. `angles`: training -> same, other."""
    edges = np.linspace(0, 180, 91)
    names = {"same": ("same image", "#c8352c"), "other": ("another image", "#8a8a8a")}
    panels = [
        Panel(
            [
                Series(name, edges, np.histogram(pair[kind][np.isfinite(pair[kind])], edges)[0], colour, "bars")
                for kind, (name, colour) in names.items()
            ],
            title=title(training),
            x="angle in degrees",
            y="images" if number == 0 else "",
        )
        for number, (training, pair) in enumerate(angles.items())
    ]
    return Chart(
        f"{dataset}: angle between the gradients of a network and its copy",
        [panels],
        size=(2.7, 2.6),
        caption="Figure 8 (ICLR). Angles between the loss's input gradients of two independently trained networks, on "
        "the same image and on two different ones. The paper: correlated after natural training, less after FGSM's.",
    )


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


def samples(
    images: np.ndarray, labels: Sequence[int], found: Mapping[tuple[str, str], Mapping[str, np.ndarray]], dataset: str
) -> Chart:
    """ICLR Figure 12: images, then a row of perturbations and one of adversarial images for each network and attack.

    Args:
        images: (n, c, h, w) in [0, 1], of the classes `labels`.
        found: (training, attack in words) -> images (n, c, h, w), and classes before and after (n,).
    """

    def row(name: str, pictures: np.ndarray, captions: Sequence[str]) -> list[Panel]:
        shown = [picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0) for picture in pictures]
        return [
            Panel(image=Image(pixels), x=caption, y=name if column == 0 else "")
            for column, (pixels, caption) in enumerate(zip(shown, captions, strict=True))
        ]

    rows = [row("image", images, [f"class {label}" for label in labels])]
    for (training, attack), arrays in found.items():
        delta = arrays["images"] - images
        full = np.abs(delta).max(axis=(1, 2, 3), keepdims=True).clip(min=1e-12)
        changes = [f"{one} → {other}" for one, other in zip(arrays["before"], arrays["after"], strict=True)]
        rows.append(row(f"{title(training)}\n{attack}", 0.5 + delta / (2 * full), [""] * len(images)))
        rows.append(row("adversarial", arrays["images"], changes))
    return Chart(
        f"{dataset}: adversarial examples",
        rows,
        size=(1.5, 1.5),
        caption="Figure 12 (ICLR). Perturbations (grey is no change, each scaled to its largest) and adversarial "
        "images, with the predicted class before and after. The paper: within l2 4, on MNIST, people misclassify them "
        "too.",
    )
