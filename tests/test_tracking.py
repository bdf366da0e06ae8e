from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image
from wandb_files import Logged

from saddlepoint.tracking import Tracker, Wandb

CONFIG = {
    "seed": 3,
    "dataset": {"name": "digits"},
    "model": {"name": "wide"},
    "training": {"name": "pgd"},
    "recipe": {"name": "fast"},
    "threat": {"eps": "4/16"},
}


class Broken:
    """A W&B run that fails in everything."""

    def __init__(self) -> None:
        self.calls = 0
        self.summary = self

    def fail(self, *arguments: object, **options: object) -> None:
        self.calls += 1
        raise ConnectionError("the network is down")

    log = finish = update = fail


def use_all(tracker: Tracker) -> None:
    tracker.log(1, {"loss": 0.5})
    tracker.images(1, "examples", lambda: (np.zeros((1, 2, 2, 1)), ["a"]))
    tracker.table("accuracy", [{"a": 1}])
    tracker.finish({"loss": 0.5})
    tracker.abandon()


@pytest.mark.parametrize("first", ["log", "images", "table", "finish", "abandon"])
def test_a_failure_is_said_once_and_never_raised(caplog: pytest.LogCaptureFixture, first: str) -> None:
    tracker, run = Wandb("saddlepoint", "offline"), Broken()
    tracker.run = run
    arguments: dict[str, tuple[Any, ...]] = {
        "log": (1, {"loss": 0.5}),
        "images": (1, "examples", lambda: (np.zeros((1, 2, 2, 3)), ["a"])),
        "table": ("accuracy", [{"a": 1}]),
        "finish": ({"loss": 0.5},),
        "abandon": (),
    }
    with caplog.at_level(logging.WARNING):
        getattr(tracker, first)(*arguments[first])
        use_all(tracker)
    assert [record.getMessage() for record in caplog.records] == [
        "W&B is off from here on (ConnectionError: the network is down); history.csv stays complete"
    ]
    assert run.calls == 1


def test_a_failure_to_start_is_said_once_and_never_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb, "init", Broken().fail)
    tracker = Wandb("saddlepoint", "offline")
    with caplog.at_level(logging.WARNING):
        tracker.start(tmp_path, CONFIG)
        use_all(tracker)
    assert len(caplog.records) == 1
    assert "ConnectionError" in caplog.text


def test_quiet_and_a_tracker_that_was_not_started_do_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quiet = Tracker()
    quiet.start(tmp_path, CONFIG)
    use_all(quiet)
    use_all(Wandb("saddlepoint", "offline"))
    assert list(tmp_path.iterdir()) == []
    assert caplog.records == []


@pytest.mark.parametrize(
    ("mode", "environment", "key", "decided"),
    [
        ("auto", None, False, "offline"),
        ("auto", None, True, "online"),
        ("auto", "disabled", True, "disabled"),
        ("online", "disabled", False, "online"),
    ],
)
def test_the_mode_is_online_only_with_a_key(
    monkeypatch: pytest.MonkeyPatch, mode: str, environment: str | None, key: bool, decided: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if environment is not None:
        monkeypatch.setenv("WANDB_MODE", environment)
    monkeypatch.setattr(wandb, "login", lambda prompt: key)  # the real one asks the server
    assert Wandb("saddlepoint", mode)._decide() == decided


def test_an_offline_run_is_named_grouped_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    directory = tmp_path / "digits" / "wide-pgd-fast" / "seed3"
    directory.mkdir(parents=True)
    tracker = Wandb("saddlepoint", "offline")
    tracker.start(directory, CONFIG)
    run = tracker.run
    assert run is not None
    assert (run.project, run.group, run.name, run.job_type) == (
        "saddlepoint",
        "digits/wide-pgd-fast",
        "wide-pgd-fast-s3",
        "train",
    )
    assert sorted(run.tags) == ["digits", "fast", "pgd", "wide"]
    assert run.config["threat"] == {"eps": "4/16"}
    tracker.log(5, {"train_loss": 0.25})
    pixels = np.array([0.0, 0.2, 0.6, 1.0]).reshape(1, 2, 2, 1)
    tracker.images(5, "examples", lambda: (pixels, ["a four"]))
    tracker.table("accuracy", [{"model": "wide", "pgd": 0.5}])
    assert (run.summary["step"], run.summary["train_loss"]) == (5, 0.25)
    tracker.finish({"best_step": 5})
    (folder,) = (directory / "wandb").glob("offline-run-*")
    assert folder.name.endswith(run.id)
    deadline = time.monotonic() + 10  # W&B's own process writes it
    while b"best_step" not in (content := (folder / f"run-{run.id}.wandb").read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert b"train_loss" in content
    (rows,) = folder.rglob("media/table/accuracy*.table.json")
    assert json.loads(rows.read_text()) == {"columns": ["model", "pgd"], "data": [["wide", 0.5]]}
    (image,) = folder.rglob("media/images/*.png")
    assert np.asarray(Image.open(image).convert("L")).tolist() == [[0, 51], [153, 255]]

    again = Wandb("saddlepoint", "offline")
    again.start(directory, CONFIG)  # the same directory goes on with the same run
    assert again.run is not None
    assert again.run.id == run.id
    again.finish({})


def offline(directory: Path, config: dict[str, Any]) -> Wandb:
    directory.mkdir(parents=True)
    tracker = Wandb("saddlepoint", "offline")
    tracker.start(directory, config)
    assert tracker.run is not None
    return tracker


def logged(directory: Path) -> Logged:
    (folder,) = (directory / "wandb").glob("offline-run-*")
    return Logged(folder)


def test_a_sweeps_failed_jobs_are_failed_runs_of_their_own(tmp_path: Path) -> None:
    """One failure that a with statement sees, and one that nobody sees until the next job begins."""
    directories = [tmp_path / f"simple-pgd,recipe.schedule.peak={job}" / "seed3" for job in range(10)]
    for job, directory in enumerate(directories):
        tracker = offline(directory, CONFIG)
        try:
            with tracker:
                tracker.log(1, {"job": job})
                if job == 2:
                    raise FloatingPointError
        except FloatingPointError:
            assert tracker.run is None
            assert wandb.run is None
        if job not in (2, 6):
            tracker.log(2, {"job": job})
            tracker.finish({})
            assert tracker.run is None
    runs = [logged(directory) for directory in directories]
    assert [each.exit_code for each in runs] == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    assert len({each.run.run_id for each in runs}) == 10
    steps = [[(row["step"], row["job"]) for row in each.rows("job")] for each in runs]
    assert steps == [[(1, job)] if job in (2, 6) else [(1, job), (2, job)] for job in range(10)]


def test_names_and_tags_are_what_the_server_takes(tmp_path: Path) -> None:
    """It refuses tags of more than 64 characters and names of more than 128. Different ones stay different."""
    found = []
    for end in "ab":
        name = "m" * 90 + end
        directory = tmp_path / f"{name}-pgd,recipe.schedule.peak=0.00{end}{'0' * 60}" / "seed12"
        offline(directory, CONFIG | {"seed": 12, "model": {"name": name}, "recipe": {"name": ""}}).finish({})
        found.append(logged(directory).run)
    for run in found:
        assert len(run.display_name) == len(run.run_group) == 128
        assert run.display_name.endswith("-s12")
        assert sorted(map(len, run.tags)) == [3, 6, 64]
        assert run.run_group.startswith("digits/mmm")
    assert len({run.display_name for run in found}) == len({run.run_group for run in found}) == 2
    assert set(found[0].tags) & set(found[1].tags) == {"digits", "pgd"}
