"""Tables 3 to 5 and ICLR Figures 7 and 8: transfer between networks.

Accuracy of every network on examples made on an independent training of every other (report.copies); the white-box
table; the loss towards own and transferred examples; angles between the gradients of a network and its copy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saddlepoint.attacks import PGD, described
from saddlepoint.errors import InputError
from saddlepoint.lab import Lab, Measurement
from saddlepoint.measure import landscape
from saddlepoint.measure.result import Key
from saddlepoint.measure.subject import Arrays, Subject
from saddlepoint.paper.grid import grid_table
from saddlepoint.paper.item import Item, Shown, accuracy_of, against, over_seeds
from saddlepoint.paper.lines import by_image
from saddlepoint.show.charts import Chart, Panel, Series
from saddlepoint.show.names import named, title
from saddlepoint.show.page import Section
from saddlepoint.show.table import Table

Place = tuple[str, str, str]  # table or figure; row or training method; column


def needs(lab: Lab) -> dict[Place, list[Measurement[Any]]]:
    """Accuracies of the tables, and arrays of the two figures."""
    cfg, copy = lab.cfg, lab.cfg.report.copies
    kinds = [(training, model) for model in cfg.models for training in cfg.trainings]
    twice = [(training, model) for training, model in kinds if model in copy.models]
    found: dict[Place, list[Measurement[Any]]] = {}
    for part, attack in tables(lab).items():
        for training, model in kinds:
            for other, wide in twice:
                targets, source = over_seeds(lab, model, training), (wide, other, copy.seed)
                place = (part, f"{training} {model}", f"{other} {wide}")
                found[place] = against(lab, targets, attack, source)
    for training, model in kinds:
        for attack in cfg.report.white_box:
            place = ("white_box", f"{training} {model}", attack)
            found[place] = [accuracy_of(lab, network, attack) for network in over_seeds(lab, model, training)]
    for training, model in twice:
        network, again, name = (model, training, 0), (model, training, copy.seed), f"{training} {model}"
        found["transfer_copy", name, "natural"] = [accuracy_of(lab, network, "natural")]
        found["transfer_copy", name, "copy natural"] = [accuracy_of(lab, again, "natural")]
        for attack in cfg.report.transfer:
            found["transfer_copy", name, attack] = [accuracy_of(lab, network, attack)]
            found["transfer_copy", name, f"copy {attack}"] = against(lab, [again], attack, network)
    for part, settings, make in (
        ("directions", cfg.report.directions, directions_of),
        ("angles", cfg.report.angles, angles_of),
    ):
        for training in settings.trainings:
            pair = (settings.model, training, 0), (settings.model, training, copy.seed)
            found[part, training, ""] = [Measurement(pair[0], make, pair[1])]
    return found


def tables(lab: Lab) -> dict[str, str]:
    """Of Tables 3 and 4 the attack of each. Raises InputError unless they are one FGSM and one PGD."""
    attacks = lab.cfg.report.transfer
    found = {f"transfer_{'fgsm' if lab.pgd(attack).steps == 1 else 'pgd'}": attack for attack in attacks}
    if len(found) < len(attacks):
        raise InputError(f"report.transfer={attacks}; expected one FGSM and one PGD, a table for each")
    return found


def directions_of(lab: Lab, network: Subject, copy: Subject | None) -> Arrays:
    assert copy is not None
    settings, seed = lab.cfg.report.directions, lab.cfg.evaluation.seed
    split = lab.test_images.take(settings.examples)
    attacks: dict[str, PGD] = {"FGSM": lab.pgd("fgsm"), "PGD": lab.pgd("pgd_100")}

    def compute() -> Arrays:
        x, y = split.images(slice(None)), split.labels
        return landscape.directions(network.model, copy.model, x, y, attacks, settings.starts, seed=seed)

    descriptions = {name: described(attack) for name, attack in attacks.items()}
    key = Key("directions", attacks=descriptions, examples=len(split), starts=settings.starts, seed=seed)
    return network.arrays(dataclasses.replace(key, copy_sha256=copy.checkpoint_sha256), compute)


def angles_of(lab: Lab, network: Subject, copy: Subject | None) -> Arrays:
    assert copy is not None
    split, attack = lab.test_images.take(lab.cfg.report.angles.examples), lab.pgd("fgsm")
    key = Key("gradient_angles", attack=described(attack), examples=len(split), copy_sha256=copy.checkpoint_sha256)
    return network.arrays(key, lambda: landscape.gradient_angles(network.model, copy.model, split, attack))


def show(found: Mapping[Place, Sequence[Any]], lab: Lab) -> Shown:
    dataset = lab.cfg.dataset.name

    def of(part: str) -> dict[tuple[str, str], Any]:
        return {place[1:]: each for place, each in found.items() if place[0] == part}

    def table(part: str, words: str, sides: tuple[str, str], note: str, item: str, intervals: bool = False) -> Table:
        compared = item if lab.comparable else None
        return grid_table(
            of(part), dataset=dataset, title=words, sides=sides, notes=[note], item=compared, intervals=intervals
        )

    for part, attack in tables(lab).items():
        words = named(attack)
        note = (
            f"Accuracy in % of the target (row) on {words} examples made on the source (column), an independent "
            "training of the same name."
        )
        yield part, table(part, f"transfer of {words} examples", ("target", "source"), note, f"transfer_{attack}")
    note = (
        "Accuracy in %. FGSM, random start: one full step from a uniformly random point of the ball, projected; "
        "the paper's is R+FGSM of Tramèr et al., which splits the step."
    )
    yield "white_box", table("white_box", "white-box attacks", ("network", "attack"), note, "white_box", True)
    note = "Accuracy in % of the network, white box, and of its independent copy on the same examples."
    words = "white box, and on an independent copy"
    yield "transfer_copy", table("transfer_copy", words, ("network", "attack"), note, "transfer_copy")
    for name, draw in (("directions", directions), ("angles", gradient_angles)):
        arrays = {training: one for (training, _), each in of(name).items() for one in each}
        if arrays:
            yield name, draw(arrays, dataset)


def directions(paths: Mapping[str, Mapping[str, np.ndarray]], dataset: str) -> Chart:
    """ICLR Figure 7: loss towards adversarial examples. `paths`: training -> kind -> (examples, starts, points)."""
    colours = {"own FGSM": "#c8352c", "own PGD": "#2a6fbb", "copy's FGSM": "#5b8c5a", "copy's PGD": "#3c3c3c"}
    lines = {
        training: {(kind, colours[kind]): values for kind, values in kinds.items()} for training, kinds in paths.items()
    }
    points = next(iter(next(iter(paths.values())).values())).shape[2]
    rows = by_image(lines, np.linspace(0, 1, points), "share of the way")
    return Chart(
        f"{dataset}: loss towards adversarial examples, own and transferred",
        rows,
        caption="Figure 7 (ICLR). The loss along the straight line from an image to its adversarial examples and to "
        "those of an independently trained copy. (The paper, on CIFAR10: the simple natural network and the wide PGD "
        "one, steps of 0.3/255.)",
    )


def gradient_angles(angles: Mapping[str, Mapping[str, np.ndarray]], dataset: str) -> Chart:
    """ICLR Figure 8: angles between input gradients of a network and its copy. `angles`: training -> same, other."""
    edges = np.linspace(0, 180, 91)
    names = {"same": ("same image", "#c8352c"), "other": ("another image", "#8a8a8a")}
    panels = [
        Panel(
            [
                Series(name, edges, np.histogram(pair[kind][np.isfinite(pair[kind])], edges)[0], colour, "bars")
                for kind, (name, colour) in names.items()
            ],
            title=title(training),
            x="angle in degrees",
            y="images" if number == 0 else "",
        )
        for number, (training, pair) in enumerate(angles.items())
    ]
    return Chart(
        f"{dataset}: angle between the gradients of a network and its copy",
        [panels],
        size=(2.7, 2.6),
        caption="Figure 8 (ICLR). Angles between the loss's input gradients of two independently trained networks, on "
        "the same image and on two different ones. The paper: correlated after natural training, less after FGSM's.",
    )


ITEM = Item(
    name="transfer",
    script="transfer_tables",
    needs=needs,
    show=show,
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
