"""A disk that fills up: a clear error, nothing lost, and on with it once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Outcome, run

from saddlepoint.errors import InputError
from saddlepoint.files import read_json, write_json
from saddlepoint.training.checkpoint import RunDirectory

SETTINGS = [
    "model=wide",
    "training=standard",
    "recipe.steps=60",
    "recipe.evaluations=6",
    "recipe.monitor.steps=1",
    "recipe.monitor.examples=20",
    "runtime.threads=1",
    "logger=none",
]

Train = Callable[[Path], Outcome]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB; the weights have 1.6 MB, a state some five times that."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system, and not in every container")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Train:
    return lambda folder: run("train.py", *SETTINGS, f"output_dir={folder}", capsys=capsys, monkeypatch=monkeypatch)


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def test_a_full_disk_costs_nothing_but_time(small_disk: Path, tmp_path: Path, train: Train) -> None:
    assert train(tmp_path / "whole").status == 0
    (size,) = (path.stat().st_size for path in (tmp_path / "whole").rglob("last.safetensors"))
    filler, steps = small_disk / "somebody else's", []
    for room in (0, size // 2, 2 * size, 5 * size, 7 * size):  # it fails in one write after another
        filler.unlink(missing_ok=True)
        filler.write_bytes(bytes(max(0, free(small_disk) - room)))
        outcome = train(small_disk / "out")
        assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
        assert "No space left on device" in outcome.err
        assert not list(small_disk.rglob("*.part"))
        for path in small_disk.rglob("state.pt"):
            state = RunDirectory(path.parent).read_state()
            assert state is not None
            steps.append(state["step"])
    assert steps and steps == sorted(steps)  # what there was is intact
    filler.unlink()
    assert train(small_disk / "out").status == 0
    for name in ("last.safetensors", "best.safetensors", "history.csv"):
        (cramped,), (whole,) = small_disk.rglob(name), (tmp_path / "whole").rglob(name)
        assert cramped.read_bytes() == whole.read_bytes(), name


def test_a_full_disk_leaves_earlier_results(small_disk: Path) -> None:
    path = small_disk / "results" / "last-pgd.json"
    write_json(path, {"accuracy": 0.5})
    (small_disk / "filler").write_bytes(bytes(free(small_disk)))
    with pytest.raises(InputError, match="No space left on device"):
        write_json(path, {"accuracy": "0" * 10_000})
    assert read_json(path) == {"accuracy": 0.5}
    assert [each.name for each in path.parent.iterdir()] == [path.name]
