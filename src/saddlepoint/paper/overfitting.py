"""Beyond the paper: robust overfitting, from the histories that trainings leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saddlepoint.lab import Lab, Measurement
from saddlepoint.paper.item import History, Item, Shown, column, history
from saddlepoint.show.charts import Chart, Panel, Series
from saddlepoint.show.names import colour, title
from saddlepoint.show.page import BEYOND, Section


def needs(lab: Lab) -> dict[str, list[Measurement[History]]]:
    """By the training method."""
    settings = lab.cfg.report.methods
    return {training: [history((settings.model, training, 0))] for training in settings.trainings}


def show(found: Mapping[str, Sequence[History]], lab: Lab) -> Shown:
    histories = {training: rows for training, each in found.items() for rows in each if rows}
    if histories:
        yield "robust_overfitting", robust_overfitting(histories, lab.cfg.dataset.name)


def robust_overfitting(histories: Mapping[str, History], dataset: str) -> Chart:
    """Robust accuracy on held-out images as training goes. `histories`: training -> history."""
    panels = [
        Panel(
            [
                Series(title(training), column(history, "step"), 100 * column(history, measured), colour(training))
                for training, history in histories.items()
            ],
            title=heading,
            x="step",
            y="accuracy in %" if measured == "held_out_natural" else "",
            from_zero=True,
        )
        for measured, heading in (
            ("held_out_natural", "held-out images"),
            ("held_out_robust", "held-out images under PGD"),
        )
    ]
    return Chart(
        f"{dataset}: held-out accuracy as training goes",
        [panels],
        size=(3.4, 3.0),
        caption="Beyond the paper: where the robust accuracy falls again during the training, the network overfits "
        "robustly (Rice et al. 2020); where it collapses to 0, catastrophically (Wong et al. 2020).",
    )


ITEM = Item(
    name="overfitting",
    script="training_curves",
    needs=needs,
    show=show,
    sections=(
        Section(
            "Robust overfitting",
            BEYOND,
            "Accuracy under attack on held-out images can fall during the training.",
            figures=("robust_overfitting",),
        ),
    ),
)
