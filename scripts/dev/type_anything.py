"""Type random settings into train.py and the scripts: each has to work, or to end in one line.

    python scripts/dev/type_anything.py                          one seed of 200 cases
    python scripts/dev/type_anything.py --seed 7 --cases 50
    python scripts/dev/type_anything.py --minutes 60 --write outputs/reference/digits/typed.csv

A case passes if the command succeeds, or ends with status 2, one line on stderr that begins with "error: ", and nothing
new or changed on the disk. One that is still running after --limit seconds passes too: it is a long training. A fault
is printed with its overrides and the last line of its stderr; the exit status is 1 if there is one. --minutes tries one
seed after the other for so long. Each seed is a line: cases, faults, machine, date and commit.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from saddlepoint.cli.typed import settings
from saddlepoint.compose import CONFIGS
from saddlepoint.files import write_csv
from saddlepoint.runtime import Runtime, provenance

ROOT = Path(__file__).resolve().parents[2]
TRAIN, TABLE, IMPORT = "train.py", "scripts/accuracy_table.py", "scripts/import_network.py"
TINY = (
    "recipe.steps=6",
    "recipe.evaluations=2",
    "recipe.monitor.steps=2",
    "recipe.monitor.examples=20",
    "recipe.attack.steps=2",
    "logger=none",
)
MEASURE = (*TINY, "models=[simple]", "trainings=[standard]", "evaluation.examples=20", "attacks.pgd.steps=2")
FEW = ("report.epsilon.model=simple", "report.epsilon.trainings=[standard]", "report.epsilon.examples=5")
# What makes each command short, so that what is drawn decides how it ends.
BEFORE = {
    TRAIN: TINY,
    TABLE: MEASURE,
    IMPORT: (*TINY[:-1], "training=standard", "weights=digits/theirs.safetensors", "seed=1"),
    "scripts/export.py": MEASURE,
    "scripts/epsilon_curves.py": (*MEASURE, *FEW, "report.epsilon.steps=2", "report.epsilon.queries=3"),
    "scripts/filters.py": (*MEASURE, "report.filters.model=simple", "report.filters.trainings=[standard]"),
    "scripts/training_curves.py": MEASURE,
    "scripts/reproduce.py": (*MEASURE, "items=[accuracy]", "jobs=1"),
}
LARGE = 2**64
VALUES = (
    *("nan", "inf", "-inf", "-1", "0", "-0", "0.5", "1e400", "1e-400", str(10**30), str(-LARGE), "-1e9", "4294967296"),
    *("8/0", "8/255", "-1/3", "1_000", "0x10", "1e", "true", "null", "None", "", "text", "'a text'", "''", "a=b"),
    *("[]", "[1,2]", "[[]]", "[[[1,[2]],a],[]]", "[nan]", "[null,true]", "[" * 40 + "]" * 40, "[1,", "]", "[{a: [1]}]"),
    *("{}", "{a: 1}", "{a: {b: []}}", "{1: 2}", "{a: {b: {c: [1, {d: null}]}}}", "{a", "{_target_: nowhere.Nothing}"),
    *("{_target_: builtins.dict}", "{_target_: torch.nn.ReLU}", "{_target_: 3}", "{_target_: ''}", "{_partial_: true}"),
    *("{_args_: [1]}", "{_target_: saddlepoint.attacks.PGD, _args_: [1, 2]}", "{_target_: os.path}"),
    *(
        "???",
        "'???'",
        "${seed}",
        "'${nowhere}'",
        "${threat}",
        "${model.name}",
        "${oc.env:NOWHERE}",
        "${last:[1]}",
        "${",
    ),
    *("${seed}${seed}", "${recipe}", "${.name}", "${..seed}", "${hydra:job.name}", "'$'", "$"),
    *('"a"', "'a", "'it\\'s'", "it's", "\\", "a\\,b", "a,b", "a b", " ", "\t", "'a\nb'", "'a\n", "`a`", "%s", "{0}"),
    *("é", "~", "日本", "\u202e", "\U0001d6c6", "\udcff", "'\udcff'", "\x1b[31m", "٣", "١/٢"),
    *("1", "3", "0.1", "false", "range(3)", "choice(1,2)", "glob(*)", "int(3)", "str(1)", "interval(0,1)", "x" * 300),
)
# Choices of a group besides its own. The larger data sets would be downloaded, and W&B starts processes of its own.
OTHERS = ("null", "nowhere", "", "[]", "1", "../train", "simple,wide", "é", "text")
LEFT_OUT = ("mnist", "cifar10", "wandb", "slurm")
# What is no override, or hardly one.
ODD = (
    *(
        "foo",
        "=3",
        "==",
        "~",
        "+",
        "++",
        "",
        " ",
        "@",
        "a@b=c",
        "model@x=wide",
        "+model@x=wide",
        "seed",
        "~a=b",
        "seed=1",
    ),
    *(
        "--lr 0.1",
        "--epochs=3",
        "--foo",
        "-x",
        "-",
        "--",
        "--cfg",
        "--cfg job",
        "--cfg x",
        "--config-dir",
        "-cd nowhere",
    ),
    *(
        "--config-name x",
        "--info x",
        "--package a",
        "-m seed=1",
        "hydra/launcher=nowhere",
        "hydra.mode=text",
        "hydra=null",
    ),
    *("hydra.run.dir=null", "hydra.job.name=a", "hydra.nowhere=1", "+hydra.nowhere=1", "~hydra", "defaults=[]"),
)
MEMORY = 12 << 30  # bytes of address space that a command may use


class Case(NamedTuple):
    script: str
    overrides: tuple[str, ...]


class Ended(NamedTuple):
    """How a command ended: its status (None: still running at the limit), its stderr and the files it changed."""

    status: int | None
    stderr: str
    changed: tuple[str, ...]

    @property
    def fault(self) -> str | None:
        """What is wrong with it; None for nothing."""
        # Of a sweep Hydra says which job it was.
        lines = [each for each in self.stderr.splitlines() if not each.startswith("Error executing job")] or [""]
        if self.status in (0, None):
            return None
        if self.status != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
            return f"status {self.status}: {lines[-1]}"
        return f"changed {', '.join(self.changed)}" if self.changed else None


def cases(seed: int) -> Iterator[Case]:
    """Without end: one to three random settings, right or misspelt, each with a value that few expect."""
    draw = random.Random(seed)
    names = {TRAIN: settings("train"), IMPORT: settings("import_network")}
    every, groups = settings("evaluate"), sorted(path.name for path in CONFIGS.iterdir() if path.is_dir())

    def signed(key: str, value: str) -> str:
        sign = draw.choices(["", "+", "++", "~"], [10, 2, 2, 1])[0]
        return f"~{key}" if sign == "~" else f"{sign}{key}={value}"

    def choice() -> str:
        group = draw.choice(groups)
        ours = [path.stem for path in (CONFIGS / group).glob("*.yaml") if path.stem not in LEFT_OUT]
        return signed(group, draw.choice([*sorted(ours), *OTHERS]))

    def setting(script: str) -> str:
        key = draw.choice(names.get(script, every))
        if draw.random() < 0.1:
            at = draw.randrange(len(key))
            key = key[:at] + key[at + 1 :]
        if draw.random() < 0.1:
            key += draw.choice([".extra", ".0", "[0]", ".", ".é", "._target_", "._args_"])
        return signed(key, draw.choice(VALUES))

    def related(first: str) -> list[str]:
        """Another override of the same place, above it or below it."""
        key = first.lstrip("+~").partition("=")[0]
        return [signed(draw.choice([key, key.rpartition(".")[0] or key, f"{key}.extra"]), draw.choice(VALUES))]

    while True:
        script = draw.choices([TRAIN, TABLE, draw.choice([*BEFORE])], [4, 2, 3])[0]
        kind = draw.choices(["setting", "choice", "odd", "two", "related", "three"], [8, 2, 1, 3, 2, 1])[0]
        one = choice() if kind == "choice" else setting(script)
        if kind == "odd":
            yield Case(script, tuple(draw.choice(ODD).split(" ")))
        elif kind == "related":
            yield Case(script, (one, *related(one)))
        else:
            more = {"two": 1, "three": 2}.get(kind, 0)
            yield Case(script, (one, *(draw.choice([setting(script), choice()]) for _ in range(more))))


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
    before = files(folder)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+", errors="replace") as err:
        child = os.fork()
        if child == 0:
            _child(main, [script, *arguments], folder, out.fileno(), err.fileno())
        end, status = time.monotonic() + limit, None
        while status is None and time.monotonic() < end:
            time.sleep(0.02)
            done, code = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if done else None
        if status is None:
            os.killpg(child, signal.SIGKILL)  # and the trainings that it started
            os.waitpid(child, 0)
        err.seek(0)
        after = files(folder)
        changed = sorted(path for path in {*after, *before} if after.get(path) != before.get(path))
        return Ended(status, err.read(), tuple(changed))


def files(folder: Path) -> dict[str, int]:
    """What is in a folder and below, with when it was changed; of folders only that they are there."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: 0 if path.is_dir() else path.lstat().st_mtime_ns for name, path in found.items()}


