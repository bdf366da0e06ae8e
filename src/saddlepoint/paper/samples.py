"""ICLR Figure 12: adversarial examples as pictures, of the natural and the robust network, in both norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from saddlepoint.attacks import PGD, described
from saddlepoint.lab import Lab, Measurement
from saddlepoint.measure.result import Key
from saddlepoint.measure.samples import adversarial_images
from saddlepoint.measure.subject import Arrays, Subject
from saddlepoint.paper.item import Item, Shown
from saddlepoint.show.charts import Chart, Image, Panel
from saddlepoint.show.names import title
from saddlepoint.show.page import Section
from saddlepoint.threat import Threat

Place = tuple[str, str]  # training method, attack in words


def needs(lab: Lab) -> dict[Place, list[Measurement[Arrays]]]:
    settings = lab.cfg.report.samples
    attacks = [lab.pgd("pgd"), PGD(Threat("l2", settings.l2_eps), settings.l2_steps)]
    return {
        (training, f"{attack.threat.norm} {attack.threat.eps_as_written}"): [
            Measurement((settings.model, training, 0), partial(sample, attack=attack))
        ]
        for training in settings.trainings
        for attack in attacks
    }


def sample(lab: Lab, subject: Subject, _: Subject | None, *, attack: PGD) -> Arrays:
    """Adversarial images (n, c, h, w), and the classes before and after (n,)."""
    split, seed = lab.test_images.take(lab.cfg.report.samples.examples), lab.cfg.evaluation.seed
    key = Key(f"samples-{attack.threat.norm}", attack=described(attack), examples=len(split), seed=seed)
    return subject.arrays(key, lambda: adversarial_images(subject.model, split, attack, seed))


def show(found: Mapping[Place, Sequence[Arrays]], lab: Lab) -> Shown:
    split = lab.test_images.take(lab.cfg.report.samples.examples)
    trained = {place: arrays for place, each in found.items() for arrays in each}
    if trained:
        images = split.images(slice(None)).numpy(force=True)
        yield "samples", samples(images, split.labels.tolist(), trained, lab.cfg.dataset.name)


def samples(
    images: np.ndarray, labels: Sequence[int], found: Mapping[tuple[str, str], Mapping[str, np.ndarray]], dataset: str
) -> Chart:
    """ICLR Figure 12: images, then a row of perturbations and one of adversarial images for each network and attack.

    Args:
        images: (n, c, h, w) in [0, 1], of the classes `labels`.
        found: (training, attack in words) -> images (n, c, h, w), and classes before and after (n,).
    """

    def row(name: str, pictures: np.ndarray, captions: Sequence[str]) -> list[Panel]:
        shown = [picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0) for picture in pictures]
        return [
            Panel(image=Image(pixels), x=caption, y=name if column == 0 else "")
            for column, (pixels, caption) in enumerate(zip(shown, captions, strict=True))
        ]

    rows = [row("image", images, [f"class {label}" for label in labels])]
    for (training, attack), arrays in found.items():
        delta = arrays["images"] - images
        full = np.abs(delta).max(axis=(1, 2, 3), keepdims=True).clip(min=1e-12)
        changes = [f"{one} → {other}" for one, other in zip(arrays["before"], arrays["after"], strict=True)]
        rows.append(row(f"{title(training)}\n{attack}", 0.5 + delta / (2 * full), [""] * len(images)))
        rows.append(row("adversarial", arrays["images"], changes))
    return Chart(
        f"{dataset}: adversarial examples",
        rows,
        size=(1.5, 1.5),
        caption="Figure 12 (ICLR). Perturbations (grey is no change, each scaled to its largest) and adversarial "
        "images, with the predicted class before and after. The paper: within l2 4, on MNIST, people misclassify them "
        "too.",
    )


ITEM = Item(
    name="samples",
    needs=needs,
    show=show,
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
