"""What a training of days must survive, many times over: make soak

Kills: short runs (train.py, then accuracy_table.py) are killed with kill -9 at random moments: anywhere, in the
middle of a write, between a write and its rename, in an evaluation. The same command then resumes, and what the run
leaves is compared with what an undisturbed one left: everything but times, rate and memory.
Mutations: scripts/dev/mutation_check.py. Examples: adversarial examples checked against their threat by other code.
"""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from saddlepoint.attacks import PGD
from saddlepoint.build import build
from saddlepoint.cli import entry
from saddlepoint.data import load
from saddlepoint.files import read_json, write_json
from saddlepoint.losses import CrossEntropy, Loss, Margin
from saddlepoint.measure.store import Unfinished
from saddlepoint.models import CNN
from saddlepoint.runtime import Runtime, generator, has_fast_bfloat16, processor, provenance
from saddlepoint.show.table import Cell, Table
from saddlepoint.threat import Threat

log = logging.getLogger("soak")

ROOT = Path(__file__).resolve().parents[2]

# A run of a second with ten states, and an evaluation as long.
RUN = [
    "recipe.steps=40",
    "recipe.evaluations=10",
    "recipe.attack.steps=2",
    "recipe.monitor.steps=2",
    "recipe.monitor.examples=20",
    "runtime.threads=1",
    "logger=none",
]
TIMES = ("seconds", "sha256", "images_per_second", "peak_memory_mib")
MOMENTS = ("anywhere", "in a write", "before a rename", "in an evaluation")


def run(folder: Path, precision: str, deadly: dict[str, int]) -> None:
    """In a process of its own: train, then measure. `deadly` names the call of os.fsync or os.replace that kills it."""
    os.chdir(ROOT)
    folder.mkdir(parents=True, exist_ok=True)
    output = os.open(folder.parent / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    tqdm.set_lock(threading.RLock())  # a killed process would leave the default one behind
    for name, number in deadly.items():
        _kill_at(name, number)
    Unfinished.interval = 0  # also its files are killed in the middle
    settings = [*RUN, f"runtime.precision={precision}", f"output_dir={folder}"]
    measure = ["scripts/accuracy_table.py", "models=[simple]", "trainings=[pgd]", "evaluation.batch_size=100"]
    for command in (["train.py"], measure):
        sys.argv = [*command, *settings]
        runpy.run_path(command[0], run_name="__main__")


def _kill_at(name: str, number: int) -> None:
    """SIGKILL when os.fsync or os.replace is called for this time."""
    original, calls = getattr(os, name), itertools.count(1)

    def counting(*arguments: Any) -> Any:
        if next(calls) == number:
            if name == "fsync":  # half of the file has reached the disk
                os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(os, name, counting)


def left_by(folder: Path) -> dict[str, Any]:
    """What must not depend on how often the run was killed."""
    left: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".json":
            content = json.loads(path.read_text().replace(str(folder), ""))
            left[name] = {key: value for key, value in content.items() if key not in TIMES}
        elif path.is_file() and path.name != ".lock":
            left[name] = path.read_bytes().replace(str(folder).encode(), b"")  # the CSV names the command
    return left


class Kills:
    """Runs that are killed, in one precision, against one that is not."""

    def __init__(self, folder: Path, precision: str, seed: int) -> None:
        self.folder, self.precision = folder / precision, precision
        self.random = random.Random(f"{seed}/{precision}")
        # Forked from a process that has imported everything: a start costs a tenth of a second instead of four.
        self.context = multiprocessing.get_context("forkserver")
        imports = [
            "torch._dynamo",
            "sklearn.datasets",
            "saddlepoint.cli",
            "saddlepoint.training",
            "saddlepoint.paper",
        ]
        self.context.set_forkserver_preload(imports)
        self.counts = dict.fromkeys(MOMENTS, 0)
        self.finished = 0
        self._attempt(self.folder / "warm-up", "never")
        started = time.monotonic()
        self._attempt(self.folder / "undisturbed", "never")
        self.seconds = time.monotonic() - started
        self.expected = left_by(self.folder / "undisturbed")
        for name in ("last.safetensors", "best.safetensors", "history.csv", "last-pgd-*.json", "accuracy.md"):
            assert any(fnmatch(path, f"*{name}") for path in self.expected), name

    def _attempt(self, folder: Path, moment: str) -> bool:
        """Start or resume; whether it was killed. Raises RuntimeError if it ended in failure by itself."""
        deadly = {}
        if moment == "in a write":
            deadly = {"fsync": self.random.randint(1, 15)}
        elif moment == "before a rename":
            deadly = {"replace": self.random.randint(1, 20)}
        process = self.context.Process(target=run, args=(folder, self.precision, deadly))
        process.start()
        if moment == "in an evaluation":
            while process.is_alive() and not list(folder.rglob("training.json")):
                time.sleep(0.005)
            process.join(self.random.uniform(0, self.seconds / 4))
        elif moment == "anywhere":
            process.join(self.random.uniform(0, self.seconds))
        if moment in ("anywhere", "in an evaluation"):
            process.kill()
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"exit status {process.exitcode}; see {folder.parent / 'output.log'}")
        return process.exitcode != 0

    def run(self, count: int, bar: tqdm | None = None) -> dict[str, Any]:
        """Kill `count` times. Raises RuntimeError if a killed run leaves anything else than the undisturbed one."""
        while sum(self.counts.values()) < count:
            folder = self.folder / f"run{self.finished}"
            kills = 0
            while self._round(folder, kills, count, bar):
                kills += 1
            left = left_by(folder)
            if left != self.expected:
                names = [name for name in {*left, *self.expected} if left.get(name) != self.expected.get(name)]
                raise RuntimeError(f"{folder}: {', '.join(sorted(names))} differ from {self.folder / 'undisturbed'}")
            self.finished += 1
        return {"kills": self.counts, "runs": self.finished, "precision": self.precision}

    def _round(self, folder: Path, kills: int, count: int, bar: tqdm | None) -> bool:
        enough = sum(self.counts.values()) >= count or kills > 12
        moment = "never" if enough else self.random.choice(MOMENTS)
        killed = self._attempt(folder, moment)
        if killed:
            self.counts[moment] += 1
            if bar is not None:
                bar.update()
        return killed