def _child(main: Callable[[], None], argv: list[str], folder: Path, out: int, err: int) -> None:
    """Never returns."""
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
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
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def prepared(commands: dict[str, Callable[[], None]], folder: Path) -> None:
    """A trained network, and its weights as somebody else's."""
    folder.mkdir()
    first = run(commands[TRAIN], TRAIN, [*TINY, "training=standard", "output_dir=outputs"], folder, limit=600)
    assert first.status == 0, first.stderr
    (weights,) = folder.rglob("last.safetensors")
    (folder / "digits").mkdir()
    shutil.copy(weights, folder / "digits" / "theirs.safetensors")


def one_seed(seed: int, most: int, limit: float, end: float, commands: dict[str, Callable[[], None]]) -> dict[str, Any]:
    """So many cases, or those until the time `end`: how they ended. Prints the faults."""
    statuses: list[int | None] = []
    faults = 0
    with tempfile.TemporaryDirectory() as parent:
        trained = Path(parent) / "trained"
        os.environ["MPLCONFIGDIR"] = str(Path(parent) / "matplotlib")  # instead of the home of each case
        prepared(commands, trained)
        for number, (script, overrides) in zip(range(most), cases(seed), strict=False):
            if time.monotonic() > end:
                break
            folder = Path(parent) / str(number)
            if script == TRAIN:
                folder.mkdir()
            else:
                shutil.copytree(trained, folder)
            ended = run(commands[script], script, [*BEFORE[script], *overrides], folder, limit)
            shutil.rmtree(folder)
            statuses.append(ended.status)
            if ended.fault:
                faults += 1
                said = f"seed {seed}, case {number}: {script} {shlex.join(overrides)}\n    {ended.fault}"
                print(said.encode(errors="backslashreplace").decode(), flush=True)
    counts = {"worked": statuses.count(0), "refused": statuses.count(2), "still running": statuses.count(None)}
    return {"seed": seed, "cases": len(statuses), **counts, "faults": faults}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--cases", type=int, default=200, help="of each seed")
    parser.add_argument("--limit", type=float, default=20, help="seconds for each case")
    parser.add_argument("--minutes", type=float, help="try one seed after the other for so long")
    parser.add_argument("--write", type=Path, help="a CSV file of the lines")
    options = parser.parse_args()
    torch.set_num_threads(1)
    commands = {script: command(script) for script in BEFORE}
    end = time.monotonic() + 60 * (options.minutes or float("inf"))
    made = provenance(Runtime("cpu"))
    os.environ["WANDB_MODE"] = "disabled"
    os.environ["http_proxy"] = os.environ["https_proxy"] = "http://127.0.0.1:9"  # where nobody answers
    lines: list[dict[str, Any]] = []
    while not lines or (options.minutes and time.monotonic() < end):
        line = one_seed(options.seed + len(lines), options.cases, options.limit, end, commands)
        lines.append({**line, "machine": made["device"], "date": time.strftime("%Y-%m-%d"), "commit": made["commit"]})
        print(", ".join(f"{name} {value}" for name, value in lines[-1].items()), flush=True)
        if options.write:
            write_csv(options.write, lines)
    sys.exit(1 if any(line["faults"] for line in lines) else 0)


if __name__ == "__main__":
    main()
