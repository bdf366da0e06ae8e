"""Beyond the paper: does a network withstand the attack, or hide its gradients from it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saddlepoint.attacks import PGD, described
from saddlepoint.errors import InputError
from saddlepoint.lab import Lab, Measurement
from saddlepoint.measure.diagnostics import judge, zero_gradients
from saddlepoint.measure.result import Accuracy, Diagnosis, Key, Result, Share
from saddlepoint.measure.subject import Subject
from saddlepoint.paper.item import Item, Shown, accuracy_of, against
from saddlepoint.show.page import BEYOND, Section
from saddlepoint.show.table import Cell, Table
from saddlepoint.threat import Threat

Place = tuple[str, str]  # training method, what is measured


def needs(lab: Lab) -> dict[Place, list[Measurement[Any]]]:
    settings = lab.cfg.report.diagnostics
    plain, many = lab.pgd("pgd"), lab.pgd("pgd_x20")
    if many.restarts <= plain.restarts:
        raise InputError(f"attacks.pgd_x20.restarts={many.restarts}; expected more than pgd's {plain.restarts}")
    examples = settings.examples
    found: dict[Place, list[Measurement[Any]]] = {}
    for training in lab.cfg.trainings:
        network, copy = ((settings.model, training, seed) for seed in (0, lab.cfg.report.copies.seed))
        found[training, "zero"] = [Measurement(network, without_gradient)]
        for name in ("pgd", "pgd_x20"):
            found[training, name] = [accuracy_of(lab, network, name, examples=examples)]
        for name, attack in variants(lab).items():
            found[training, name] = [accuracy_of(lab, network, name, attack=attack, examples=examples)]
        found[training, "copy"] = against(lab, [network], "pgd", copy, examples=examples)
        found[training, "square"] = [accuracy_of(lab, network, "square", examples=examples)]
    return found


def variants(lab: Lab) -> dict[str, PGD]:
    """PGD with other steps and other eps, by the names of their measurements."""
    settings, plain = lab.cfg.report.diagnostics, lab.pgd("pgd")
    by_steps = {f"steps_{n}": PGD(plain.threat, n) for n in settings.steps}
    by_eps = {
        f"eps_times_{factor:g}": plain.scaled(factor)
        for factor in settings.factors
        if plain.threat.norm != "linf" or factor * plain.threat.eps <= 1
    }
    return {**by_steps, **by_eps, "full_range": PGD(Threat("linf", 1), 100)}


def without_gradient(lab: Lab, subject: Subject, _: Subject | None) -> Result[Share]:
    """The share of images on which the gradient is zero everywhere."""
    split, attack = lab.test_images.take(lab.cfg.report.diagnostics.examples), lab.pgd("pgd")
    key = Key("zero_gradients", attack=described(attack), examples=len(split), of=lab.total)
    batch_size = lab.cfg.evaluation.batch_size
    return subject.measure(key, lambda: Share(zero_gradients(subject.model, split, attack, batch_size)), Share)


def show(found: Mapping[Place, Sequence[Result[Any]]], lab: Lab) -> Shown:
    settings = lab.cfg.report.diagnostics
    judged = {}
    for training in lab.cfg.trainings:
        results = {name: one for (each, name), measured in found.items() for one in measured if each == training}
        if results:
            judged[f"{training} {settings.model}"] = diagnose(results, lab)
    if not judged:
        return
    examples = len(lab.test_images.take(settings.examples))
    notes = [
        f"Accuracies on the first {examples} test images. One suspicious sign means that a "
        "number above may be too high for this network: look at the attack that does not need the gradient."
    ]
    yield "diagnostics", diagnostics_table(judged, dataset=lab.cfg.dataset.name, notes=notes)


def diagnose(results: Mapping[str, Result[Any]], lab: Lab) -> Diagnosis:
    """Of one network, from what was measured of it by name."""
    settings, plain, many = lab.cfg.report.diagnostics, lab.pgd("pgd"), lab.pgd("pgd_x20")
    accuracy = {name: one.found.accuracy for name, one in results.items() if isinstance(one.found, Accuracy)}
    eps = {factor: f"eps_times_{factor:g}" for factor in settings.factors}
    low, high = results["pgd"].found.interval
    checks = judge(
        by_steps={n: accuracy[f"steps_{n}"] for n in settings.steps},
        by_restarts={plain.restarts: accuracy["pgd"], many.restarts: accuracy["pgd_x20"]},
        by_eps={factor * plain.threat.eps: accuracy[name] for factor, name in eps.items() if name in accuracy},
        at_full_range=accuracy["full_range"],
        black_box=accuracy.get("copy"),
        gradient_free=accuracy["square"],
        zero=results["zero"].found.share,
        tolerance=(high - low) / 2,
    )
    return Diagnosis(checks, lab.command, [one.file for one in results.values()])


def diagnostics_table(found: Mapping[str, Diagnosis], *, dataset: str, notes: Sequence[str]) -> Table:
    """Signs of masked gradients, by network."""
    rows = []
    for network, diagnosis in found.items():
        for check in diagnosis.checks:
            numbers = ", ".join(f"{name}: {value:.1%}" for name, value in check.numbers.items())
            verdict = "pass" if check.passed else "suspicious"
            record = {
                "dataset": dataset,
                "network": network,
                "name": check.name,
                "expected": check.expected,
                "numbers": numbers,
                "passed": check.passed,
                "command": diagnosis.command,
                "files": "; ".join(diagnosis.files),
                "verdict": verdict,
            }
            texts = (f"{network}: {check.name}", check.expected, numbers)
            rows.append([*map(Cell, texts), Cell.of(verdict, record)])
    header = ["Network: sign", "Where nothing is masked", "Found", "Verdict"]
    return Table(f"{dataset}: signs of masked gradients", header, rows, notes)


ITEM = Item(
    name="diagnostics",
    script="diagnostics",
    needs=needs,
    show=show,
    sections=(
        Section(
            "Signs of masked gradients",
            BEYOND,
            "Robustness that only hides from gradients shows: in attacks that get weaker with more steps, restarts or "
            "eps, in transferred attacks that beat the white box, in gradients of zero.",
            tables=("diagnostics",),
        ),
    ),
)
