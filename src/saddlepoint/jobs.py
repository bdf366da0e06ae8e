"""Several trainings at a time, each a train.py in a process of its own: one a GPU, or one a CPU core."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from omegaconf import DictConfig
from tqdm import tqdm

from saddlepoint.config import build, run_directory
from saddlepoint.errors import InputError, whole
from saddlepoint.results import read_csv
from saddlepoint.runtime import Runtime, visible_gpus

log = logging.getLogger(__name__)


class Training:
    """One train.py in a process of its own; what it prints goes to train.log in the run directory.

    Args:
        settings: its overrides, and --config-dir.
    """

    def __init__(self, cfg: DictConfig, model: str, training: str, seed: int, settings: Sequence[str]) -> None:
        self.directory = run_directory(cfg, model, training, seed)
        self.command = ["train.py", *settings]
        # Forward and backward passes an example, the unit in which the progress bar counts.
        passes = {"standard": 1, "static": 1, "fgsm": 2, "fgsm_rs": 2, "trades": 3 + cfg.recipe.attack.steps}
        self.cost = passes.get(training, 1 + cfg.recipe.attack.steps)
        # Static examples are those of the naturally trained network.
        self.after = run_directory(cfg, model, "standard", seed).path if training == "static" else None
        self.evaluations = cfg.recipe.evaluations
        self.gpu: str | None = None
        self.failure: str | None = None  # why it failed

    @property
    def done(self) -> float:
        """The share of the training that is behind us, 0 to 1."""
        if self.directory.finished:
            return 1.0
        rows = read_csv(self.directory.history) if self.directory.history.exists() else []
        return min(1.0, len(rows) / self.evaluations)

    def start(self, threads: int | None, gpu: str | None) -> None:
        """Raises InputError if it cannot write there."""
        command = [sys.executable, *self.command, *([f"runtime.threads={threads}"] if threads else [])]
        environment = os.environ if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
        self.gpu = gpu
        try:
            self.directory.path.mkdir(parents=True, exist_ok=True)
            log_file = (self.directory.path / "train.log").open("ab")
        except OSError as error:
            raise InputError(
                f"cannot write to {self.directory.path} ({error.strerror}); choose output_dir=..."
            ) from None
        with log_file as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                preexec_fn=die_with_parent,
            )

    def ended(self) -> bool:
        """Whether it has; `failure` then says how, if not well."""
        status = self.process.poll()
        if status:
            lines = (self.directory.path / "train.log").read_text().split("\n")
            reason = next((line for line in reversed(lines) if line.strip()), f"exit status {status}")
            self.failure = f"python {' '.join(self.command)} failed: {reason.removeprefix('error: ')}"
        return status is not None


def die_with_parent() -> None:
    """In a child process: end when its parent ends, however it ends, instead of training on unseen (Linux).

    At once, so that the same command can follow at once; a signal to the parent itself is passed on, see train.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def spread(cfg: DictConfig, jobs: int | None, trainings: int) -> tuple[int, int | None, list[str]]:
    """How many trainings at a time (for None one a GPU, or one a CPU core), the threads of each, and the GPUs."""
    runtime: Runtime = build(cfg.runtime)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_gpu = runtime.torch_device.type == "cuda"
    # A device that the user numbered, such as cuda:1, is where everything goes.
    gpus = visible_gpus() if on_gpu and cfg.runtime.device in ("auto", "cuda") else []
    if jobs is None:
        jobs = max(1, len(gpus)) if on_gpu else cores
    whole(jobs, "jobs")
    jobs = min(jobs, trainings)
    return jobs, None if on_gpu or cfg.runtime.threads is not None else max(1, cores // jobs), gpus


def train(plan: list[Training], jobs: int, threads: int | None, gpus: list[str], keep_going: bool = False) -> None:
    """Run the plan, `jobs` at a time, the longest first; each on the GPU, if there are any, with the fewest.

    Raises InputError where one fails, after stopping the others; with keep_going the others go on.
    """
    waiting = sorted((each for each in plan if not each.directory.finished), key=lambda each: -each.cost)
    running: list[Training] = []
    log.info("training %d of %d networks, %d at a time", len(waiting), len(plan), jobs)
    bar = tqdm(
        total=sum(each.cost for each in waiting),
        desc="training",
        disable=None,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} elapsed, about {remaining} left",
        smoothing=0,
    )
    try:
        with bar:
            active = list(waiting)
            bar.initial = bar.n = sum(each.cost * each.done for each in active)
            while waiting or running:
                unmade = [each.directory.path for each in (*waiting, *running)]
                ready = [each for each in waiting if each.after not in unmade]
                for each in ready[: jobs - len(running)]:
                    busy = [other.gpu for other in running]
                    each.start(threads, min(gpus, key=busy.count) if gpus else None)
                    waiting.remove(each)
                    running.append(each)
                time.sleep(0.5)
                for each in [each for each in running if each.ended()]:
                    running.remove(each)
                    if each.failure is None:
                        log.info("trained %s", each.directory.path)
                    elif keep_going:
                        log.error(each.failure)
                    else:
                        raise InputError(each.failure)
                bar.n = sum(each.cost * each.done for each in active)
                bar.refresh()
    finally:  # a signal too ends here: each finishes its step and writes its state
        for each in running:
            each.process.terminate()
        for each in running:
            each.process.wait()
