"""Every shipped option composes and builds, and the defaults are the paper's."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from saddlepoint.attacks import PGD
from saddlepoint.build import build
from saddlepoint.compose import CONFIGS
from saddlepoint.runs import Run
from saddlepoint.training import Monitor


def composed(*overrides: str, name: str = "train") -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(name, list(overrides))


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("dataset", "training", "recipe"),
    list(itertools.product(options("dataset"), options("training"), options("recipe"))),
)
def test_every_combination_builds(dataset: str, training: str, recipe: str) -> None:
    cfg = composed(f"dataset={dataset}", f"training={training}", f"recipe={recipe}")
    build(cfg.training.objective)
    assert isinstance(build(cfg.monitor), Monitor)
    build(cfg.dataset.network)
    build(cfg.recipe.optimizer)
    schedule = build(cfg.recipe.schedule)
    assert 0 <= schedule(0.0) <= cfg.recipe.schedule.peak
    assert cfg.recipe.name == recipe


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group in ("model", "threat", "attack", "logger", "runtime") for option in options(group)],
)
def test_every_option_builds(group: str, option: str) -> None:
    cfg = composed(f"{group}={option}")
    if group == "logger":
        build(cfg.logger.tracker)
    elif group == "model":
        build(cfg.dataset.network)
    else:
        build(cfg[group])


@pytest.mark.parametrize("dataset", options("dataset"))
def test_evaluation_builds(dataset: str) -> None:
    cfg = composed(f"dataset={dataset}", name="evaluate")
    attacks = {name: build(attack) for name, attack in cfg.attacks.items()}
    measured = {*cfg.evaluation.attacks, *cfg.report.white_box, *cfg.report.transfer, *cfg.report.methods.attacks}
    measured |= {name for row in cfg.report.adversaries.values() for name in row}
    assert measured - {"natural"} <= set(attacks)
    assert (attacks["fgsm"].steps, attacks["fgsm"].alpha, attacks["fgsm"].random_start) == (
        1,
        attacks["fgsm"].threat.eps,
        False,
    )
    assert attacks[cfg.landscape.attack].steps == 100


def training_attack(*overrides: str) -> PGD:
    attack: Any = build(composed(*overrides).training.objective).attack
    assert isinstance(attack, PGD)
    return attack


def test_paper_mnist() -> None:
    cfg = composed("dataset=mnist", "model=wide")
    assert (cfg.recipe.name, cfg.training.name) == ("paper", "pgd")
    assert (cfg.recipe.steps, cfg.recipe.batch_size, cfg.recipe.reduction) == (100_000, 50, "sum")
    assert build(cfg.recipe.schedule)(0.7) == 1e-4
    attack = training_attack("dataset=mnist", "model=wide")
    assert (attack.threat.eps, attack.steps, attack.alpha, attack.random_start) == (0.3, 40, 0.01, True)
    assert cfg.dataset.data.held_out == 5000


def test_paper_cifar10() -> None:
    cfg = composed("dataset=cifar10", "model=wide")
    assert (cfg.recipe.steps, cfg.recipe.batch_size, cfg.recipe.weight_decay) == (80_000, 128, 2e-4)
    schedule = build(cfg.recipe.schedule)
    rates = [schedule(step / 80_000) for step in (0, 39_999, 40_000, 59_999, 60_000, 79_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    attack = training_attack("dataset=cifar10", "model=wide")
    assert (attack.steps, attack.alpha, attack.model_mode) == (7, 2 / 255, "track")
    assert attack.describe()["eps"] == "8/255"
    assert cfg.dataset.augmentation.padding == 2
    evaluation = composed("dataset=cifar10", name="evaluate")
    pgd = build(evaluation.attacks.pgd)
    assert (pgd.steps, pgd.alpha) == (20, 2 / 255)


def test_fgsm_training_is_one_full_step_from_the_image() -> None:
    attack = training_attack("dataset=cifar10", "training=fgsm")
    assert (attack.steps, attack.alpha, attack.random_start) == (1, 8 / 255, False)


def test_eps_is_written_once() -> None:
    cfg = composed("threat.eps=3/32", "training=fgsm")
    attack = build(cfg.training.objective).attack
    assert attack.threat.eps == attack.alpha == build(cfg.monitor).attack.threat.eps == 3 / 32
    assert attack.describe()["eps"] == "3/32"


def test_the_command_line_reaches_the_training_attack() -> None:
    attack = training_attack("attack.steps=11", "attack.step_size=1/64", "threat=l2")
    assert (attack.steps, attack.alpha, attack.threat.norm) == (11, 1 / 64, "l2")


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_composes_and_builds(name: str) -> None:
    """In train.py and in the scripts; and its runs are those that the same choices typed by hand would make."""
    cfg, scripts = composed(f"experiment={name}"), composed(f"experiment={name}", "recipe=fast", name="evaluate")
    build(cfg.dataset.network)
    build(cfg.training.objective)
    for model in scripts.models:
        assert model in options("model")
    assert set(scripts.trainings) <= set(options("training"))
    assert isinstance(build(scripts.attacks[scripts.landscape.attack]), PGD)
    by_hand = [f"{key}={cfg[key].name}" for key in ("dataset", "model", "training", "recipe")]
    assert Run.of([f"experiment={name}"]).definition == Run.of(by_hand).definition
    assert scripts.recipe.name == "fast"  # what is typed wins


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_our_files_are_read_here_as_by_users(path: Path) -> None:
    """What the tests replace makes no difference: YAML's parser in C, and that Hydra is not asked for its mode."""
    read = yaml.load(path.read_text(), yaml.loader.SafeLoader) or {}
    assert read == (yaml.load(path.read_text(), yaml.SafeLoader) or {})
    assert "mode" not in (read if path.parent.name == "hydra" else read.get("hydra") or {})
