"""Random settings: each works, or ends in one line and writes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from command_line import ROOT, load_script

from saddlepoint.files import read_csv

anything = load_script("scripts/dev/type_anything.py")


@pytest.mark.slow
def test_thirty_cases() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/dev/type_anything.py", "--cases", "30", "--seed", "1", "--limit", "10"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_cases_depend_on_the_seed_alone() -> None:
    one, again, other = ([*islice(anything.cases(seed), 20)] for seed in (3, 3, 4))
    assert one == again != other


def test_every_kind_of_value_and_every_script_is_typed() -> None:
    found = [*islice(anything.cases(0), 3000)]
    assert {case.script for case in found} == {*anything.BEFORE}
    typed = {override for case in found for override in case.overrides}
    assert {override[0] for override in typed if override} >= {*"+~=@-"}
    assert any(override.startswith("++") for override in typed)
    assert {"model=wide", "training=trades", "foo", "--lr"} <= typed
    values = {override.partition("=")[2] for override in typed}
    assert {*anything.VALUES} <= values
    assert {len(case.overrides) for case in found} == {1, 2, 3}


def test_lines_for_seeds_until_the_time_is_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = iter(range(0, 10000, 20))  # each look at the clock is 20 s later
    monkeypatch.setattr(anything.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(anything, "command", lambda script: refusal)
    monkeypatch.setattr(anything, "prepared", lambda commands, folder: folder.mkdir())
    ended = iter([anything.Ended(1, "KeyError", ()), *[anything.Ended(2, "error: one\n", ())] * 99])
    monkeypatch.setattr(anything, "run", lambda *_: next(ended))
    arguments = ["--seed", "7", "--cases", "5", "--minutes", "3", "--write", str(tmp_path / "typed.csv")]
    monkeypatch.setattr(sys, "argv", ["type_anything.py", *arguments])
    with pytest.raises(SystemExit) as leaving:
        anything.main()
    assert leaving.value.code == 1
    rows = read_csv(tmp_path / "typed.csv")
    assert [(row["seed"], row["cases"], row["refused"], row["faults"]) for row in rows] == [
        ("7", "5", "4", "1"),
        ("8", "3", "3", "0"),
    ]
    assert all(row["machine"].startswith("CPU") and row["date"] and row["commit"] for row in rows)


def trace() -> None:
    raise KeyError("a")


def two_lines() -> None:
    print("error: one\nand another", file=sys.stderr)
    sys.exit(2)


def leftover() -> None:
    Path("left").touch()
    print("error: one", file=sys.stderr)
    sys.exit(2)


def edit() -> None:
    Path("mine").write_text("something")
    refusal()


def refusal() -> None:
    print("error: one", file=sys.stderr)
    sys.exit(2)


@pytest.mark.parametrize(
    ("main", "fault"),
    [
        (edit, "changed mine"),
        (trace, "KeyError: 'a'"),
        (two_lines, "and another"),
        (leftover, "left"),
        (refusal, None),
        (lambda: None, None),
    ],
)
def test_what_counts_as_a_fault(main: Callable[[], None], fault: str | None, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    found = anything.run(main, "any.py", [], tmp_path).fault
    assert found is None if fault is None else fault in found
