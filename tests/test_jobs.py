"""How trainings are spread over GPUs and cores, with processes and GPUs that only pretend."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from saddlepoint import jobs
from saddlepoint.errors import InputError
from saddlepoint.jobs import Training, spread, train
from saddlepoint.runtime import Runtime, visible_gpus
from saddlepoint.training.checkpoint import RunDirectory


class Pretended:
    """A training that ends after `turns` looks at it."""

    running: list[Pretended]
    after: Path | None = None
    failure: str | None = None
    done = 0.0
    history: list[tuple[str, str | None, int]]

    def __init__(self, name: str, turns: int, fails: bool = False) -> None:
        self.directory = SimpleNamespace(path=Path(name), finished=False)
        self.turns, self.cost, self.fails = turns, turns, fails
        self.gpu: str | None = None
        self.process = SimpleNamespace(
            terminate=lambda: self.history.append((f"{name} stopped", None, 0)),
            join=int,
            sentinel=Path(os.devnull).open(),  # noqa: SIM115 (which never keeps anybody waiting)
        )

    def start(self, threads: int | None, gpu: str | None) -> None:
        if not self.turns:
            raise InputError(f"cannot write to {self.directory.path}")
        self.gpu = gpu
        self.running.append(self)
        sharing = sum(other.gpu == gpu for other in self.running)
        self.history.append((str(self.directory.path), gpu, sharing))

    def leave_nothing(self) -> None:
        pass

    def ended(self) -> bool:
        self.turns -= 1
        if self.turns == 0:
            self.running.remove(self)
            self.failure = f"{self.directory.path} failed" if self.fails else None
        return self.turns == 0


@pytest.fixture(autouse=True)
def _history() -> None:
    Pretended.running, Pretended.history = [], []


def test_each_gpu_gets_one_training() -> None:
    plan = [Pretended(f"run{turns}", turns) for turns in (5, 4, 3, 2, 1, 1)]
    train(plan, 3, None, ["0", "1", "7"])
    assert [gpu for _, gpu, _ in Pretended.history[:3]] == ["0", "1", "7"]  # the longest first, one each
    assert {sharing for _, _, sharing in Pretended.history} == {1}
    assert len(Pretended.history) == 6
    assert Pretended.history[3][1] == "7"  # the first that is free again


def test_more_jobs_than_gpus_share_evenly() -> None:
    train([Pretended(f"run{index}", 3) for index in range(4)], 4, None, ["0", "1"])
    assert [gpu for _, gpu, _ in Pretended.history] == ["0", "1", "0", "1"]


def test_without_gpus_none_is_named() -> None:
    train([Pretended(f"run{index}", 1) for index in range(3)], 2, 1, [])
    assert [gpu for _, gpu, _ in Pretended.history] == [None] * 3


def test_a_failure_stops_the_others() -> None:
    with pytest.raises(InputError, match="bad failed"):
        train([Pretended("long", 9), Pretended("bad", 2, fails=True)], 2, None, [])
    assert Pretended.history[-1] == ("long stopped", None, 0)


def test_a_sweep_goes_on_after_a_failure() -> None:
    bad, good = Pretended("bad", 2, fails=True), Pretended("good", 1)
    train([bad, good], 1, None, [], keep_going=True)
    assert (bad.failure, good.failure) == ("bad failed", None)
    assert [name for name, _, _ in Pretended.history] == ["bad", "good"]


def test_what_needs_another_waits_for_it() -> None:
    static, standard, other = Pretended("static", 9), Pretended("standard", 3), Pretended("other", 1)
    static.after = standard.directory.path
    train([static, standard, other], 2, None, [])
    assert [name for name, _, _ in Pretended.history] == ["standard", "other", "static"]


def test_what_needs_another_that_nobody_trains_is_started() -> None:
    static = Pretended("static", 1)
    static.after = Path("standard")
    train([static], 2, None, [])  # and says by itself what is missing
    assert [name for name, _, _ in Pretended.history] == ["static"]


def test_one_that_cannot_start_fails_alone() -> None:
    bad, good = Pretended("bad", 0), Pretended("good", 1)
    train([bad, good], 2, None, [], keep_going=True)
    assert (bad.failure, good.failure) == ("cannot write to bad", None)


def test_the_same_run_twice_is_run_one_after_the_other() -> None:
    plan = [Pretended("run", 3), Pretended("run", 3), Pretended("other", 1)]
    train(plan, 3, None, [])
    assert [name for name, _, _ in Pretended.history] == ["run", "other", "run"]


def test_without_a_terminal_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Every look at the clock finds it a quarter of an hour later."""
    clock = iter(range(0, 36000, 900))
    monkeypatch.setattr(jobs.time, "monotonic", lambda: next(clock))
    training = Pretended("run", 4)
    monkeypatch.setattr(Pretended, "done", property(lambda self: 1 - self.turns / 4), raising=False)
    with caplog.at_level("INFO"):
        train([training], 1, None, [])  # pytest is no terminal
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("25% trained, about ")
    assert said[-1] == "trained run"


@pytest.fixture
def real(tmp_path: Path) -> Callable[..., Training]:
    """A training that runs this Python instead."""

    def made(program: str, name: str = "") -> Training:
        training = object.__new__(Training)
        training.directory, training.failure = RunDirectory(tmp_path / name), None
        training.cost, training.after = 1, None
        script = tmp_path / f"program{name}.py"
        script.write_text(program)
        training.command = [str(script), "a b"]
        return training

    return made


def test_a_child_sees_its_gpu_alone(real: Callable[..., Training], tmp_path: Path) -> None:
    training = real("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
    training.start(None, "7")
    training.process.join()
    assert training.ended()
    assert (training.failure, (tmp_path / "train.log").read_text()) == (None, "7\n")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; print('step 9'); sys.exit('error: no luck')", "no luck"),
        ("import os; print('step 9'); os.kill(os.getpid(), 9)", "ended by SIGKILL"),
        ("raise SystemExit(3)", "exit status 3"),
    ],
)
def test_why_a_child_failed(real: Callable[..., Training], tmp_path: Path, program: str, reason: str) -> None:
    (tmp_path / "train.log").write_text("of an earlier start\n")
    training = real(program)
    training.start(None, None)
    training.process.join()
    assert training.ended()
    assert training.failure == f"python {tmp_path}/program.py 'a b' failed: {reason}"


def test_those_that_had_not_begun_leave_nothing(real: Callable[..., Training], tmp_path: Path) -> None:
    """Neither the one that was refused nor the one that was stopped for it; one that had begun stays."""
    begun = real("import time; time.sleep(600)", "begun")
    (begun.directory.path / "seed0").mkdir(parents=True)
    refused, waiting = real("raise SystemExit(2)", "refused"), real("import time; time.sleep(600)", "waiting")
    with pytest.raises(InputError, match=r"refused.py 'a b' failed"):
        train([begun, waiting, refused], 3, None, [])
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["begun"]


def test_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "__post_init__", lambda self: setattr(self, "processes", SimpleNamespace(count=2)))
    with pytest.raises(InputError, match="without torchrun"):
        spread(Runtime("cpu"), None, 3)


@pytest.mark.parametrize(("jobs", "trainings", "expected"), [(None, 9, (4, 1)), (None, 1, (1, 4)), (2, 9, (2, 2))])
def test_cores_are_shared(
    monkeypatch: pytest.MonkeyPatch, jobs: int | None, trainings: int, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(4))
    assert spread(Runtime("cpu"), jobs, trainings) == (*expected, [])


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
