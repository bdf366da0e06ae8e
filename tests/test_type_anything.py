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


def trace() -> None:
    raise KeyError("a")


def two_lines() -> None:
    print("error: one\nand another", file=sys.stderr)
    sys.exit(2)


def leftover() -> None:
    Path("left").touch()
    print("error: one", file=sys.stderr)
    sys.exit(2)


def refusal() -> None:
    print("error: one", file=sys.stderr)
    sys.exit(2)


@pytest.mark.parametrize(
    ("main", "fault"),
    [(trace, "KeyError: 'a'"), (two_lines, "and another"), (leftover, "left"), (refusal, None), (lambda: None, None)],
)
def test_what_counts_as_a_fault(main: Callable[[], None], fault: str | None, tmp_path: Path) -> None:
    found = anything.run(main, "any.py", [], tmp_path).fault
    assert found is None if fault is None else fault in found
