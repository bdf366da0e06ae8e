"""Beyond the paper: its training and those that it is compared with, at the last and the best checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

from saddlepoint.lab import Lab, Measurement
from saddlepoint.measure.result import Accuracy, Result
from saddlepoint.paper.grid import grid_table
from saddlepoint.paper.item import Item, Shown, accuracy_of, over_seeds
from saddlepoint.paper.numbers import Accuracies
from saddlepoint.show.names import named
from saddlepoint.show.page import BEYOND, Section


def needs(lab: Lab) -> dict[tuple[str, str], list[Measurement[Result[Accuracy]]]]:
    """By (training, attack and checkpoint)."""
    settings = lab.cfg.report.methods
    return {
        (training, f"{named(attack)}, {checkpoint}"): [
            accuracy_of(lab, network, attack, checkpoint=checkpoint)
            for network in over_seeds(lab, settings.model, training)
        ]
        for training in settings.trainings
        for checkpoint, attacks in (("last", settings.attacks), ("best", settings.best))
        for attack in attacks
    }


def show(found: Mapping[tuple[str, str], Accuracies], lab: Lab) -> Shown:
    settings = lab.cfg.report.methods
    notes = ["Accuracy in % of the checkpoint after the last step and of the one that did best on held-out images."]
    if "static" in settings.trainings:
        notes[0] += " Static: the training set replaced once by adversarial examples of a naturally trained network."
    yield (
        "methods",
        grid_table(
            found,
            dataset=lab.cfg.dataset.name,
            title=f"training methods, {settings.model} network",
            sides=("training", "attack"),
            notes=notes,
        ),
    )


ITEM = Item(
    name="methods",
    script="methods_table",
    needs=needs,
    show=show,
    sections=(
        Section(
            "Training methods compared",
            BEYOND,
            "Adversarial examples made once (static), FGSM with a random start, TRADES and the paper's methods, "
            "each at its last checkpoint and at the one that did best on held-out images.",
            tables=("methods",),
        ),
    ),
)
