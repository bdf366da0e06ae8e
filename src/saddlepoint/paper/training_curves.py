"""Figure 5: the adversarial training loss, from the histories that trainings leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saddlepoint.lab import Lab, Measurement
from saddlepoint.paper.item import History, Item, Shown, column, history, over_seeds
from saddlepoint.paper.numbers import published
from saddlepoint.show.charts import Chart, Panel, Series
from saddlepoint.show.page import Section


def needs(lab: Lab) -> dict[str, list[Measurement[History]]]:
    """By the network in words."""
    return {
        " ".join(lab.run(*network).directory.path.parts[-2:]): [history(network)]
        for model in lab.cfg.models
        for network in over_seeds(lab, model, "pgd")
    }


def show(found: Mapping[str, Sequence[History]], lab: Lab) -> Shown:
    histories = {name: rows for name, each in found.items() for rows in each if rows}
    if histories:
        yield "training_loss", training_loss(histories, lab.cfg.dataset.name, lab.comparable)


def training_loss(histories: Mapping[str, History], dataset: str, compare: bool = True) -> Chart:
    """Figure 5: the loss on the examples trained on, against the step. `histories`: network in words -> history."""
    shades = ["#c8352c", "#2a6fbb", "#5b8c5a", "#b8860b", "#7d4f9e", "#8a8a8a"]
    drawn = [
        Series(name, column(history, "step"), column(history, "train_loss"), shades[number % len(shades)])
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


ITEM = Item(
    name="training_curves",
    script="training_curves",
    needs=needs,
    show=show,
    sections=(
        Section(
            "Training loss",
            "Figure 5",
            "The loss on adversarial examples falls steadily during training: the saddle point problem can be "
            "optimised.",
            figures=("training_loss",),
        ),
    ),
)
