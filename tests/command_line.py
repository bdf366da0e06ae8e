"""Running train.py and the scripts inside the test process, as a user would type them."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig

from saddlepoint.compose import CONFIGS
from saddlepoint.lab import Lab

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


Run = Callable[..., Outcome]


def call(path: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """`python path arguments...` from the repository root; its exit status."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    # Hydra composes each config twice, at first to read hydra.mode alone, which only somebody's own file may set.
    if not any(argument.startswith(("--config-dir", "-cd")) for argument in arguments):
        monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        load_script(path).main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    finally:
        root.handlers[:], root.level = handlers, level
    return 0


def run(path: str, *arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """The same with what it printed."""
    status = call(path, *arguments, monkeypatch=monkeypatch)
    captured = capsys.readouterr()
    return Outcome(status, captured.out, captured.err)


@contextmanager
def lab_of(*overrides: str) -> Iterator[Lab]:
    """The Lab of `python scripts/reproduce.py overrides...`, which has loaded no data."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3", job_name="reproduce"):
        cfg = compose("evaluate", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        try:
            yield Lab(cfg)
        finally:
            HydraConfig.instance().cfg = None


def refused(outcome: Outcome, named: str) -> bool:
    """Whether a command ended with status 2 and one line, an error that names what is wrong."""
    one_line = outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    return outcome.status == 2 and one_line and named in outcome.err


# Imported by every Python process that finds it first.
DEADLY = """
import fnmatch, os, signal
replace = os.replace
def deadly(source, target, **options):
    replace(source, target, **options)
    if fnmatch.fnmatch(str(target), "*" + os.environ["KILLED_AFTER"]):
        os.killpg(0, signal.SIGKILL)
os.replace = deadly
"""


def killed_after(file: str, folder: Path, *arguments: str) -> None:
    """Run a command until it, or a process that it started, has written `file`, a pattern; kill -9 them all there.

    `folder` is for a file of this function's own. Raises AssertionError if the command ends in another way.
    """
    (folder / "sitecustomize.py").write_text(DEADLY)
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "KILLED_AFTER": file}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, start_new_session=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
