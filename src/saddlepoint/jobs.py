"""Several trainings at a time, each a train.py in a process of its own: one a GPU, or one a CPU core."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import runpy
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path

from tqdm import tqdm

from saddlepoint.compose import CONFIGS
from saddlepoint.errors import InputError, whole
from saddlepoint.files import read_csv
from saddlepoint.runs import Run
from saddlepoint.runtime import Runtime, duration, visible_gpus

log = logging.getLogger(__name__)

# Children are forked from a process that has imported what they need, which takes each of them seconds otherwise.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(
    ["__main__", "torch._dynamo", "saddlepoint.adopt", "saddlepoint.lab", "saddlepoint.training"]
)


class Training:
    """One train.py in a process of its own; what it prints goes to train.log in the run directory.

    Args:
        run: what it trains.
        settings: its overrides, and --config-dir.
        source: the run whose network it needs.
    """

    def __init__(self, run: Run, settings: Sequence[str], source: Run | None = None) -> None:
        self.directory = run.directory
        # A sweep may be written in a config file: this is one job of it.
        self.command = ["train.py", *settings, "hydra.mode=RUN"]
        self.cost = run.passes  # in which the progress bar counts
        self.after = source.directory.path if source else None
        self.evaluations = run.config.recipe.evaluations
        self.gpu: str | None = None
        self.failure: str | None = None  # why it failed

    @property
    def done(self) -> float:
        """The share of the training that is behind us, 0 to 1."""
        if self.directory.finished:
            return 1.0
        rows = read_csv(self.directory.history) if self.directory.history.exists() else []
        return min(1.0, len(rows) / self.evaluations) if rows else 0.0

    def start(self, threads: int | None, gpu: str | None) -> None:
        """Raises InputError if it cannot write there."""
        script, *settings = self.command
        settings += [f"runtime.threads={threads}"] if threads else []
        environment = {**os.environ} if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
        self.gpu = gpu
        self.log = self.directory.open("train.log")
        self.log_begins = self.log.seek(0, os.SEEK_END)
        self.process = CHILDREN.Process(
            target=run, args=(str(CONFIGS.parent / script), settings, self.log.name, environment)
        )
        self.process.start()

    def ended(self) -> bool:
        """Whether it has; `failure` then says how, if not well."""
        status = self.process.exitcode
        if status is None:
            return False
        with self.log:
            self.log.seek(self.log_begins)
            said = [line for line in self.log.read().splitlines() if line.strip()]
        if status:
            ended = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            reason = ended if status < 0 or not said else said[-1].removeprefix("error: ")
            self.failure = f"{shlex.join(['python', *self.command])} failed: {reason}"
            if status == 2:  # refused before it began
                self.leave_nothing()
        return True

    def leave_nothing(self) -> None:
        """Remove the run directory if nothing but the log is in it."""
        if [*self.directory.path.iterdir()] == [Path(self.log.name)]:
            Path(self.log.name).unlink()
            self.directory.path.rmdir()
            with contextlib.suppress(OSError):  # there are other seeds
                self.directory.path.parent.rmdir()


def run(script: str, settings: list[str], output: str, environment: dict[str, str]) -> None:
    """In a child: a script as `python script settings` runs it, with what it prints added to the file `output`."""
    die_with_parent()
    with open(output, "a") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, sys.path = [script, *settings], [str(Path(script).parent), *sys.path]
    runpy.run_path(script, run_name="__main__")


def die_with_parent() -> None:
    """In a child process: end when its parent ends, however it ends, instead of training on unseen (Linux).

    At once, so that the same command can follow at once; a signal to the parent itself is passed on, see train.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def spread(runtime: Runtime, jobs: int | None, trainings: int) -> tuple[int, int | None, list[str]]:
    """How many trainings at a time (for None one a GPU, or one a CPU core), the threads of each, and the GPUs."""
    if runtime.processes.count > 1:
        raise InputError("each training is a process of its own here; start it without torchrun")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_gpu = runtime.torch_device.type == "cuda"
    # A device that the user numbered, such as cuda:1, is where everything goes.
    gpus = visible_gpus() if on_gpu and runtime.torch_device.index in (None, 0) else []
    if jobs is None:
        jobs = max(1, len(gpus)) if on_gpu else cores
    whole(jobs, "jobs")
    jobs = max(1, min(jobs, trainings))
    return jobs, None if on_gpu or runtime.threads is not None else max(1, cores // jobs), gpus


def train(plan: Sequence[Training], jobs: int, threads: int | None, gpus: list[str], keep_going: bool = False) -> None:
    """Run the plan, `jobs` at a time, the longest first; each on the GPU, if there are any, with the fewest.

    Raises InputError where one fails, after stopping the others; with keep_going the others continue.
    """
    waiting = sorted(plan, key=lambda each: -each.cost)
    running: list[Training] = []
    total, begun = sum(each.cost for each in plan), time.monotonic()
    said = begun
    bar = tqdm(
        total=total,
        desc="training",
        disable=None,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} elapsed, about {remaining} left",
        smoothing=0,
    )

    def behind() -> float:
        return sum(each.cost * each.done for each in plan)

    def fail(reason: str) -> None:
        if not keep_going:
            raise InputError(reason)
        log.error(reason)

    try:
        with bar:
            bar.initial = bar.n = before = behind()
            while waiting or running:
                for each in list(waiting):
                    busy = [other.directory.path for other in running]
                    unmade = busy + [other.directory.path for other in waiting]
                    if len(running) == jobs or each.directory.path in busy or each.after in unmade:
                        continue
                    waiting.remove(each)
                    used = [other.gpu for other in running]
                    try:
                        each.start(threads, min(gpus, key=used.count) if gpus else None)
                    except InputError as error:
                        each.failure = str(error)
                        fail(each.failure)
                        continue
                    running.append(each)
                connection.wait([each.process.sentinel for each in running], timeout=0.5)
                for each in list(running):
                    if not each.ended():
                        continue
                    running.remove(each)
                    if each.failure is None:
                        log.info("trained %s", each.directory.path)
                    else:
                        fail(each.failure)
                bar.n = behind()
                bar.refresh()
                if bar.disable and time.monotonic() - said >= 60 and before < bar.n < total:  # no terminal
                    said = time.monotonic()
                    left = (total - bar.n) * (said - begun) / (bar.n - before)
                    log.info("%.0f%% trained, about %s left", 100 * bar.n / total, duration(left))
    finally:  # a signal too ends here: each finishes its step and writes its state
        for each in running:
            each.process.terminate()
        for each in running:
            each.process.join()
            each.leave_nothing()  # where it had not begun
