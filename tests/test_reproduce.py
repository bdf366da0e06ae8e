"""How reproduce.py spreads its trainings, with processes and GPUs that only pretend."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from command_line import ROOT, load_script
from hydra import compose, initialize_config_dir

from saddlepoint.config import CONFIGS
from saddlepoint.errors import InputError
from saddlepoint.runtime import visible_gpus


@pytest.fixture
def reproduce(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    script = load_script("scripts/reproduce.py")
    monkeypatch.setattr(script.time, "sleep", lambda seconds: None)
    return script


class Pretended:
    """A training that ends after `turns` looks at it."""

    running: list[Pretended]
    ready = True
    history: list[tuple[str, str | None, int]]

    def __init__(self, name: str, turns: int, fails: bool = False) -> None:
        self.directory = SimpleNamespace(path=Path(name), finished=False)
        self.turns, self.cost, self.done, self.fails = turns, turns, 0.0, fails
        self.gpu: str | None = None
        self.process = SimpleNamespace(terminate=lambda: self.history.append((f"{name} stopped", None, 0)), wait=int)

    def start(self, threads: int | None, gpu: str | None) -> None:
        self.gpu = gpu
        self.running.append(self)
        sharing = sum(other.gpu == gpu for other in self.running)
        self.history.append((str(self.directory.path), gpu, sharing))

    def ended(self) -> bool:
        self.turns -= 1
        if self.fails and self.turns == 0:
            raise InputError(f"{self.directory.path} failed")
        if self.turns == 0:
            self.running.remove(self)
        return self.turns == 0


@pytest.fixture(autouse=True)
def _history() -> None:
    Pretended.running, Pretended.history = [], []


def test_one_model_chosen_is_the_only_one_trained(reproduce: ModuleType) -> None:
    def planned(*overrides: str) -> set[str]:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return {model for model, _, _ in reproduce.networks(compose("evaluate", list(overrides)))}

    assert planned("dataset=cifar10", "models=[simple]") == {"simple"}
    assert planned("dataset=cifar10") == {"simple", "wide"}
    assert planned("dataset=mnist", "models=[simple,capacity2]") == {"simple", "capacity2", "architecture_b"}


def test_each_gpu_gets_one_training(reproduce: ModuleType) -> None:
    plan = [Pretended(f"run{turns}", turns) for turns in (5, 4, 3, 2, 1, 1)]
    reproduce.train(plan, 3, None, ["0", "1", "7"])
    assert [gpu for _, gpu, _ in Pretended.history[:3]] == ["0", "1", "7"]  # the longest first, one each
    assert {sharing for _, _, sharing in Pretended.history} == {1}
    assert len(Pretended.history) == 6
    assert Pretended.history[3][1] == "7"  # the first that is free again


def test_more_jobs_than_gpus_share_evenly(reproduce: ModuleType) -> None:
    reproduce.train([Pretended(f"run{index}", 3) for index in range(4)], 4, None, ["0", "1"])
    assert [gpu for _, gpu, _ in Pretended.history] == ["0", "1", "0", "1"]


def test_without_gpus_none_is_named(reproduce: ModuleType) -> None:
    reproduce.train([Pretended(f"run{index}", 1) for index in range(3)], 2, 1, [])
    assert [gpu for _, gpu, _ in Pretended.history] == [None] * 3


def test_a_failure_stops_the_others(reproduce: ModuleType) -> None:
    with pytest.raises(InputError, match="bad failed"):
        reproduce.train([Pretended("long", 9), Pretended("bad", 2, fails=True)], 2, None, [])
    assert Pretended.history[-2:] == [("long stopped", None, 0), ("bad stopped", None, 0)]


def test_a_child_sees_its_gpu_alone(reproduce: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = object.__new__(reproduce.Training)
    training.directory = SimpleNamespace(path=tmp_path)
    training.command = ["-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"]
    training.start(None, "7")
    assert training.process.wait() == 0
    assert (tmp_path / "train.log").read_text() == "7\n"


@pytest.mark.parametrize(
    ("environment", "count", "names"),
    [
        (None, 0, []),
        (None, 2, ["0", "1"]),
        ("2,3", 2, ["2", "3"]),
        ("GPU-ab, GPU-cd", 2, ["GPU-ab", "GPU-cd"]),
        ("", 0, []),
        ("0,1,9", 2, ["0", "1"]),  # CUDA stops at the first that is not there
    ],
)
def test_visible_gpus(monkeypatch: pytest.MonkeyPatch, environment: str | None, count: int, names: list[str]) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if environment is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", environment)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert visible_gpus() == names


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
    killed, whole = (load_script("scripts/soak.py").left_by(tmp_path / name) for name in ("killed", "whole"))
    kept = (".safetensors", "history.csv", ".npz", ".md")
    compared = [name for name in whole if name.endswith(kept) or "/results/" in name]
    assert {"last.safetensors", "history.csv", "last-maxima-1.npz", "last-pgd.json", "accuracy.md"} <= {
        Path(name).name for name in compared
    }
    for name in compared:
        assert killed[name] == whole[name], name
