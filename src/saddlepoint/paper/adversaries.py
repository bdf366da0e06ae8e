"""Tables 1 and 2: one robust network against every adversary."""

from __future__ import annotations

from collections.abc import Mapping

from saddlepoint.lab import Lab, Measurement
from saddlepoint.measure.result import Accuracy, Result
from saddlepoint.paper.item import Item, Shown, against, over_seeds
from saddlepoint.paper.numbers import Accuracies, Number, origin, published, said_once, spread, threat_of
from saddlepoint.show.names import named
from saddlepoint.show.page import Section
from saddlepoint.show.table import Cell, Table


def needs(lab: Lab) -> dict[tuple[str, str], list[Measurement[Result[Accuracy]]]]:
    """By (attack, source)."""
    settings = lab.cfg.report
    attacked = over_seeds(lab, settings.network.model, settings.network.training)
    found = {}
    for name, attacks in settings.adversaries.items():
        for attack in attacks:
            given = None if name == "A" else settings.sources[name]
            source = (given.model, given.training, given.seed) if given else None
            found[attack, str(name)] = against(lab, attacked, attack, source)
    return found


def show(found: Mapping[tuple[str, str], Accuracies], lab: Lab) -> Shown:
    network = lab.cfg.report.network
    words = f"{network.model} network, {network.training} training"
    is_the_papers = lab.comparable and (network.model, network.training) == ("wide", "pgd")
    yield "adversaries", adversaries_table(found, dataset=lab.cfg.dataset.name, network=words, compare=is_the_papers)


def adversaries_table(
    rows: Mapping[tuple[str, str], Accuracies], *, dataset: str, network: str, compare: bool = True
) -> Table:
    """Tables 1 and 2: one network against every adversary.

    Args:
        rows: (attack's name, source) -> a result for each seed. Source "A" is the network itself.
        network: its name in words.
        compare: whether it is the network that the paper's numbers are of.
    """
    paper = published(dataset, "adversaries" if compare else None)
    results = [result for found in rows.values() for result in found]
    parts = {result.key.part for result in results}
    numbers = [Number(found, paper.cells.get((source, name))) for (name, source), found in rows.items()]
    cells = []
    for ((name, source), found), number in zip(rows.items(), numbers, strict=True):
        attack = found[0].key.description if found else {}
        part = found[0].key.part if found and len(parts) > 1 else None
        released = paper.released.get((source, name))
        record = {
            "dataset": dataset,
            "attack": name,
            "source": source,
            **number.compared(),
            "released_model": released,
            **origin(found),
        }
        row = [
            Cell(named(name) + (f" (first {part})" if part else "")),
            Cell(str(attack.get("steps", ""))),
            Cell(str(attack.get("restarts", ""))),
            Cell("" if name == "natural" else source.replace("_prime", "'")),
            Cell.of(str(number), record),
        ]
        if paper.source:
            row += number.beside()
        if paper.released:
            row.append(Cell("" if released is None else f"{released:g}", "beside"))
        cells.append(row)
    header = ["Adversary", "Steps", "Restarts", "Source", "Accuracy in %"]
    header += ["Paper", "Difference"] if paper.source else []
    header += ["Released model"] if paper.released else []
    notes = [
        "Source: A the network itself (white box), A' an independently trained copy, A_nat a naturally trained copy, "
        f"B another architecture. {spread(numbers)}",
    ]
    shown = {each for place in rows for each in place}
    unsaid = {
        "pgd_100": "the step size of its 100-step rows (here as in the others)",
        "cw": "CW's kappa (0; CW+: 50)",
        "cw_30": "CW's kappa (0)",
        "targeted": "what Targeted aims at (the likeliest wrong class)",
        "B": "how B was trained (naturally)",
    }
    said = [words for name, words in unsaid.items() if name in shown]
    notes += [f"The paper does not say: {', '.join(said)}."] if said else []
    notes += said_once(results)
    if paper.source:
        source = f" Released model: {paper.released_source}." if paper.released else ""
        notes.append(f"Paper: {paper.source}.{source}")
    return Table(f"{dataset}{threat_of(results)}: {network} against every adversary", header, cells, notes)


ITEM = Item(
    name="adversaries",
    script="adversaries_table",
    needs=needs,
    show=show,
    sections=(
        Section(
            "One robust network against every adversary",
            "Tables 1 and 2",
            "PGD is the strongest first-order adversary: nothing else, from the network itself or from another one, "
            "does much worse. MNIST keeps 89.3% and CIFAR10 45.8% against the strongest.",
            tables=("adversaries",),
        ),
    ),
)
