"""Beyond the paper: does a network withstand the attack, or hide its gradients from it?"""

from __future__ import annotations

from saddlepoint.attacks import PGD
from saddlepoint.data import Split
from saddlepoint.errors import InputError
from saddlepoint.evaluation.diagnostics import judge, zero_gradients
from saddlepoint.evaluation.result import Accuracy, Diagnosis, F, Key, Result, Share
from saddlepoint.evaluation.subject import Subject
from saddlepoint.lab import Lab, Network, Settings
from saddlepoint.paper.item import Item, grid
from saddlepoint.report.folder import Report
from saddlepoint.report.page import BEYOND, Section
from saddlepoint.report.tables import diagnostics_table
from saddlepoint.threat import Threat


def networks(cfg: Settings) -> list[Network]:
    return grid([cfg.report.diagnostics.model], cfg.trainings, (0, cfg.report.copies.seed))


def diagnose(lab: Lab, split: Split, network: Subject, copy: Subject | None) -> Diagnosis:
    settings = lab.cfg.report.diagnostics
    plain, many = lab.pgd("pgd"), lab.pgd("pgd_x20")
    if many.restarts <= plain.restarts:
        raise InputError(f"attacks.pgd_x20.restarts={many.restarts}; expected more than pgd's {plain.restarts}")

    files: list[str] = []

    def noted(result: Result[F]) -> F:
        files.append(result.file)
        return result.found

    def under(name: str, attack: PGD) -> float:
        return noted(lab.accuracy(network, name, attack, split)).accuracy

    def named(name: str, source: Subject | None = None) -> Accuracy:
        return noted(lab.measure([network], name, source, len(split))[0])

    zero = noted(
        network.measure(
            Key("zero_gradients", attack=plain.describe(), examples=len(split), of=lab.total),
            lambda: Share(zero_gradients(network.model, split, plain, lab.cfg.evaluation.batch_size)),
            Share,
        )
    )
    pgd, restarted = named("pgd"), named("pgd_x20")
    low, high = pgd.interval
    found = judge(
        by_steps={n: under(f"steps_{n}", PGD(plain.threat, n)) for n in settings.steps},
        by_restarts={plain.restarts: pgd.accuracy, many.restarts: restarted.accuracy},
        by_eps={
            factor * plain.threat.eps: under(f"eps_times_{factor:g}", plain.scaled(factor))
            for factor in settings.factors
            if plain.threat.norm != "linf" or factor * plain.threat.eps <= 1
        },
        at_full_range=under("full_range", PGD(Threat("linf", 1), 100)),
        black_box=named("pgd", copy).accuracy if copy else None,
        gradient_free=named("square").accuracy,
        zero=zero.share,
        tolerance=(high - low) / 2,
    )
    return Diagnosis(found, network.command, files)


def make(lab: Lab, out: Report) -> None:
    settings = lab.cfg.report.diagnostics
    split = lab.test_images.take(settings.examples)
    found = {}
    for training in lab.cfg.trainings:
        network = lab.subject(settings.model, training, 0)
        if network:
            copy = lab.subject(settings.model, training, lab.cfg.report.copies.seed)
            found[f"{training} {settings.model}"] = diagnose(lab, split, network, copy)
    if not found:
        return
    notes = [
        f"Accuracies on the first {len(split)} test images. One suspicious sign means that a "
        "number above may be too high for this network: look at the attack that does not need the gradient."
    ]
    out.table("diagnostics", diagnostics_table(found, dataset=lab.cfg.dataset.name, notes=notes))


ITEM = Item(
    name="diagnostics",
    script="diagnostics",
    networks=networks,
    make=make,
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
