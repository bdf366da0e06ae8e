"""Figures from arrays: every function returns a Chart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from saddlepoint.report.charts import Chart, Panel, Series

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
    "fgsm": "FGSM training",
    "pgd": "PGD training",
    "static": "static adversarial examples",
    "fgsm_rs": "FGSM with random start",
    "trades": "TRADES",
}


def loss_trajectories(losses: Mapping[str, np.ndarray], dataset: str) -> Chart:
    """Figure 1: loss against PGD iteration. `losses`: training method -> (examples, starts, steps + 1).

    One row of panels for each network, one column for each test image, as in the paper each with its own scale.
    """
    starts = next(iter(losses.values())).shape[1]
    rows = [
        [
            Panel(
                [
                    Series(TITLES[training], np.arange(path.shape[0]), path, COLOURS[training])
                    for path in paths[example]
                ],
                title=f"test image {example}" if row == 0 else "",
                x="PGD iteration" if row == len(losses) - 1 else "",
                y=f"{TITLES[training]}\nloss" if example == 0 else "",
                from_zero=True,
            )
            for example in range(len(paths))
        ]
        for row, (training, paths) in enumerate(losses.items())
    ]
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
                Series(TITLES[training], bins, np.histogram(values[example], bins)[0], COLOURS[training], "bars")
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
