"""Everything: train what is missing, measure it, write the report.

python scripts/reproduce.py dataset=mnist recipe=fast seeds=3

The plan is train.py for each model, training and seed and for the networks that single tables need (independent copies,
another architecture, other training methods), then each script, and the page. extras=false leaves it at the former,
and at the accuracy table and the loss histograms. What is done is skipped and what is half done goes on, so the same
command continues after any interruption. Several GPUs get one training each.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time

from omegaconf import DictConfig
from tqdm import tqdm

from saddlepoint.cli import entry
from saddlepoint.config import SCRIPTS_OWN, build, refuse_choices, report_folder, run_directory, typed
from saddlepoint.errors import InputError, whole
from saddlepoint.results import read_csv
from saddlepoint.runtime import visible_gpus
from saddlepoint.training.checkpoint import RunDirectory

log = logging.getLogger("reproduce")

EXTRAS = (
    "adversaries_table",
    "transfer_tables",
    "epsilon_curves",
    "training_curves",
    "filters",
    "diagnostics",
    "methods_table",
)
REPORTS = ("loss_histograms", "accuracy_table")  # the table last, where the eye falls
Network = tuple[str, str, int]  # model, training, seed


class Training:
    """One train.py in a process of its own; what it prints goes to train.log in the run directory."""

    def __init__(self, cfg: DictConfig, model: str, training: str, seed: int) -> None:
        self.directory: RunDirectory = run_directory(cfg, model, training, seed)
        settings = [o for o in typed() if o.lstrip("+~").split("=")[0].split(".")[0] not in SCRIPTS_OWN]
        self.command = ["train.py", *settings, f"model={model}", f"training={training}", f"seed={seed}"]
        # Forward and backward passes an example, the unit in which the progress bar counts.
        passes = {"standard": 1, "static": 1, "fgsm": 2, "fgsm_rs": 2, "trades": 3 + cfg.recipe.attack.steps}
        self.cost = passes.get(training, 1 + cfg.recipe.attack.steps)
        # Static examples are those of the naturally trained network.
        self.after = run_directory(cfg, model, "standard", seed) if training == "static" else None
        self.evaluations = cfg.recipe.evaluations

    @property
    def done(self) -> float:
        """The share of the training that is behind us, 0 to 1."""
        if self.directory.finished:
            return 1.0
        rows = read_csv(self.directory.history) if self.directory.history.exists() else []
        return min(1.0, len(rows) / self.evaluations)

    @property
    def ready(self) -> bool:
        """Whether what it needs is there."""
        return self.after is None or self.after.finished

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
        """Raises InputError if it ended in failure."""
        status = self.process.poll()
        if status:
            lines = (self.directory.path / "train.log").read_text().split("\n")
            reason = next((line for line in reversed(lines) if line.strip()), f"exit status {status}")
            raise InputError(f"python {' '.join(self.command)} failed: {reason.removeprefix('error: ')}")
        return status == 0


def die_with_parent() -> None:
    """In a child process: end when reproduce.py ends, however it ends, instead of training on unseen (Linux).

    At once, so that the same command can follow at once; a signal to reproduce.py itself is passed on, see train.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def train(plan: list[Training], jobs: int, threads: int | None, gpus: list[str]) -> None:
    """Run the plan, `jobs` at a time, the longest first; each on the GPU, if there are any, with the fewest."""
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
                while len(running) < jobs and (ready := [each for each in waiting if each.ready]):
                    busy = [each.gpu for each in running]
                    ready[0].start(threads, min(gpus, key=busy.count) if gpus else None)
                    waiting.remove(ready[0])
                    running.append(ready[0])
                time.sleep(0.5)
                for each in [each for each in running if each.ended()]:
                    running.remove(each)
                    log.info("trained %s", each.directory.path)
                bar.n = sum(each.cost * each.done for each in active)
                bar.refresh()
    finally:  # a signal too ends here: each finishes its step and writes its state
        for each in running:
            each.process.terminate()
        for each in running:
            each.process.wait()


def networks(cfg: DictConfig) -> list[Network]:
    """What is to be trained: the grid, and for the extras what their tables are made of."""
    # Wide networks come first: the longest trainings should not be the last to start.
    found = [(m, t, seed) for m in reversed(cfg.models) for t in cfg.trainings for seed in range(cfg.seeds)]
    if cfg.extras:
        report = cfg.report
        found += [(m, t, report.copies.seed) for m in report.copies.models for t in cfg.trainings]
        used = [source for name, source in report.sources.items() if report.adversaries[name]]
        found += [(each.model, each.training, each.seed) for each in used]
        found += [(report.methods.model, t, 0) for t in report.methods.trainings]
    found += [(model, "standard", seed) for model, training, seed in found if training == "static"]  # its source
    return list(dict.fromkeys(found))


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    refuse_choices(cfg)  # before the hours, not after
    started = time.monotonic()
    runtime = build(cfg.runtime)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_gpu = runtime.torch_device.type == "cuda"
    # A device that the user numbered, such as cuda:1, is where everything goes.
    gpus = visible_gpus() if on_gpu and cfg.runtime.device in ("auto", "cuda") else []
    jobs = cfg.jobs if cfg.jobs is not None else max(1, len(gpus)) if on_gpu else cores
    whole(jobs, "jobs")
    whole(cfg.seeds, "seeds")
    if not cfg.models or not cfg.trainings:
        raise InputError(f"models={cfg.models} trainings={cfg.trainings}; expected at least one of each")
    build(cfg.dataset.data)  # before anything starts: the data are there, or are downloaded once
    plan = [Training(cfg, *network) for network in networks(cfg)]
    jobs = min(jobs, len(plan))
    own_threads = on_gpu or cfg.runtime.threads is not None
    train(plan, jobs, None if own_threads else max(1, cores // jobs), gpus)
    for script in (*(EXTRAS if cfg.extras else ()), *REPORTS):
        passed_on = [o for o in typed() if o.split("=")[0] not in ("jobs", "extras")]
        command = [sys.executable, f"scripts/{script}.py", *passed_on]
        if subprocess.run(command, check=False, preexec_fn=die_with_parent).returncode:
            raise InputError(f"scripts/{script}.py failed; its message is above")
    subprocess.run([sys.executable, "scripts/report.py", str(report_folder(cfg))], check=True)
    log.info("\n%s in %.0f s. Report: %s", cfg.dataset.name, time.monotonic() - started, report_folder(cfg))
    log.info("Networks, histories and results: %s", plan[0].directory.path.parent.parent)


if __name__ == "__main__":
    main()
