"""A report with every kind of table and chart in it, and with text that would be markup if it were not escaped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from saddlepoint.files import write_atomically, write_json
from saddlepoint.measure.result import Accuracy, F, Key, Result, RunName, interval
from saddlepoint.paper.accuracy import accuracy_numbers, accuracy_table
from saddlepoint.show.charts import Chart, Image, Panel, Series
from saddlepoint.show.table import Cell, Table

WIDE_PGD = RunName("mnist", "wide", "pgd", "paper", "0")
PLANTED = '</script><script>document.title = "planted"</script><img src=x onerror="document.title = \'planted\'">'


def measurement(found: F, name: str = "x", run: RunName = WIDE_PGD, **key: Any) -> Result[F]:
    """A result that was measured of a run."""
    return Result(
        key=Key(name, **{"checkpoint": "last", "examples": 10000, "of": 10000} | key),
        found=found,
        seconds=1.0,
        run=run,
        train_loss=0.5,
        command=f"python scripts/accuracy_table.py seed={run.seed}",
        provenance={},
        file=f"{run.model}-{run.training}/seed{run.seed}/results/last-{name}.json",
    )


def result(training: str, model: str, name: str, accuracy: float) -> Result[Accuracy]:
    attack = {} if name == "natural" else {"norm": "linf", "eps": "0.3"}
    found = Accuracy(accuracy, interval(round(10000 * accuracy), 10000), "", 0.5)
    return dataclasses.replace(
        measurement(found, name, RunName("mnist", model, training, "fast", "0"), attack=attack),
        train_loss=0.138,
        command="python scripts/accuracy_table.py dataset=mnist recipe=fast",
        file=f"{model}-{training}-fast/seed0/results/last-{name}.json",
    )


def accuracy() -> Table:
    measured = {
        ("standard", "wide"): (0.9936, 0.2545, 0.0),
        ("fgsm", "simple"): (0.8666, 0.9302, 0.0),
        ("pgd", "simple"): (0.9592, 0.8639, 0.8248),
        ("pgd", "wide"): (0.9891, 0.9576, 0.9395),
    }
    names = ("natural", "fgsm", "pgd")
    found = {
        (training, model, name): [result(training, model, name, values[place])] if values else []
        for training in ("standard", "fgsm", "pgd")
        for model in ("simple", "wide")
        for values in (measured.get((training, model)),)
        for place, name in enumerate(names)
    }
    return accuracy_table(accuracy_numbers(found, dataset="mnist"), dataset="mnist")


def curves() -> Chart:
    """Error bars, dashed lines, points, a logarithmic axis, something that is not finite."""
    x, y = np.array([1, 2, 4, 8, 16]), np.array([0, 40.0, 87.5, np.nan, 93.3])
    ours = Series("ours", x, y, "#c8352c", low=y - 3, high=y + 2)
    paper = Series(f"the paper's {PLANTED}", x, np.array([0, 30, 80, 90, 93.1]), "#333333", "dashed")
    points = Series("points", x, np.array([2.3, 0.4, 0.2, 0.1, 0.05]), "#1f77b4", "points")
    return Chart(
        "Capacity",
        [
            [
                Panel([ours, paper], title="trained on PGD examples", x="capacity", y="accuracy in %", log_x=True),
                Panel([points], title="loss", x="capacity", y="training loss", log_x=True, log_y=True),
            ]
        ],
        caption=f"Error bars are the extremes. {PLANTED}",
    )


def filters() -> Chart:
    """Images: signed, grey and coloured."""
    noise = np.random.default_rng(0)
    signed = [Panel(image=Image(noise.normal(size=(5, 5)), -2, 2, signed=True), title=str(k)) for k in range(16)]
    plain = [
        Panel(image=Image(noise.random((8, 8))), title="grey", y="an example"),
        Panel(image=Image(noise.random((8, 8, 3))), title="coloured", x="class 3"),
    ]
    return Chart("First-layer filters", [signed, plain], caption="ICLR Figure 9.")


def trajectories() -> Chart:
    """Many lines; labels at the grid's edges only; the same axes everywhere."""
    noise, steps = np.random.default_rng(1), np.arange(101)
    rows = [
        [
            Panel(
                [Series(name, steps, top * (1 - np.exp(-steps / noise.uniform(4, 30))), colour) for _ in range(12)],
                title=f"test image {image}" if row == 0 else "",
                x="PGD iteration" if row == 1 else "",
                y=f"{name}\nloss" if image == 0 else "",
                from_zero=True,
            )
            for image in range(5)
        ]
        for row, (name, top, colour) in enumerate([("standard", 90.0, "#2a6fbb"), ("PGD", 3.0, "#c8352c")])
    ]
    return Chart("The loss along PGD", rows, caption="Figure 1.")


def histograms() -> Chart:
    edges, counts = np.linspace(0, 60, 31), np.random.default_rng(2).poisson(9, 30)
    panels = [Panel([Series("standard", edges, counts + k, "#2a6fbb", "bars")], x="loss", log_y=True) for k in range(3)]
    return Chart("Where PGD ends", [panels], share=True, caption="Figure 2.")


def write_report(folder: Path) -> None:
    """All of it, but for the page."""
    write_json(folder / "report.json", {"overrides": ["dataset=mnist", "recipe=fast"]})
    accuracy().write(folder / "tables", "accuracy")
    record = {"value": 1.5, "command": f"command {PLANTED}", "files": f"a/b.json; {PLANTED}.json", f"key {PLANTED}": 1}
    planted = Table(
        f"title {PLANTED}",
        ["Network", f"header {PLANTED}"],
        [[Cell(f"row {PLANTED}"), Cell(f"cell {PLANTED}", "ours", record)]],
        [f"note {PLANTED}"],
    )
    planted.write(folder / "tables", "accuracy-first1000")
    wide = [[Cell(str(k)), *[Cell("86.0 (85.1–86.9)")] * 12] for k in range(4)]
    Table("Transfer", ["Target", *(f"source {k}" for k in range(12))], wide).write(folder / "tables", "transfer_pgd")
    charts = {
        "capacity": curves(),
        "filters": filters(),
        "loss_trajectories": trajectories(),
        "something_else": histograms(),
    }
    for name, chart in charts.items():
        write_atomically(folder / "figures" / f"{name}.json", chart.as_json().encode())
    histograms().write(folder / "figures", "loss_histograms")  # the only one that is also drawn for print
