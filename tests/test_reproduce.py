"""What reproduce.py plans, and that it survives being killed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, killed_after, load_script
from hydra import compose, initialize_config_dir

from saddlepoint.errors import InputError
from saddlepoint.runs import CONFIGS


def test_one_model_chosen_is_the_only_one_trained() -> None:
    reproduce = load_script("scripts/reproduce.py")

    def planned(*overrides: str) -> set[str]:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return {model for model, _, _ in reproduce.networks(compose("evaluate", list(overrides)))}

    assert planned("dataset=cifar10", "models=[simple]") == {"simple"}
    assert planned("dataset=cifar10") == {"simple", "wide"}
    assert planned("dataset=mnist", "models=[simple,capacity2]") == {"simple", "capacity2", "architecture_b"}


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_end(tmp_path: Path) -> None:
    """As a power cut would, once while it trains and once while it measures."""
    small = ["recipe.steps=100", "recipe.evaluations=10", "recipe.monitor.steps=2", "recipe.monitor.examples=20"]
    starts = ["landscape.examples=2", "landscape.starts=2", "landscape.histogram_starts=20", "landscape.attack.steps=5"]
    chosen = ["models=[simple]", "trainings=[pgd]", "extras=false", "runtime.threads=1"]

    command = ["scripts/reproduce.py", *chosen, *small, *starts]
    killed_after("history.csv", tmp_path, *command, f"output_dir={tmp_path}/killed")
    assert not list((tmp_path / "killed").rglob("training.json"))
    killed_after("last-trajectories.npz", tmp_path, *command, f"output_dir={tmp_path}/killed")
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


def test_scripts_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce = load_script("scripts/reproduce.py")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "digits" / "report").mkdir(parents=True)
    reproduce.run("report", "outputs/digits/report")
    assert (tmp_path / "outputs" / "digits" / "report" / "index.html").exists()
    with pytest.raises(InputError, match=r"scripts/report\.py"):
        reproduce.run("report", "outputs/mnist/report")
