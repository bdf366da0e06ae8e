"""Figure 5: the adversarial training loss, from the histories that trainings leave."""

from __future__ import annotations

from saddlepoint.lab import Lab, Network, Settings
from saddlepoint.paper.item import Item, grid
from saddlepoint.report import figures
from saddlepoint.report.folder import Report
from saddlepoint.report.page import Section
from saddlepoint.results import read_csv


def networks(cfg: Settings) -> list[Network]:
    return grid(cfg.models, ["pgd"], range(cfg.seeds))


def make(lab: Lab, out: Report) -> None:
    histories = {
        each.label: read_csv(each.directory.history)
        for each in lab.subjects(lab.cfg.models, ["pgd"])
        if each.directory.history.exists()  # an imported network has none
    }
    if histories:
        out.figure("training_loss", figures.training_loss(histories, lab.cfg.dataset.name, lab.comparable))


ITEM = Item(
    name="training_curves",
    script="training_curves",
    networks=networks,
    make=make,
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
