"""Figure 6: accuracy against eps in l_inf and l_2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial

import numpy as np

from saddlepoint.attacks import PGD, Attack, described
from saddlepoint.errors import InputError
from saddlepoint.lab import Lab, Measurement, Settings, refuse_text
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.measure.autoattack import AutoAttack
from saddlepoint.measure.result import Curve, Key, Result, interval
from saddlepoint.measure.subject import Subject
from saddlepoint.paper.item import Item, Shown
from saddlepoint.paper.numbers import origin, parts, published
from saddlepoint.show.charts import Chart, Panel, Series
from saddlepoint.show.names import ATTACK_COLOURS, named, title
from saddlepoint.show.page import Section
from saddlepoint.show.table import Cell, Table
from saddlepoint.threat import Threat

Place = tuple[str, str, str]  # norm, training method, attack


PAPERS_OWN = {"square": "Decision-boundary attack"}  # where the paper takes another one


def needs(lab: Lab) -> dict[Place, list[Measurement[Result[Curve]]]]:
    settings = lab.cfg.report.epsilon
    for norm in ("linf", "l2"):
        refuse_text(f"report.epsilon.{norm}", settings[norm])
        if not settings[norm]:
            raise InputError(f"report.epsilon.{norm}={settings[norm]}; expected at least one eps, such as [0,0.1]")
    return {
        (norm, training, attack): [Measurement((settings.model, training, 0), partial(curve, name=attack, norm=norm))]
        for norm in ("linf", "l2")
        for training in settings.trainings
        for attack in ("pgd", "square")
    }


def attack_of(name: str, norm: str, eps: str, settings: Settings) -> Attack:
    threat = Threat(norm, eps)
    return PGD(threat, settings.steps) if name == "pgd" else AutoAttack(threat, only="square", queries=settings.queries)


def curve(lab: Lab, subject: Subject, _: Subject | None, *, name: str, norm: str) -> Result[Curve]:
    settings, batch_size, seed = lab.cfg.report.epsilon, lab.cfg.evaluation.batch_size, lab.cfg.evaluation.seed
    split, all_eps = lab.test_images.take(settings.examples), [str(eps) for eps in settings[norm]]
    AutoAttack(Threat("l2", 1), only="square").check(split.pixels.shape)  # before linf is measured

    def compute() -> Curve:
        accuracies = []
        for eps in all_eps:
            attack = attack_of(name, norm, eps, settings)
            outcome = evaluate(
                subject.model,
                split,
                attack if attack.threat.eps else None,
                batch_size=batch_size,
                seed=seed,
                progress=f"{name}, {norm} {eps}, {subject.label}",
            )
            accuracies.append(outcome.accuracy)
        return Curve(accuracies, [interval(round(accuracy * len(split)), len(split)) for accuracy in accuracies])

    key = Key(
        f"epsilon-{norm}-{name}",
        attack=name,
        norm=norm,
        eps=all_eps,
        settings=described(attack_of(name, norm, all_eps[-1], settings)),
        examples=len(split),
        of=lab.total,
        batch_size=batch_size,
        seed=seed,
    )
    return subject.measure(key, compute, Curve)


def show(found: Mapping[Place, Sequence[Result[Curve]]], lab: Lab) -> Shown:
    dataset = lab.cfg.dataset.name
    is_the_papers = lab.comparable and lab.cfg.report.epsilon.model == "wide"
    results = {
        norm: [each for place, curves in found.items() for each in curves if place[0] == norm]
        for norm in ("linf", "l2")
    }
    if not results["linf"]:
        return
    yield "epsilon", epsilon([*results["linf"], *results["l2"]], dataset, is_the_papers)
    for norm, measured in results.items():
        yield f"epsilon_{norm}", epsilon_table(measured, dataset=dataset, compare=is_the_papers)


def epsilon(results: Sequence[Result[Curve]], dataset: str, compare: bool = True) -> Chart:
    """Figure 6: accuracy against eps, a panel for each (norm, training); a result is of one network and attack."""
    paper = published(dataset, "epsilon" if compare else None)
    columns: dict[tuple[str, str], list[Series]] = {}
    for result in results:
        norm, training, attack = str(result.key.norm), result.run.training, str(result.key.attack)
        eps = [float(Fraction(each)) for each in result.key.eps or ()]
        low, high = (100 * np.array(ends) for ends in zip(*result.found.intervals, strict=True))
        drawn = columns.setdefault((norm, training), [])
        name, colour = named(attack), ATTACK_COLOURS[attack]
        drawn.append(Series(name, eps, 100 * np.array(result.found.accuracies), colour, "line", low, high))
        theirs = {
            float(place[3]): value for place, value in paper.cells.items() if place[:3] == (norm, training, attack)
        }
        if theirs:
            shown = f"{PAPERS_OWN.get(attack, name)}, paper"
            drawn.append(Series(shown, list(theirs), list(theirs.values()), colour, "dashed"))
    panels = [
        Panel(drawn, title=f"{norm}, {title(training)}", x=f"eps ({norm})", y="accuracy in %", from_zero=True)
        for (norm, training), drawn in columns.items()
    ]
    return Chart(
        f"{dataset}: accuracy against eps",
        [panels[start : start + 2] for start in range(0, len(panels), 2)],
        size=(3.6, 2.8),
        caption="Figure 6. Accuracy under PGD (steps of 2.5 eps / their number) and under an attack that sees no "
        "gradient (here Square, in the paper the decision-boundary attack). Where the latter is lower, PGD is being "
        "hidden from: in l2 on MNIST. Bars: 95% interval." + (f" Paper: {paper.source}." if paper.source else ""),
    )


def epsilon_table(results: Sequence[Result[Curve]], *, dataset: str, compare: bool = True) -> Table:
    """Figure 6 in numbers: a row for each network and attack, a column for each eps; one norm's results."""
    paper = published(dataset, "epsilon" if compare else None)
    norm, all_eps = str(results[0].key.norm), results[0].key.eps or ()
    rows = []
    for result in results:
        training, attack, curve = result.run.training, str(result.key.attack), result.found
        row = [Cell(f"{named(training)}, {named(attack)}")]
        for eps, accuracy, (low, high) in zip(all_eps, curve.accuracies, curve.intervals, strict=True):
            theirs = paper.cells.get((norm, training, attack, eps))
            record = {
                "dataset": dataset,
                "norm": norm,
                "eps": eps,
                "training": training,
                "attack": attack,
                "value": 100 * accuracy,
                "low": 100 * low,
                "high": 100 * high,
                "examples": result.key.examples,
                "paper": theirs,
                **origin([result]),
            }
            row.append(Cell.of(f"{100 * accuracy:.1f}" + ("" if theirs is None else f" ({theirs:g})"), record))
        rows.append(row)
    notes = ["Accuracy in %.", *parts(results)]
    if paper.source:
        notes.append(f"In brackets, the paper: {paper.source}.")
    return Table(f"{dataset}: accuracy against eps, {norm}", ["Training, attack", *all_eps], rows, notes)


ITEM = Item(
    name="epsilon",
    script="epsilon_curves",
    needs=needs,
    show=show,
    sections=(
        Section(
            "Accuracy against eps",
            "Figure 6",
            "For eps up to that of the training the accuracy is equal or better. In l_2 a gradient-free attack finds "
            "far less robustness on MNIST than PGD does: its gradients are masked.",
            tables=("epsilon_linf", "epsilon_l2"),
            figures=("epsilon",),
        ),
    ),
)
