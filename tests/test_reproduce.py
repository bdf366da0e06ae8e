"""What reproduce.py plans, and that it survives being killed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import ROOT, TINY, Run, killed_after, lab_of, load_script, refused
from hydra import compose, initialize_config_dir

from saddlepoint import paper
from saddlepoint.build import build
from saddlepoint.compose import CONFIGS
from saddlepoint.files import read_arrays, read_json
from saddlepoint.lab import Network


def planned(*overrides: str, items: Sequence[str] | None = None) -> list[Network]:
    with lab_of(*overrides) as lab:
        return paper.planned(lab, paper.items_named(items))


def test_everything_on_digits_needs_these_networks() -> None:
    grid = {(m, t, seed) for m in ("simple", "wide") for t in ("standard", "fgsm", "pgd") for seed in (0, 1)}
    methods = {("wide", training, 0) for training in ("static", "fgsm_rs", "trades")}
    plan = planned()
    assert set(plan) == grid | methods | {("architecture_b", "standard", 0)}
    assert len(set(plan)) == len(plan)


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10"])
def test_the_sources_of_black_box_examples_are_planned(dataset: str) -> None:
    plan = planned(f"dataset={dataset}", items=["adversaries"])
    assert {("wide", "pgd", 0), ("wide", "pgd", 1)} < set(plan)
    assert (("architecture_b", "standard", 0) in plan) == (dataset != "cifar10")
    assert (("wide", "standard", 1) in plan) == (dataset != "mnist")


def test_one_model_chosen_is_the_only_one_trained() -> None:
    assert {model for model, _, _ in planned("dataset=cifar10", "models=[simple]")} == {"simple"}
    assert {model for model, _, _ in planned("dataset=cifar10")} == {"simple", "wide"}
    chosen = planned("dataset=mnist", "models=[simple,capacity2]")
    assert {model for model, _, _ in chosen} == {"simple", "capacity2", "architecture_b"}


def test_an_item_needs_every_seed_and_what_its_trainings_wait_for() -> None:
    pgd = planned("models=[simple]", "trainings=[pgd]", "seeds=2", items=["accuracy"])
    assert pgd == [("simple", "pgd", 0), ("simple", "pgd", 1)]
    static = planned("models=[simple]", "trainings=[static]", items=["accuracy"])
    assert set(static) == {("simple", "static", 0), ("simple", "standard", 0)}
    assert planned("seeds=3", items=["samples"]) == [("wide", "standard", 0), ("wide", "pgd", 0)]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("items=[epsilom]", "did you mean epsilon?"),
        ("items=adversaries", "[adversaries]"),
        ("items=[]", "accuracy, adversaries"),
        ("report.epsilon.trainings=pgd", "report.epsilon.trainings=pgd"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(setting: str, named: str, command: Run, tmp_path: Path) -> None:
    assert refused(command("scripts/reproduce.py", setting, f"output_dir={tmp_path}"), named)
    assert not list(tmp_path.iterdir())


def test_one_item_is_made_with_the_networks_it_needs(command: Run, tmp_path: Path) -> None:
    chosen = ["items=[samples]", "models=[simple]", "report.samples.trainings=[pgd]", "report.samples.l2_steps=2"]
    arguments = [*TINY, *chosen, "report.samples.examples=3", "attacks.pgd.steps=2", f"output_dir={tmp_path}"]
    outcome = command("scripts/reproduce.py", *arguments)
    assert (outcome.status, outcome.err) == (0, "")
    (trained,) = tmp_path.rglob("training.json")
    assert trained.parent.parent.name.startswith("simple-pgd")
    assert outcome.out.count("measuring") == 2
    (path,) = tmp_path.rglob("samples.json")
    chart = read_json(path)
    assert [len(row) for row in chart["rows"]] == [3] * 5  # images, and two for each norm
    made_again = shlex.split(chart["command"])
    assert made_again[1] == "scripts/reproduce.py" and made_again[-1] == "items=[samples]"
    (page,) = tmp_path.rglob("index.html")
    assert 'id="samples"' in page.read_text()
    linf, l2 = (read_arrays(next(tmp_path.rglob(f"last-samples-{norm}-*.npz"))) for norm in ("linf", "l2"))
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        images = build(compose("evaluate").dataset.data).test.take(3).images(slice(None)).numpy()
    assert abs(linf["images"] - images).max() == pytest.approx(0.25)
    assert ((l2["images"] - images) ** 2).sum((1, 2, 3)) ** 0.5 == pytest.approx(2, abs=0.5)
    again = command("scripts/reproduce.py", *arguments)
    assert again.status == 0 and "measuring" not in again.out and "\ntrained" not in again.out


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_end(tmp_path: Path) -> None:
    """As a power cut would, once while it trains and once while it measures."""
    small = ["recipe.steps=100", "recipe.evaluations=10", "recipe.monitor.steps=2", "recipe.monitor.examples=20"]
    starts = ["landscape.examples=2", "landscape.starts=2", "landscape.histogram_starts=20", "attacks.pgd_100.steps=5"]
    chosen = ["models=[simple]", "trainings=[pgd]", "landscape.trainings=[pgd]", "runtime.threads=1"]
    chosen.append("items=[accuracy,landscape]")

    command = ["scripts/reproduce.py", *chosen, *small, *starts]
    killed_after("history.csv", tmp_path, *command, f"output_dir={tmp_path}/killed")
    assert not list((tmp_path / "killed").rglob("training.json"))
    killed_after("last-trajectories-*.npz", tmp_path, *command, f"output_dir={tmp_path}/killed")
    assert not list((tmp_path / "killed").rglob("index.html"))
    for folder in ("killed", "whole"):
        arguments = [sys.executable, *command, f"output_dir={tmp_path}/{folder}"]
        subprocess.run(arguments, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    killed, whole = (load_script("scripts/dev/soak.py").left_by(tmp_path / name) for name in ("killed", "whole"))
    kept = (".safetensors", "history.csv", ".npz", ".md")
    compared = [name for name in whole if name.endswith(kept) or "/results/" in name]
    names = {re.sub("-[0-9a-f]{6}(?=[.])", "", Path(name).name) for name in compared}
    assert {"last.safetensors", "history.csv", "last-maxima-1.npz", "last-pgd.json", "accuracy.md"} <= names
    for name in compared:
        assert killed[name] == whole[name], name
