"""Tables 3 to 5 and ICLR Figures 7 and 8: transfer between networks.

Accuracy of every network on examples made on an independent training of every other (report.copies); the white-box
table; the loss towards own and transferred examples; angles between the gradients of a network and its copy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from saddlepoint.attacks import PGD
from saddlepoint.errors import InputError
from saddlepoint.evaluation import landscape
from saddlepoint.evaluation.result import Accuracy, Key, Result
from saddlepoint.evaluation.subject import Arrays, Subject
from saddlepoint.lab import Lab, Network, Settings
from saddlepoint.paper.item import Item, grid
from saddlepoint.report import figures
from saddlepoint.report.charts import Chart
from saddlepoint.report.folder import Report
from saddlepoint.report.page import Section
from saddlepoint.report.table import Table, named
from saddlepoint.report.tables import grid_table


def networks(cfg: Settings) -> list[Network]:
    settings, copy = cfg.report, cfg.report.copies.seed
    found = grid(cfg.models, cfg.trainings, range(cfg.seeds)) + grid(settings.copies.models, cfg.trainings, [copy])
    for pairs in (settings.directions, settings.angles):
        found += grid([pairs.model], pairs.trainings, (0, copy))
    return found


def transferred(lab: Lab, attack: str) -> Table:
    """Tables 3 and 4: accuracy of each network on examples made on an independent training of each other."""
    cfg = lab.cfg
    kinds = [(training, model) for model in cfg.models for training in cfg.trainings]
    copies = {
        f"{training} {model}": lab.subject(model, training, cfg.report.copies.seed)
        for training, model in kinds
        if model in cfg.report.copies.models
    }
    cells = {}
    for training, model in kinds:
        targets = list(lab.subjects([model], [training]))
        for source, copy in copies.items():
            cells[f"{training} {model}", source] = lab.measure(targets, attack, copy) if copy else []
    words = named(attack)
    return grid_table(
        cells,
        dataset=cfg.dataset.name,
        title=f"transfer of {words} examples",
        sides=("target", "source"),
        notes=[
            f"Accuracy in % of the target (row) on {words} examples made on the source (column), an independent "
            "training of the same name."
        ],
        item=f"transfer_{attack}" if lab.comparable else None,
        intervals=False,
    )


def white_box(lab: Lab) -> Table:
    """Table 5."""
    cfg = lab.cfg
    cells = {}
    for model in cfg.models:
        for training in cfg.trainings:
            attacked = list(lab.subjects([model], [training]))
            for attack in cfg.report.white_box:
                cells[f"{training} {model}", attack] = lab.measure(attacked, attack)
    return grid_table(
        cells,
        dataset=cfg.dataset.name,
        title="white-box attacks",
        sides=("network", "attack"),
        notes=[
            "Accuracy in %. FGSM, random start: one full step from a uniformly random point of the ball, projected; "
            "the paper's is R+FGSM of Tramèr et al., which splits the step."
        ],
        item="white_box" if lab.comparable else None,
    )


def copied(lab: Lab) -> Table:
    """The table of ICLR Figure 8: a network, white box, and its independent copy on the same examples."""
    cfg, measure = lab.cfg, lab.measure
    cells: dict[tuple[str, str], list[Result[Accuracy]]] = {}
    for model in cfg.models:
        for training in cfg.trainings if model in cfg.report.copies.models else ():
            name = f"{training} {model}"
            network, copy = (
                [each for each in (lab.subject(model, training, seed),) if each] for seed in (0, cfg.report.copies.seed)
            )
            cells[name, "natural"], cells[name, "copy natural"] = measure(network, "natural"), measure(copy, "natural")
            for attack in cfg.report.transfer:
                cells[name, attack] = measure(network, attack)
                cells[name, f"copy {attack}"] = measure(copy, attack, network[0]) if network else []
    return grid_table(
        cells,
        dataset=cfg.dataset.name,
        title="white box, and on an independent copy",
        sides=("network", "attack"),
        notes=["Accuracy in % of the network, white box, and of its independent copy on the same examples."],
        item="transfer_copy" if lab.comparable else None,
        intervals=False,
    )


def over_pairs(
    lab: Lab, settings: Settings, key: Key, compute: Callable[[Subject, Subject], Arrays]
) -> dict[str, Arrays]:
    """What is computed of each training's network and its independent copy, where both are trained."""
    found = {}
    for training in settings.trainings:
        network, copy = (lab.subject(settings.model, training, seed) for seed in (0, lab.cfg.report.copies.seed))
        if network and copy:
            of_both = dataclasses.replace(key, copy_sha256=copy.checkpoint_sha256)
            found[training] = network.arrays(of_both, partial(compute, network, copy))
    return found


def directions(lab: Lab) -> Chart | None:
    settings, seed = lab.cfg.report.directions, lab.cfg.evaluation.seed
    split = lab.test_images.take(settings.examples)
    attacks: dict[str, PGD] = {"FGSM": lab.pgd("fgsm"), "PGD": lab.pgd("pgd_100")}

    def compute(network: Subject, copy: Subject) -> Arrays:
        x, y = split.images(slice(None)), split.labels
        return landscape.directions(network.model, copy.model, x, y, attacks, settings.starts, seed=seed)

    described = {name: attack.describe() for name, attack in attacks.items()}
    key = Key("directions", attacks=described, examples=len(split), starts=settings.starts, seed=seed)
    paths = over_pairs(lab, settings, key, compute)
    return figures.directions(paths, lab.cfg.dataset.name) if paths else None


def angles(lab: Lab) -> Chart | None:
    settings = lab.cfg.report.angles
    split, attack = lab.test_images.take(settings.examples), lab.pgd("fgsm")

    def compute(network: Subject, copy: Subject) -> Arrays:
        return landscape.gradient_angles(network.model, copy.model, split, attack)

    key = Key("gradient_angles", attack=attack.describe(), examples=len(split))
    found = over_pairs(lab, settings, key, compute)
    return figures.gradient_angles(found, lab.cfg.dataset.name) if found else None


def make(lab: Lab, out: Report) -> None:
    attacks = {"fgsm" if lab.pgd(attack).steps == 1 else "pgd": attack for attack in lab.cfg.report.transfer}
    if len(attacks) < len(lab.cfg.report.transfer):
        raise InputError(f"report.transfer={lab.cfg.report.transfer}; expected one FGSM and one PGD, a table for each")
    for kind, attack in attacks.items():
        out.table(f"transfer_{kind}", transferred(lab, attack))
    out.table("white_box", white_box(lab))
    out.table("transfer_copy", copied(lab))
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
