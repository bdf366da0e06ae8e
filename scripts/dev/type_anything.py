"""Type random settings into train.py and accuracy_table.py: each has to work, or to end in one line.

    python scripts/dev/type_anything.py                          200 cases
    python scripts/dev/type_anything.py --seed 7 --cases 50

A case passes if the command succeeds, or ends with status 2, one line on stderr that begins with "error: ", and no new
file. One that is still running after --limit seconds passes too: it is a long training. The last line of a fault's
stderr is printed with its overrides; the exit status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from saddlepoint.cli import settings

ROOT = Path(__file__).resolve().parents[2]
TRAIN, TABLE = "train.py", "scripts/accuracy_table.py"
TINY = (
    "recipe.steps=6",
    "recipe.evaluations=2",
    "recipe.monitor.steps=2",
    "recipe.monitor.examples=20",
    "recipe.attack.steps=2",
    "logger=none",
)
BEFORE = {
    TRAIN: TINY,
    TABLE: (*TINY, "models=[simple]", "trainings=[standard]", "evaluation.examples=20"),
}
VALUES = (
    *("nan", "inf", "-1", "0", "0.5", "1e400", "1e-400", str(10**30), "8/0", "true", "null", "text", "'a text'", "''"),
    *("[]", "[1,2]", "[[]]", "[nan]", "{}", "{a: 1}", "{a: {b: []}}", "{_target_: nowhere.Nothing}"),
    *("{_target_: builtins.dict}", "???", "${seed}", "'${nowhere}'", "é", "~"),
)


class Case(NamedTuple):
    script: str
    overrides: tuple[str, ...]


class Ended(NamedTuple):
    """How a command ended: its status (None: still running at the limit), its stderr and the files it added."""

    status: int | None
    stderr: str
    new: tuple[str, ...]

    @property
    def fault(self) -> str | None:
        """What is wrong with it; None for nothing."""
        lines = self.stderr.splitlines() or [""]
        if self.status in (0, None):
            return None
        if self.status != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
            return f"status {self.status}: {lines[-1]}"
        return f"wrote {', '.join(self.new)}" if self.new else None


def cases(seed: int) -> Iterator[Case]:
    """Without end: one to two random settings, right or misspelt, each with a value that few expect."""
    draw = random.Random(seed)
    names = {TRAIN: settings("train"), TABLE: settings("evaluate")}

    def override(script: str) -> str:
        key = draw.choice(names[script])
        if draw.random() < 0.1:
            at = draw.randrange(len(key))
            key = key[:at] + key[at + 1 :]
        if draw.random() < 0.1:
            key += ".extra"
        sign = draw.choices(["", "+", "++", "~"], [10, 2, 2, 1])[0]
        return f"~{key}" if sign == "~" else f"{sign}{key}={draw.choice(VALUES)}"

    while True:
        script = draw.choices([TRAIN, TABLE], [2, 1])[0]
        yield Case(script, tuple(override(script) for _ in range(draw.choice([1, 1, 1, 2]))))


def command(script: str) -> Callable[[], None]:
    """The script's main()."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Hydra names the job after it
    spec.loader.exec_module(module)
    main: Callable[[], None] = module.main
    return main


def run(main: Callable[[], None], script: str, arguments: Sequence[str], folder: Path, limit: float = 60) -> Ended:
    """The command in a fork of this process, with `folder` as its working directory and home."""
    before = set(folder.rglob("*"))
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            _child(main, [script, *arguments], folder, out.fileno(), err.fileno())
        end, status = time.monotonic() + limit, None
        while status is None and time.monotonic() < end:
            time.sleep(0.02)
            done, code = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if done else None
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        err.seek(0)
        new = sorted(str(path.relative_to(folder)) for path in set(folder.rglob("*")) - before)
        return Ended(status, err.read(), tuple(new))


def _child(main: Callable[[], None], argv: list[str], folder: Path, out: int, err: int) -> None:
    """Never returns."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(folder)
    os.environ["HOME"] = str(folder)
    sys.argv = argv
    status = 1
    try:
        main()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 (as the interpreter would)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--limit", type=float, default=20, help="seconds for each case")
    options = parser.parse_args()
    torch.set_num_threads(1)
    commands = {script: command(script) for script in BEFORE}
    statuses: list[int | None] = []
    faults = 0
    with tempfile.TemporaryDirectory() as parent:
        trained = Path(parent) / "trained"
        trained.mkdir()
        first = run(commands[TRAIN], TRAIN, [*TINY, "training=standard"], trained)
        assert first.status == 0, first.stderr
        drawn = cases(options.seed)
        for number in range(options.cases):
            case, folder = next(drawn), Path(parent) / str(number)
            shutil.copytree(trained, folder) if case.script == TABLE else folder.mkdir()
            ended = run(
                commands[case.script], case.script, [*BEFORE[case.script], *case.overrides], folder, options.limit
            )
            shutil.rmtree(folder)
            statuses.append(ended.status)
            if ended.fault:
                faults += 1
                print(f"case {number}: {case.script} {shlex.join(case.overrides)}\n    {ended.fault}", flush=True)
    worked, endless = statuses.count(0), statuses.count(None)
    print(f"{options.cases} cases: {worked} worked, {endless} still ran, {faults} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
