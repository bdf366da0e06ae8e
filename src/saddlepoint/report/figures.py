"""Figures from arrays. Every function returns a matplotlib figure; `write` makes the pdf and the png of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

# The paper's colours, by training method: blue for natural, red for adversarial.
COLOURS = {"standard": "#2a6fbb", "fgsm": "#8a8a8a", "pgd": "#c8352c"}
TITLES = {"standard": "standard training", "fgsm": "FGSM training", "pgd": "PGD training"}
RATES = ("image_steps_per_second", "slowest", "fastest")  # the benchmark's, of every contender
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "figure.dpi": 150,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
}


def loss_trajectories(losses: Mapping[str, np.ndarray], dataset: str) -> Figure:
    """Figure 1: loss against PGD iteration. `losses`: training method -> (examples, starts, steps + 1).

    One row of panels for each network, one column for each test image, as in the paper each with its own scale.
    """
    examples = next(iter(losses.values())).shape[0]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(losses),
            examples,
            figsize=(1.9 * examples, 1.9 * len(losses) + 0.3),
            squeeze=False,
            sharex=True,
            layout="constrained",
        )
        for row, (training, paths) in zip(axes, losses.items(), strict=True):
            for example, axis in enumerate(row):
                axis.plot(paths[example].T, color=COLOURS[training], alpha=0.45, linewidth=0.8)
                axis.set_ylim(bottom=0)
                axis.set_xlim(0, paths.shape[2] - 1)
            row[0].set_ylabel(f"{TITLES[training]}\nloss")
        for example in range(examples):
            axes[0, example].set_title(f"test image {example}")
            axes[-1, example].set_xlabel("PGD iteration")
        starts = next(iter(losses.values())).shape[1]
        figure.suptitle(f"{dataset}: loss along PGD from {starts} random starts")
    return figure


def loss_histograms(losses: Mapping[str, np.ndarray], dataset: str) -> Figure:
    """Figure 2: where PGD ends. `losses`: training method -> (examples, starts). Logarithmic frequency."""
    examples, starts = next(iter(losses.values())).shape
    top = max(float(values.max()) for values in losses.values())
    bins = np.linspace(0, max(top, 1e-6) * 1.02, 61)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, examples, figsize=(1.9 * examples, 2.5), squeeze=False, sharex=True, sharey=True, layout="constrained"
        )
        for example, axis in enumerate(axes[0]):
            for training, values in losses.items():
                axis.hist(
                    values[example],
                    bins=bins,
                    color=COLOURS[training],
                    alpha=0.8,
                    log=True,
                    label=TITLES[training] if example == 0 else None,
                )
            axis.set_title(f"test image {example}")
            axis.set_xlabel("loss")
            axis.set_ylim(bottom=0.8)
        axes[0, 0].set_ylabel("frequency (log)")
        figure.suptitle(f"{dataset}: loss at the end of PGD from {starts:,} random starts")
        figure.legend(loc="outside lower center", ncols=len(losses), frameon=False)
    return figure


def attack_speed(records: Sequence[Mapping[str, Any]]) -> Figure:
    """The benchmark's image-steps a second: a panel for each case, a bar for each contender with its spread.

    `records`: case, contender, and the median, slowest and fastest rate of each.
    """
    cases = list(dict.fromkeys(record["case"] for record in records))
    contenders = list(dict.fromkeys(record["contender"] for record in records))
    contenders.sort(key=lambda name: name.endswith("our network"))  # stable: ours, the plain network's, then the rest
    columns = min(3, len(cases))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            -(-len(cases) // columns),
            columns,
            figsize=(2.4 * columns + 1.6, (0.19 * len(contenders) + 0.7) * -(-len(cases) // columns)),
            squeeze=False,
            sharey=True,
            layout="constrained",
        )
        for case, axis in zip(cases, axes.flat, strict=False):
            found = {record["contender"]: record for record in records if record["case"] == case}
            for position, name in enumerate(contenders):
                if name not in found:
                    continue
                rate, slowest, fastest = (found[name][key] for key in RATES)
                axis.barh(
                    position,
                    rate,
                    xerr=[[rate - slowest], [fastest - rate]],
                    color=COLOURS["pgd" if name.startswith("saddlepoint") else "fgsm"],
                    alpha=0.55 if name.endswith("our network") else 1,
                    error_kw={"elinewidth": 0.8},
                )
            axis.set_title(case)
            axis.set_yticks(range(len(contenders)), contenders)
            axis.set_xlim(left=0)
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes[0, 0].invert_yaxis()  # shared: ours above
        for axis in axes.flat[len(cases) :]:
            axis.set_visible(False)
        figure.supxlabel("image-steps a second; whiskers: slowest and fastest repeat", fontsize=9)
    return figure


def write(figure: Figure, folder: Path, name: str) -> list[Path]:
    """<name>.pdf and <name>.png; the same figure gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.pdf", folder / f"{name}.png"]
    figure.savefig(paths[0], metadata={"CreationDate": None})
    figure.savefig(paths[1], metadata={"Software": None})
    plt.close(figure)
    return paths
