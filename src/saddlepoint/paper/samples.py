"""ICLR Figure 12: adversarial examples as pictures, of the natural and the robust network, in both norms."""

from __future__ import annotations

import torch

from saddlepoint.attacks import PGD, undisturbed
from saddlepoint.data import Split
from saddlepoint.evaluation.result import Key
from saddlepoint.evaluation.subject import Arrays, Subject
from saddlepoint.lab import Lab, Network, Settings
from saddlepoint.paper.item import Item, grid
from saddlepoint.report import figures
from saddlepoint.report.folder import Report
from saddlepoint.report.page import Section
from saddlepoint.runtime import generator
from saddlepoint.threat import Threat


def networks(cfg: Settings) -> list[Network]:
    return grid([cfg.report.samples.model], cfg.report.samples.trainings)


def sample(subject: Subject, split: Split, attack: PGD, seed: int) -> Arrays:
    """Adversarial images (n, c, h, w), and the classes before and after (n,)."""

    def compute() -> Arrays:
        model, x = subject.model, split.images(slice(None))
        x_adv = attack(model, x, split.labels, generator(seed, "samples", x.device))
        if not attack.threat.contains(x_adv, x).all():
            raise RuntimeError(f"{attack} made examples outside its threat model")
        with undisturbed(model), torch.no_grad():
            before, after = (model(images).argmax(1).numpy(force=True) for images in (x, x_adv))
        return {"images": x_adv.numpy(force=True), "before": before, "after": after}

    key = Key(f"samples-{attack.threat.norm}", attack=attack.describe(), examples=len(split), seed=seed)
    return subject.arrays(key, compute)


def make(lab: Lab, out: Report) -> None:
    settings = lab.cfg.report.samples
    split = lab.test_images.take(settings.examples)
    attacks = [lab.pgd("pgd"), PGD(Threat("l2", settings.l2_eps), settings.l2_steps)]
    found = {
        (each.run.training, f"{attack.threat.norm} {attack.threat.eps_as_written}"): sample(
            each, split, attack, lab.cfg.evaluation.seed
        )
        for each in lab.subjects([settings.model], settings.trainings, seeds=1)
        for attack in attacks
    }
    if found:
        images = split.images(slice(None)).numpy(force=True)
        out.figure("samples", figures.samples(images, split.labels.tolist(), found, lab.cfg.dataset.name))


ITEM = Item(
    name="samples",
    networks=networks,
    make=make,
    sections=(
        Section(
            "Sample adversarial examples",
            "ICLR Figure 12",
            "Perturbations of l_2 length 4 turn MNIST images of a 9 into a 7 or a 4, of an 8 into a 5 or a 3, and of "
            "a 2 into a 3.",
            figures=("samples",),
        ),
    ),
)
