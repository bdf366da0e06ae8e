"""A sweep logged offline, read back from W&B's own files as its dashboard would show it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import wandb
from command_line import Outcome, run
from wandb_files import Logged

from saddlepoint.data import Batches
from saddlepoint.errors import Stopped

Run = Callable[..., Outcome]
TINY = [
    "recipe.steps=8",
    "recipe.evaluations=4",
    "recipe.monitor.steps=1",
    "recipe.monitor.examples=10",
    "logger=wandb",
    "runtime.threads=1",
]
CURVES = (
    "train_loss",
    "held_out_natural",
    "held_out_robust",
    "held_out_natural_loss",
    "held_out_robust_loss",
    "learning_rate",
    "images_per_second",
)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("WANDB_MODE", "offline")
    return lambda path, *arguments: run(path, *arguments, capsys=capsys, monkeypatch=monkeypatch)


def sessions(folder: Path) -> list[Logged]:
    """Each offline run folder, in the order in which they were begun."""
    return [Logged(path) for path in sorted(folder.rglob("offline-run-*"), key=lambda path: path.stat().st_ctime_ns)]


def test_a_sweep_as_its_dashboard_shows_it(command: Run, tmp_path: Path) -> None:
    sweep = ["-m", "model=simple,wide", "training=standard,fgsm,pgd"]
    assert command("train.py", *sweep, *TINY, f"output_dir={tmp_path}").status == 0
    logged = sessions(tmp_path)
    assert len({each.run.run_id for each in logged}) == 6
    for each in logged:
        names = [each.config[key]["name"] for key in ("dataset", "model", "training", "recipe")]
        assert list(each.run.tags) == names
        assert each.run.run_group.startswith(f"{names[0]}/{names[1]}-{names[2]},")
        assert each.run.display_name.endswith("-s0")
        assert (each.run.project, each.run.job_type) == ("saddlepoint", "train")
        assert [(metric.glob_name, metric.step_metric) for metric in each.metrics] == [("*", "step")]
        curves = each.rows(*CURVES)
        assert [row["step"] for row in curves] == [2, 4, 6, 8]
        assert [row["step"] for row in each.history] == [2, 4, 6, 8, 8, 8]  # and the table and the images
        assert all(0 <= row["held_out_robust"] <= 1 and row["images_per_second"] > 0 for row in curves)
        (pictures,) = each.rows("examples.captions")
        assert pictures["examples.count"] == 8
        assert all(" natural " in text and " adversarial " in text for text in pictures["examples.captions"])
        assert pictures["examples.width"] == 3 * pictures["examples.height"]  # image, perturbation, adversarial image
        assert each.summary["training"] == names[2]
    assert {(each.config["model"]["name"], each.config["training"]["name"]) for each in logged} == {
        (model, training) for model in ("simple", "wide") for training in ("standard", "fgsm", "pgd")
    }


def test_a_failed_job_of_a_sweep_is_a_failed_run_of_its_own(command: Run, tmp_path: Path) -> None:
    sweep = ["-m", "recipe.schedule.peak=1e30,0.001", "training=standard"]
    assert command("train.py", *sweep, *TINY, f"output_dir={tmp_path}").status == 2
    failed, finished = sessions(tmp_path)
    assert failed.run.run_id != finished.run.run_id
    assert [each.config["recipe"]["schedule"]["peak"] for each in (failed, finished)] == [1e30, 0.001]
    assert [each.exit_code for each in (failed, finished)] == [1, 0]
    assert [row["step"] for row in finished.rows(*CURVES)] == [2, 4, 6, 8]
    assert failed.rows(*CURVES) == []


def test_a_measurement_joins_its_run_after_the_curves(command: Run, tmp_path: Path) -> None:
    assert command("train.py", *TINY, "training=standard", f"output_dir={tmp_path}").status == 0
    chosen = ["models=[simple]", "trainings=[standard]", "evaluation.examples=20", "attacks.pgd.steps=1"]
    assert command("scripts/accuracy_table.py", *TINY, *chosen, f"output_dir={tmp_path}").status == 0
    training, measuring = sessions(tmp_path)
    assert training.run.run_id == measuring.run.run_id
    assert training.run.run_group == measuring.run.run_group
    (table,) = measuring.rows("evaluation.nrows")
    assert table["evaluation.nrows"] == 3
    assert table["step"] == 8
    assert table["_step"] > max(row["_step"] for row in training.history)  # behind the training's rows, never over them
    assert {"last/natural", "last/fgsm", "last/pgd"} <= set(measuring.summary)


def test_the_figures_join_the_run_of_their_report(command: Run, tmp_path: Path) -> None:
    assert command("train.py", *TINY, f"output_dir={tmp_path}").status == 0
    few = ["report.methods.model=simple", "report.filters.model=simple", "report.filters.trainings=[pgd]"]
    for script in ("training_curves", "filters"):
        assert command(f"scripts/{script}.py", *TINY, *few, f"output_dir={tmp_path}").status == 0
    _, curves, _, filters = sessions(tmp_path)  # curves are of two items
    assert curves.run.run_id == filters.run.run_id
    assert (curves.run.job_type, curves.run.display_name) == ("report", curves.run.run_group.removeprefix("digits/"))
    shown = [curves.rows("training_loss.captions"), filters.rows("filters.captions")]
    assert [row["training_loss.captions"] for row in shown[0]] == [["training_loss"]]
    assert [row["filters.captions"] for row in shown[1]] == [["filters"]]
    assert max(row["_step"] for row in curves.history) < min(row["_step"] for row in filters.history)


def test_a_resumed_run_goes_on_where_its_curves_stopped(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = Batches.next

    def interrupted(batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
        interrupted.calls += 1  # type: ignore[attr-defined]
        if interrupted.calls > 5:  # type: ignore[attr-defined]
            raise Stopped(signal.SIGINT)
        return following(batches)

    interrupted.calls = 0  # type: ignore[attr-defined]
    arguments = [*TINY, "training=standard", f"output_dir={tmp_path}"]
    monkeypatch.setattr(Batches, "next", interrupted)
    assert command("train.py", *arguments).status == 130
    wandb.finish()  # as when the process ends
    monkeypatch.setattr(Batches, "next", following)
    assert command("train.py", *arguments).status == 0
    (run_directory,) = (path.parent for path in tmp_path.rglob("training.json"))
    identity = (run_directory / "wandb.id").read_text()
    assert {each.run.run_id for each in sessions(tmp_path)} == {identity}
    rows = [row for each in sessions(tmp_path) for row in each.rows(*CURVES)]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    positions = [row["_step"] for row in rows]
    assert positions == sorted(set(positions))


def test_leet_shows_the_curves_against_the_training_step(command: Run, tmp_path: Path) -> None:
    assert command("train.py", *TINY, "training=standard", f"output_dir={tmp_path}").status == 0
    (folder,) = tmp_path.rglob("wandb")
    expected = {b"[x: step]", b"held_out_robust", b"Tags:", b"Finished"}
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-m", "wandb", "leet", str(folder)])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 45, 140, 0, 0))
    seen, deadline = b"", time.monotonic() + 60
    try:
        while time.monotonic() < deadline and not all(each in seen for each in expected):
            if select.select([terminal], [], [], 0.5)[0]:
                seen += os.read(terminal, 65536)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)
    assert {each for each in expected if each not in seen} == set()