def examples(count: int, seed: int = 0) -> dict[str, Any]:
    """Adversarial examples for networks with random weights, held against ball and pixel range in float64."""
    data = load("digits", "data", 197)
    x, y = data.test.images(slice(None)), data.test.labels
    verified = outside = cases = 0
    furthest = 0.0
    with tqdm(total=count, desc="examples", unit="", disable=None, leave=False) as bar:
        while verified < count:
            draw = random.Random(f"{seed}/{cases}")
            norm = draw.choice(["linf", "l2"])
            eps = draw.choice([0.0, 1.0, draw.uniform(0, 1), draw.uniform(0, 0.1)]) * (3 if norm == "l2" else 1)
            steps = draw.randint(1, 4)
            losses: list[Loss] = [CrossEntropy(), Margin(50)]
            attack = PGD(
                Threat(norm, eps),
                steps,
                draw.choice([None, draw.uniform(0, 2)]),
                draw.choice(losses),
                random_start=draw.random() < 0.7,
                restarts=draw.choice([1, 1, 2]),
                targeted=draw.random() < 0.3,
            )
            model = CNN(1, image_size=8, generator=generator(seed, f"network {cases}")).eval()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=draw.random() < 0.3):
                x_adv = attack(model, x, y, generator(seed, f"noise {cases}")).numpy().astype(np.float64)
            delta = (x_adv - x.numpy().astype(np.float64)).reshape(len(x), -1)
            distance = np.abs(delta).max(1) if norm == "linf" else np.sqrt((delta**2).sum(1))
            inside = np.isfinite(x_adv) & (x_adv >= 0) & (x_adv <= 1)
            good = inside.reshape(len(x), -1).all(1) & (distance <= eps + 1e-6)
            furthest = max(furthest, float((distance - eps).max()))
            verified, outside, cases = verified + len(x), outside + int((~good).sum()), cases + 1
            bar.update(len(x))
    return {"verified": verified, "attacks": cases, "outside": outside, "furthest_beyond_eps": furthest}


def table(found: dict[str, Any]) -> Table:
    rows, mutations = [], found["mutations"]
    for each in found["kills"]:
        moments = ", ".join(f"{count} {moment}" for moment, count in each["kills"].items())
        total = sum(each["kills"].values())
        rows.append([f"kill -9, {each['precision']}", f"{total} kills of {each['runs']} runs ({moments})", "0 differ"])
    if mutations:
        survived = [name for name, caught in mutations.items() if not caught]
        rows.append(["deliberate mistakes in the code", str(len(mutations)), f"{len(survived)} missed by the tests"])
    told = found["examples"]
    rows.append(["adversarial examples verified", f"{told['verified']:,}", f"{told['outside']} outside"])
    note = f"{found['date']}, {found['machine']}, in {found['seconds'] / 60:.0f} minutes."
    return Table("Soak", ["What", "How many", "Result"], [[*map(Cell, row)] for row in rows], [note])


@entry("soak")
def main(cfg: DictConfig) -> None:
    runtime: Runtime = build(cfg.runtime)
    started = time.monotonic()
    precisions = ["float32", *(["bfloat16"] if has_fast_bfloat16(torch.device("cpu")) else [])]
    machine = f"{runtime.describe()}, {processor()}, {os.cpu_count()} cores"
    found: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "machine": machine, "kills": []}
    with tempfile.TemporaryDirectory() as folder, tqdm(total=cfg.kills, desc="kills", disable=None, leave=False) as bar:
        for number, precision in enumerate(precisions):
            share = cfg.kills // len(precisions) + (number < cfg.kills % len(precisions))
            found["kills"].append(Kills(Path(folder), precision, cfg.seed).run(share, bar))
            log.info("%s", found["kills"][-1])
    found["examples"] = examples(cfg.examples, cfg.seed)
    log.info("%s", found["examples"])
    found["mutations"] = {}
    write_json(Path(cfg.folder) / "soak.json", found)  # whatever becomes of the rest
    if cfg.mutations:
        path = Path(cfg.folder) / "mutations.json"
        path.unlink(missing_ok=True)  # an earlier one's
        subprocess.run([sys.executable, "scripts/dev/mutation_check.py", f"--write={path}"], check=False)
        found["mutations"] = read_json(path)
    found |= {"seed": cfg.seed, "seconds": round(time.monotonic() - started), "provenance": provenance(runtime)}
    write_json(Path(cfg.folder) / "soak.json", found)
    shown = table(found)
    (Path(cfg.folder) / "soak.md").write_text(shown.markdown())
    log.info("\n%s", shown.text())
    if found["examples"]["outside"] or not all(found["mutations"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
