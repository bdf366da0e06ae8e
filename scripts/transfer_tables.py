"""Tables 3 to 5 and ICLR Figures 7 and 8, transfer: python scripts/transfer_tables.py dataset=mnist recipe=fast

Accuracy of every network on examples made on an independent training of every other (report.copies); the white-box
table; the loss towards own and transferred examples; angles between the gradients of a network and its copy.
"""

from __future__ import annotations

import numpy as np
from omegaconf import DictConfig

from saddlepoint.attacks import PGD
from saddlepoint.cli import entry
from saddlepoint.config import alone, build, measurer, report, subject, subjects, test_images, variation
from saddlepoint.evaluation import landscape
from saddlepoint.evaluation.subject import Subject
from saddlepoint.report import figures
from saddlepoint.report.charts import Chart
from saddlepoint.report.table import NAMES, Table
from saddlepoint.report.tables import grid_table


def tables(cfg: DictConfig) -> dict[str, Table]:
    settings, measure = cfg.report, measurer(cfg)
    kinds = [(training, model) for model in cfg.models for training in cfg.trainings]
    networks = {f"{training} {model}": list(subjects(cfg, [model], [training])) for training, model in kinds}
    copies = {
        f"{training} {model}": subject(cfg, model, training, settings.copies.seed)
        for training, model in kinds
        if model in settings.copies.models
    }
    made, dataset = {}, cfg.dataset.name
    for attack in settings.transfer:
        cells = {
            (target, source): measure(network, attack, copy) if copy else []
            for target, network in networks.items()
            for source, copy in copies.items()
        }
        words = NAMES.get(attack, attack)
        notes = [
            f"Accuracy in % of the target (row) on {words} examples made on the source (column), an independent "
            "training of the same name."
        ]
        made[f"transfer_{attack.split('_')[0]}"] = grid_table(
            cells,
            dataset=dataset,
            title=f"transfer of {words} examples",
            sides=("target", "source"),
            notes=notes,
            item=None if variation() else f"transfer_{attack}",
            intervals=False,
        )
    white = {
        (name, attack): measure(network, attack) for name, network in networks.items() for attack in settings.white_box
    }
    made["white_box"] = grid_table(
        white,
        dataset=dataset,
        title="white-box attacks",
        sides=("network", "attack"),
        notes=[
            "Accuracy in %. FGSM, random start: one full step from a uniformly random point of the ball, projected; "
            "the paper's is R+FGSM of Tramèr et al., which splits the step."
        ],
        item=None if variation() else "white_box",
    )
    pairs = {}
    for name, copy in copies.items():
        pairs[name, "natural"], pairs[name, "copy natural"] = (
            measure(networks[name], "natural"),
            measure([copy] if copy else [], "natural"),
        )
        for attack in settings.transfer:
            pairs[name, attack] = measure(networks[name], attack)
            both = networks[name] and copy
            pairs[name, f"copy {attack}"] = measure([copy], attack, networks[name][0]) if both else []
    made["transfer_copy"] = grid_table(
        pairs,
        dataset=dataset,
        title="white box, and on an independent copy",
        sides=("network", "attack"),
        notes=["Accuracy in % of the network, white box, and of its independent copy on the same examples."],
        item=None if variation() else "transfer_copy",
        intervals=False,
    )
    return made


def pairs(cfg: DictConfig, model: str, trainings: list[str]) -> dict[str, tuple[Subject, Subject]]:
    """Each training's network and its independent copy, where both are trained."""
    found = {
        each: (subject(cfg, model, each, 0), subject(cfg, model, each, cfg.report.copies.seed)) for each in trainings
    }
    return {each: (network, copy) for each, (network, copy) in found.items() if network and copy}


def directions(cfg: DictConfig) -> Chart | None:
    settings, seed = cfg.report.directions, cfg.evaluation.seed
    split = test_images(cfg)[0].take(settings.examples)
    attacks: dict[str, PGD] = {"FGSM": build(cfg.report.attacks.fgsm), "PGD": build(cfg.report.attacks.pgd_100)}
    paths = {}
    for training, (network, copy) in pairs(cfg, settings.model, settings.trainings).items():

        def compute(
            network: Subject = network, copy: Subject = copy
        ) -> tuple[dict[str, object], dict[str, np.ndarray]]:
            images = split.images(slice(None))
            return {}, landscape.directions(
                network.model, copy.model, images, split.labels, attacks, settings.starts, seed=seed
            )

        key = {
            "attacks": {name: attack.describe() for name, attack in attacks.items()},
            "copy_sha256": copy.checkpoint_sha256,
            "examples": len(split),
            "starts": settings.starts,
            "seed": seed,
        }
        paths[training] = network.measure_arrays("directions", key, compute)[1]
    return figures.directions(paths, cfg.dataset.name) if paths else None


def angles(cfg: DictConfig) -> Chart | None:
    settings = cfg.report.angles
    split, attack = test_images(cfg)[0].take(settings.examples), build(cfg.report.attacks.fgsm)
    found = {}
    for training, (network, copy) in pairs(cfg, settings.model, settings.trainings).items():

        def compute(
            network: Subject = network, copy: Subject = copy
        ) -> tuple[dict[str, object], dict[str, np.ndarray]]:
            return {}, landscape.gradient_angles(network.model, copy.model, split, attack)

        key = {"attack": attack.describe(), "copy_sha256": copy.checkpoint_sha256, "examples": len(split)}
        found[training] = network.measure_arrays("gradient_angles", key, compute)[1]
    return figures.gradient_angles(found, cfg.dataset.name) if found else None


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    alone(cfg)
    with report(cfg) as out:
        for name, table in tables(cfg).items():
            out.table(name, table)
        for name, chart in (("directions", directions(cfg)), ("angles", angles(cfg))):
            if chart:
                out.figure(name, chart)


if __name__ == "__main__":
    main()
