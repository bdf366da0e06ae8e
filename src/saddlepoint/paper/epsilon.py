"""Figure 6: accuracy against eps in l_inf and l_2."""

from __future__ import annotations

from saddlepoint.attacks import PGD, Attack
from saddlepoint.data import Split
from saddlepoint.evaluation.autoattack import AutoAttack
from saddlepoint.evaluation.result import Curve, Key, Result
from saddlepoint.evaluation.robustness import evaluate
from saddlepoint.evaluation.subject import Subject
from saddlepoint.lab import Lab, Network, Settings
from saddlepoint.paper.item import Item, grid
from saddlepoint.report import figures
from saddlepoint.report.folder import Report
from saddlepoint.report.page import Section
from saddlepoint.report.tables import epsilon_table
from saddlepoint.results import interval
from saddlepoint.threat import Threat


def networks(cfg: Settings) -> list[Network]:
    return grid([cfg.report.epsilon.model], cfg.report.epsilon.trainings)


def attack_of(name: str, norm: str, eps: str, settings: Settings) -> Attack:
    threat = Threat(norm, eps)
    return PGD(threat, settings.steps) if name == "pgd" else AutoAttack(threat, only="square", queries=settings.queries)


def curve(subject: Subject, name: str, norm: str, split: Split, total: int, cfg: Settings) -> Result[Curve]:
    settings, batch_size, seed = cfg.report.epsilon, cfg.evaluation.batch_size, cfg.evaluation.seed
    all_eps = [str(eps) for eps in settings[norm]]

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
        settings=attack_of(name, norm, all_eps[-1], settings).describe(),
        examples=len(split),
        of=total,
        batch_size=batch_size,
        seed=seed,
    )
    return subject.measure(key, compute, Curve)


def make(lab: Lab, out: Report) -> None:
    cfg, settings = lab.cfg, lab.cfg.report.epsilon
    split = lab.test_images.take(settings.examples)
    AutoAttack(Threat("l2", 1), only="square").check(split.pixels.shape)  # before linf is measured
    found = list(lab.subjects([settings.model], settings.trainings, seeds=1))
    results = {
        norm: [curve(each, name, norm, split, lab.total, cfg) for each in found for name in ("pgd", "square")]
        for norm in ("linf", "l2")
    }
    if not found:
        return
    is_the_papers = lab.comparable and settings.model == "wide"
    chart = figures.epsilon([each for norm in results.values() for each in norm], cfg.dataset.name, is_the_papers)
    out.figure("epsilon", chart)
    for norm, measured in results.items():
        out.table(f"epsilon_{norm}", epsilon_table(measured, dataset=cfg.dataset.name, compare=is_the_papers))


ITEM = Item(
    name="epsilon",
    script="epsilon_curves",
    networks=networks,
    make=make,
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
