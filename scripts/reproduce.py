"""Everything: train what is missing, measure it, write the report.

python scripts/reproduce.py dataset=mnist recipe=fast seeds=3

The plan is train.py for each model, training and seed and for the networks that single tables need (independent copies,
another architecture, other training methods), then each script, and the page. extras=false leaves it at the former,
and at the accuracy table and the loss histograms. What is done is skipped and what is half done goes on, so the same
command continues after any interruption. Several GPUs get one training each.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.errors import InputError, whole
from saddlepoint.jobs import Training, die_with_parent, spread, train
from saddlepoint.lab import Lab
from saddlepoint.runs import CONFIGS, for_training, typed

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


def run(script: str, *arguments: str) -> None:
    """Another script, with this one's output. Raises InputError if it fails."""
    command = [sys.executable, str(CONFIGS.parent / "scripts" / f"{script}.py"), *arguments]
    if subprocess.run(command, check=False, preexec_fn=die_with_parent).returncode:
        raise InputError(f"scripts/{script}.py failed; its message is above")


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    lab = Lab(cfg)  # before the hours, not after
    started = time.monotonic()
    whole(cfg.seeds, "seeds")
    if not cfg.models or not cfg.trainings:
        raise InputError(f"models={cfg.models} trainings={cfg.trainings}; expected at least one of each")
    lab.data  # noqa: B018 before anything starts: the data are there, or are downloaded once
    settings = for_training(typed())
    plan = [
        Training(
            lab.run(model, training, seed),
            [*settings, f"model={model}", f"training={training}", f"seed={seed}"],
            source=lab.run(model, "standard", seed) if training == "static" else None,  # whose examples it learns
        )
        for model, training, seed in networks(cfg)
    ]
    missing = [each for each in plan if not each.directory.finished]
    jobs, threads, gpus = spread(lab.runtime, cfg.jobs, len(missing))
    log.info("training %d of %d networks, %d at a time", len(missing), len(plan), jobs)
    train(missing, jobs, threads, gpus)
    for script in (*(EXTRAS if cfg.extras else ()), *REPORTS):
        passed_on = [o for o in typed() if o.split("=")[0] not in ("jobs", "extras")]
        run(script, *passed_on)
    run("report", str(lab.folder))
    log.info("\n%s in %.0f s. Report: %s", cfg.dataset.name, time.monotonic() - started, lab.folder)
    log.info("Networks, histories and results: %s", plan[0].directory.path.parent.parent)


if __name__ == "__main__":
    main()
