"""What reproduce.py plans, and that it survives being killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import ROOT, load_script
from hydra import compose, initialize_config_dir

from saddlepoint.config import CONFIGS
from saddlepoint.errors import InputError


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

    def begin(folder: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "scripts/reproduce.py", *chosen, *small, *starts, f"output_dir={folder}"]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def killed_when(folder: Path, found: str) -> None:
        process = begin(folder)
        while process.poll() is None and not list(folder.rglob(found)):
            time.sleep(0.02)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    killed_when(tmp_path / "killed", "history.csv")
    assert not list((tmp_path / "killed").rglob("training.json"))
    killed_when(tmp_path / "killed", "last-trajectories.npz")
    assert not list((tmp_path / "killed").rglob("index.html"))
    for folder in (tmp_path / "killed", tmp_path / "whole"):
        process = begin(folder)
        _, err = process.communicate()
        assert process.returncode == 0, err.decode()
    killed, whole = (load_script("scripts/dev/soak.py").left_by(tmp_path / name) for name in ("killed", "whole"))
    kept = (".safetensors", "history.csv", ".npz", ".md")
    compared = [name for name in whole if name.endswith(kept) or "/results/" in name]
    assert {"last.safetensors", "history.csv", "last-maxima-1.npz", "last-pgd.json", "accuracy.md"} <= {
        Path(name).name for name in compared
    }
    for name in compared:
        assert killed[name] == whole[name], name


def test_scripts_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce = load_script("scripts/reproduce.py")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "digits" / "report").mkdir(parents=True)
    reproduce.run("report", "outputs/digits/report")
    assert (tmp_path / "outputs" / "digits" / "report" / "index.html").exists()
    with pytest.raises(InputError, match=r"^scripts/report\.py failed; its message is above$"):
        reproduce.run("report", "outputs/mnist/report")
