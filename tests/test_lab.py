"""What a Lab hands to a measurement, without a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import lab_of

from saddlepoint.lab import Lab, Measurement
from saddlepoint.measure.subject import Subject
from saddlepoint.training.checkpoint import write_weights


def trained(lab: Lab, *network: Any, **biases: float) -> None:
    """A finished run with a checkpoint for each of `biases`, told apart by their networks' last bias."""
    run = lab.run(*network)
    run.claim(run.definition, overwrite=False)
    for checkpoint, bias in biases.items():
        model = run.network()
        with torch.no_grad():
            model.fc2.bias.fill_(bias)
        write_weights(run.directory.weights(checkpoint), model, {"dataset": "digits"})
    run.directory.finish(
        {
            "dataset": "digits",
            "model": network[0],
            "training": network[1],
            "recipe": "paper",
            "seed": str(network[2]),
            "train_loss": 0.5,
        }
    )


def test_every_checkpoint_is_measured_on_its_own_weights(tmp_path: Path) -> None:
    with lab_of(f"output_dir={tmp_path}") as lab:
        trained(lab, "simple", "pgd", 0, last=1.0, best=2.0)

        def bias(_: Lab, subject: Subject, __: Subject | None) -> tuple[str, float]:
            return subject.checkpoint, subject.model.fc2.bias[0].item()

        found = [
            lab.measure(Measurement(("simple", "pgd", 0), bias, checkpoint=each)) for each in (None, "best", "last")
        ]
    assert found == [("last", 1.0), ("best", 2.0), ("last", 1.0)]


def test_without_its_source_nothing_is_measured(tmp_path: Path) -> None:
    with lab_of(f"output_dir={tmp_path}") as lab:
        trained(lab, "simple", "pgd", 0, last=1.0)
        wanted = Measurement(("simple", "pgd", 0), lambda *_: pytest.fail("measured"), source=("simple", "pgd", 1))
        assert lab.measure(wanted) is None
        assert [path.name for path in lab.missing] == ["seed1"]


def test_a_measurement_gets_the_settings_of_the_evaluation(tmp_path: Path) -> None:
    settings = [
        "evaluation.seed=7",
        "evaluation.batch_size=9",
        "evaluation.examples=40",
        "evaluation.precision=bfloat16",
    ]
    asked: list[tuple[Any, ...]] = []

    class Asked:
        def accuracy(self, name: str, attack: Any, split: Any, total: int, **settings: Any) -> None:
            asked.append((name, len(split), total, settings))

    with lab_of(*settings, "++report.at_most.pgd=30") as lab:
        other: Any = Asked()
        for examples, limited in ((None, True), (None, False), (20, True)):
            lab.accuracy(other, "pgd", None, other, examples, limited)
        test = lab.data.test
        assert torch.equal(lab.test_images.pixels, test.pixels[:40])
    common = {"batch_size": 9, "seed": 7, "precision": "bfloat16", "source": other}
    assert asked == [("pgd", count, 500, common) for count in (30, 40, 20)]


@pytest.mark.parametrize(
    ("setting", "comparable"),
    [
        ("models=[wide]", True),
        ("evaluation.examples=10", True),
        ("report.methods.attacks=[natural]", True),
        ("threat.eps=0.1", False),
        ("attacks.pgd.steps=1", False),
        ("report.sources.A_prime.seed=2", False),
        ("report.epsilon.steps=7", False),
        ("recipe.steps=9", False),
    ],
)
def test_numbers_compare_with_the_papers_where_training_and_attacks_are_ours(setting: str, comparable: bool) -> None:
    with lab_of("dataset=mnist", setting) as lab:
        assert lab.comparable == comparable
