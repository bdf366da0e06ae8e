"""Beyond the paper: robust overfitting, from the histories that trainings leave."""

from __future__ import annotations

from saddlepoint.lab import Lab, Network, Settings
from saddlepoint.paper.item import Item, grid
from saddlepoint.report import figures
from saddlepoint.report.folder import Report
from saddlepoint.report.page import BEYOND, Section
from saddlepoint.results import read_csv


def networks(cfg: Settings) -> list[Network]:
    return grid([cfg.report.methods.model], cfg.report.methods.trainings)


def make(lab: Lab, out: Report) -> None:
    settings = lab.cfg.report.methods
    histories = {
        each.run.training: read_csv(each.directory.history)
        for each in lab.subjects([settings.model], settings.trainings, seeds=1)
        if each.directory.history.exists()  # an imported network has none
    }
    if histories:
        out.figure("robust_overfitting", figures.robust_overfitting(histories, lab.cfg.dataset.name))


ITEM = Item(
    name="overfitting",
    script="training_curves",
    networks=networks,
    make=make,
    sections=(
        Section(
            "Robust overfitting",
            BEYOND,
            "Accuracy under attack on held-out images can fall while the training goes on.",
            figures=("robust_overfitting",),
        ),
    ),
)
