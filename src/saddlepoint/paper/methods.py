"""Beyond the paper: its training with those it is compared with, at the last and the best checkpoint."""

from __future__ import annotations

from saddlepoint.lab import Lab, Network, Settings
from saddlepoint.paper.item import Item, grid
from saddlepoint.report.folder import Report
from saddlepoint.report.page import BEYOND, Section
from saddlepoint.report.table import named
from saddlepoint.report.tables import grid_table


def networks(cfg: Settings) -> list[Network]:
    return grid([cfg.report.methods.model], cfg.report.methods.trainings, range(cfg.seeds))


def make(lab: Lab, out: Report) -> None:
    settings = lab.cfg.report.methods
    cells = {
        (training, f"{named(attack)}, {checkpoint}"): lab.measure(
            list(lab.subjects([settings.model], [training], checkpoint=checkpoint)), attack
        )
        for training in settings.trainings
        for checkpoint, attacks in (("last", settings.attacks), ("best", settings.best))
        for attack in attacks
    }
    notes = ["Accuracy in % of the checkpoint after the last step and of the one that did best on held-out images."]
    if "static" in settings.trainings:
        notes[0] += " Static: the training set replaced once by adversarial examples of a naturally trained network."
    table = grid_table(
        cells,
        dataset=lab.cfg.dataset.name,
        title=f"training methods, {settings.model} network",
        sides=("training", "attack"),
        notes=notes,
    )
    out.table("methods", table)


ITEM = Item(
    name="methods",
    script="methods_table",
    networks=networks,
    make=make,
    sections=(
        Section(
            "Training methods beside each other",
            BEYOND,
            "Adversarial examples made once (static), FGSM with a random start and TRADES beside the paper's methods, "
            "each at its last checkpoint and at the one that did best on held-out images.",
            tables=("methods",),
        ),
    ),
)
