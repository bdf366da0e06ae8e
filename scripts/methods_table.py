"""The paper's training beside what it is compared with: python scripts/methods_table.py dataset=mnist recipe=fast

Examples made once (static), FGSM with a random start, TRADES; the last and the best checkpoint of each.
"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.report.table import NAMES
from saddlepoint.report.tables import grid_table


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    lab, settings = Lab(cfg), cfg.report.methods
    cells = {
        (training, f"{NAMES.get(attack, attack)}, {checkpoint}"): lab.measure(
            list(lab.subjects([settings.model], [training], checkpoint=checkpoint)), attack
        )
        for training in settings.trainings
        for checkpoint in ("last", "best")
        for attack in settings.attacks
    }
    notes = ["Accuracy in % of the checkpoint after the last step and of the one that did best on held-out images."]
    if "static" in settings.trainings:
        notes[0] += " Static: the training set replaced once by adversarial examples of a naturally trained network."
    table = grid_table(
        cells,
        dataset=cfg.dataset.name,
        title=f"training methods, {settings.model} network",
        sides=("training", "attack"),
        notes=notes,
    )
    with lab.report() as out:
        out.table("methods", table)


if __name__ == "__main__":
    main()
