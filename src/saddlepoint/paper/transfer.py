"""Tables 3 to 5 and ICLR Figures 7 and 8: transfer between networks.

Accuracy of every network on examples made on an independent training of every other (report.copies); the white-box
table; the loss towards own and transferred examples; angles between the gradients of a network and its copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from saddlepoint.attacks import PGD
from saddlepoint.errors import InputError
from saddlepoint.evaluation import landscape
from saddlepoint.evaluation.subject import Subject
from saddlepoint.lab import Lab, Network, Settings
from saddlepoint.paper.item import Item, grid
from saddlepoint.report import figures
from saddlepoint.report.charts import Chart
from saddlepoint.report.folder import Report
from saddlepoint.report.page import Section
from saddlepoint.report.table import NAMES, Table
from saddlepoint.report.tables import grid_table
from saddlepoint.results import Result


def networks(cfg: Settings) -> list[Network]:
    settings, copy = cfg.report, cfg.report.copies.seed
    found = grid(cfg.models, cfg.trainings, range(cfg.seeds)) + grid(settings.copies.models, cfg.trainings, [copy])
    for pairs in (settings.directions, settings.angles):
        found += grid([pairs.model], pairs.trainings, (0, copy))
    return found


def tables(lab: Lab) -> dict[str, Table]:
    cfg, measure = lab.cfg, lab.measure
    settings = cfg.report
    kinds = [(training, model) for model in cfg.models for training in cfg.trainings]
    networks = {f"{training} {model}": list(lab.subjects([model], [training])) for training, model in kinds}
    copies = {
        f"{training} {model}": lab.subject(model, training, settings.copies.seed)
        for training, model in kinds
        if model in settings.copies.models
    }
    made, dataset = {}, cfg.dataset.name
    if len({attack.split("_")[0] for attack in settings.transfer}) < len(settings.transfer):
        raise InputError(f"report.transfer={settings.transfer}; expected one FGSM and one PGD, a table for each")
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
            item=f"transfer_{attack}" if lab.comparable else None,
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
        item="white_box" if lab.comparable else None,
    )
    both: dict[tuple[str, str], list[Result]] = {}
    for training, model in kinds:
        name = f"{training} {model}"
        if name not in copies:
            continue
        copy = [each for each in (copies[name],) if each]
        network = [each for each in (lab.subject(model, training, 0),) if each]
        both[name, "natural"], both[name, "copy natural"] = measure(network, "natural"), measure(copy, "natural")
        for attack in settings.transfer:
            both[name, attack] = measure(network, attack)
            both[name, f"copy {attack}"] = measure(copy, attack, network[0]) if network else []
    made["transfer_copy"] = grid_table(
        both,
        dataset=dataset,
        title="white box, and on an independent copy",
        sides=("network", "attack"),
        notes=["Accuracy in % of the network, white box, and of its independent copy on the same examples."],
        item="transfer_copy" if lab.comparable else None,
        intervals=False,
    )
    return made


Arrays = dict[str, np.ndarray]


def over_pairs(
    lab: Lab,
    name: str,
    settings: Settings,
    key: dict[str, Any],
    compute: Callable[[nn.Module, nn.Module], Arrays],
) -> dict[str, Arrays]:
    """What is computed of each training's network and its independent copy, where both are trained."""
    found = {}
    for training in settings.trainings:
        network, copy = (lab.subject(settings.model, training, seed) for seed in (0, lab.cfg.report.copies.seed))
        if network and copy:

            def both(network: Subject = network, copy: Subject = copy) -> tuple[dict[str, Any], Arrays]:
                return {}, compute(network.model, copy.model)

            copied = {**key, "copy_sha256": copy.checkpoint_sha256}
            found[training] = network.measure_arrays(name, copied, both)[1]
    return found


def directions(lab: Lab) -> Chart | None:
    settings, seed = lab.cfg.report.directions, lab.cfg.evaluation.seed
    split = lab.test_images.take(settings.examples)
    attacks: dict[str, PGD] = {"FGSM": lab.pgd("fgsm"), "PGD": lab.pgd("pgd_100")}

    def compute(network: nn.Module, copy: nn.Module) -> Arrays:
        x, y = split.images(slice(None)), split.labels
        return landscape.directions(network, copy, x, y, attacks, settings.starts, seed=seed)

    described = {name: attack.describe() for name, attack in attacks.items()}
    key = {"attacks": described, "examples": len(split), "starts": settings.starts, "seed": seed}
    paths = over_pairs(lab, "directions", settings, key, compute)
    return figures.directions(paths, lab.cfg.dataset.name) if paths else None


def angles(lab: Lab) -> Chart | None:
    settings = lab.cfg.report.angles
    split, attack = lab.test_images.take(settings.examples), lab.pgd("fgsm")

    def compute(network: nn.Module, copy: nn.Module) -> Arrays:
        return landscape.gradient_angles(network, copy, split, attack)

    key = {"attack": attack.describe(), "examples": len(split)}
    found = over_pairs(lab, "gradient_angles", settings, key, compute)
    return figures.gradient_angles(found, lab.cfg.dataset.name) if found else None


def make(lab: Lab, out: Report) -> None:
    for name, table in tables(lab).items():
        out.table(name, table)
    for name, chart in (("directions", directions(lab)), ("angles", angles(lab))):
        if chart:
            out.figure(name, chart)


ITEM = Item(
    name="transfer",
    script="transfer_tables",
    networks=networks,
    make=make,
    sections=(
        Section(
            "Transfer between networks",
            "Tables 3 and 4",
            "Examples made on one network fool another less the wider the networks are and the stronger the adversary "
            "they were trained against. Rows are targets, columns the networks the examples were made on.",
            tables=("transfer_fgsm", "transfer_pgd"),
        ),
        Section(
            "White-box accuracy of the six networks",
            "Table 5",
            "Only the networks trained on PGD examples keep an accuracy against PGD, however well the others do on "
            "FGSM.",
            tables=("white_box",),
        ),
        Section(
            "Loss along own and transferred perturbations",
            "ICLR Figure 7",
            "From an image to its adversarial examples, its own or an independent copy's, the loss of the naturally "
            "trained network climbs more than ten times as high as that of the adversarially trained one.",
            figures=("directions",),
        ),
        Section(
            "Two trainings of one network",
            "ICLR Figure 8",
            "The input gradients of two independently trained networks are correlated and attacks transfer between "
            "them; both much less after training on FGSM examples.",
            tables=("transfer_copy",),
            figures=("angles",),
        ),
    ),
)
