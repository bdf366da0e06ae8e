"""Figures 1 and 2: python scripts/loss_histograms.py dataset=mnist recipe=fast landscape.histogram_starts=100000

The loss along PGD, and where it ends, from many random starts around a few test images, for the naturally and
the adversarially trained network; and what the text says of the maxima: the distances and angles between them, the
loss on the way from one to another, their perturbations and the gradient.
"""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
from omegaconf import DictConfig

from saddlepoint.attacks import PGD
from saddlepoint.cli import entry
from saddlepoint.data import Split
from saddlepoint.errors import whole
from saddlepoint.evaluation import landscape
from saddlepoint.evaluation.subject import Subject
from saddlepoint.lab import Lab
from saddlepoint.report import figures
from saddlepoint.report.tables import geometry_table, segments_table
from saddlepoint.results import Result
from saddlepoint.runs import build

log = logging.getLogger("loss_histograms")

Measured = tuple[Result, dict[str, np.ndarray]]


def measure_trajectories(subject: Subject, split: Split, attack: PGD, starts: int, seed: int) -> Measured:
    def compute() -> Measured:
        x = split.images(slice(None))
        return {}, {"losses": landscape.trajectories(subject.model, x, split.labels, attack, starts, seed)}

    key = {"attack": attack.describe(), "examples": len(split), "starts": starts, "seed": seed}
    return subject.measure_arrays("trajectories", key, compute)


def measure_maxima(
    subject: Subject, split: Split, example: int, attack: PGD, starts: int, batch_size: int, seed: int
) -> Measured:
    """Around one test image: 100,000 starts take long, and what is measured is kept."""

    def compute() -> Measured:
        x, bar = split.images(slice(None)), f"maxima around image {example}, {subject.label}"
        losses, geometry = landscape.maxima(
            subject.model, x, split.labels, example, attack, starts, batch_size=batch_size, seed=seed, progress=bar
        )
        return {"loss_median": float(np.median(losses)), "geometry": dataclasses.asdict(geometry)}, {"losses": losses}

    key = {"attack": attack.describe(), "image": example, "starts": starts, "batch_size": batch_size, "seed": seed}
    return subject.measure_arrays(f"maxima-{example}", key, compute)


def measure_segments(subject: Subject, split: Split, attack: PGD, starts: int, seed: int) -> Measured:
    def compute() -> Measured:
        x = split.images(slice(None))
        found = landscape.segments(subject.model, x, split.labels, attack, starts, seed=seed)
        losses, cosines = found["losses"], found["cosines"]
        ends = np.maximum(losses[..., 0], losses[..., -1])
        result = {
            "ends": float(losses[..., [0, -1]].mean()),
            "middle": float(losses[..., losses.shape[-1] // 2].mean()),
            "random": float(found["random"].mean()),
            "highest_at_an_end": float((losses.max(-1) <= ends * (1 + 1e-4)).mean()),
            "cosine": float(cosines.mean()),
            "negative_cosines": float((cosines < 0).mean()),
        }
        return result, found

    key = {"attack": attack.describe(), "examples": len(split), "starts": starts, "seed": seed}
    return subject.measure_arrays("segments", key, compute)


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    lab, settings, seed = Lab(cfg), cfg.landscape, cfg.evaluation.seed
    for name in ("examples", "starts", "histogram_starts"):
        whole(settings[name], f"landscape.{name}", 1 if name == "examples" else 2)  # maxima are told of in pairs
    attack, batch_size = build(settings.attack), cfg.evaluation.batch_size
    split = lab.test_images.take(settings.examples)
    paths, ends, lines, geometry, between = {}, {}, {}, [], []
    for subject in lab.subjects([settings.model], settings.trainings, seeds=1):
        training = subject.training["training"]
        paths[training] = measure_trajectories(subject, split, attack, settings.starts, seed)[1]["losses"]
        around = [
            measure_maxima(subject, split, example, attack, settings.histogram_starts, batch_size, seed)
            for example in range(len(split))
        ]
        ends[training] = np.stack([arrays["losses"] for _, arrays in around])
        geometry += [result for result, _ in around]
        result, arrays = measure_segments(subject, split, attack, settings.starts, seed)
        lines[training] = arrays["losses"]
        between.append(result)
    if not paths:
        log.info(
            "nothing to measure; train the networks with train.py, or everything with %s", lab.next_command("reproduce")
        )
        return
    dataset = cfg.dataset.name
    with lab.report() as out:
        out.figure("loss_trajectories", figures.loss_trajectories(paths, dataset))
        out.figure("loss_histograms", figures.loss_histograms(ends, dataset))
        out.figure("segments", figures.segments(lines, dataset))
        out.table("maxima", geometry_table(geometry, dataset=dataset))
        out.table("segments", segments_table(between, dataset=dataset))
    log.info("next, the accuracies: %s", lab.next_command("accuracy_table"))


if __name__ == "__main__":
    main()
