"""Running train.py and the scripts inside the test process, as a user would type them."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A training of a second: few steps, few held-out images.
TINY = [
    "recipe.steps=6",
    "recipe.evaluations=2",
    "recipe.monitor.steps=2",
    "recipe.monitor.examples=20",
    "recipe.attack.steps=2",
    "logger=none",
]


def load_script(path: str) -> ModuleType:
    """A script as a module; its main() is the command."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Hydra names the job after it
    spec.loader.exec_module(module)
    return module


class Outcome:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


def run(path: str, *arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """`python path arguments...` from the repository root."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    status = 0
    try:
        load_script(path).main()
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    finally:
        root.handlers[:], root.level = handlers, level
    captured = capsys.readouterr()
    return Outcome(status, captured.out, captured.err)
