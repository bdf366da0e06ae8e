"""Everything: train what is missing, measure it, write the report.

python scripts/reproduce.py dataset=mnist recipe=fast seeds=3
python scripts/reproduce.py dataset=mnist recipe=fast items=[adversaries,epsilon]

The items are those of src/saddlepoint/paper, and each says which networks it needs. Missing networks are trained, one a
GPU. The accuracy table and Figures 1 and 2 come first, with their networks. What is done is skipped and what is half
done is resumed, so the same command continues after any interruption.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

import torch
from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.compose import brought, for_training, next_command, typed
from saddlepoint.jobs import Training, spread, train
from saddlepoint.lab import Lab
from saddlepoint.paper import ITEMS, items_named, planned, write, write_page
from saddlepoint.paper.item import Item
from saddlepoint.runtime import duration
from saddlepoint.show.folder import Report

log = logging.getLogger("reproduce")

FIRST = ("accuracy", "landscape")  # what a newcomer waits for


def plan(lab: Lab, items: Sequence[Item]) -> list[Training]:
    """The trainings of the networks that items are made of."""
    settings = [*brought(), *for_training(typed())]
    plan = []
    for model, training, seed in planned(lab, items):
        run = lab.run(model, training, seed)
        source = lab.run(model, run.taught_by, seed) if run.taught_by else None
        choices = [f"model={model}", f"training={training}", f"seed={seed}"]
        plan.append(Training(run, [*settings, *choices], source))
    return plan


def make(lab: Lab, items: Sequence[Item], trainings: Sequence[Training]) -> dict[str, Report]:
    """Train, then write the items, by their names; a line for each step."""
    missing = [each for each in trainings if not each.directory.finished]
    jobs, threads, gpus = spread(lab.runtime, lab.cfg.jobs, len(missing))
    if missing:
        started = time.monotonic()
        log.info("training %d of %d networks, %d at a time", len(missing), len(trainings), jobs)
        torch.cuda.empty_cache()  # what was measured before leaves the memory to the trainings
        train(missing, jobs, threads, gpus)
        log.info("%d networks trained in %s", len(missing), duration(time.monotonic() - started))
    written = {}
    for item in items:
        started = time.monotonic()
        written[item.name] = write(lab, item)
        places = ", ".join(section.place for section in item.sections)
        log.info("%s (%s) in %s", item.name, places, duration(time.monotonic() - started))
    return written


def show(written: Mapping[str, Report]) -> None:
    """Print the accuracy table, or every table if it is not among them."""
    for report in [written["accuracy"]] if "accuracy" in written else written.values():
        report.show()


def suggestion(lab: Lab) -> str:
    """The command to try next: all items, the paper's own data, or more seeds."""
    if lab.cfg["items"] is not None and not all(item.made(lab.folder) for item in ITEMS):
        return next_command("reproduce")
    if lab.cfg.dataset.name == "digits":
        return next_command("reproduce", "dataset=mnist", "recipe=fast", "items=[accuracy,landscape]")
    return next_command("reproduce", f"seeds={lab.cfg.seeds + 2}")


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    lab, started = Lab(cfg), time.monotonic()  # before the hours, not after
    items = items_named(cfg["items"])
    lab.data  # noqa: B018 before anything starts: the data are there, or are downloaded once
    first = [item for item in items if item.name in FIRST]
    rest = [item for item in items if item not in first]
    parts = [(part, plan(lab, part)) for part in (first, rest) if part]
    written: dict[str, Report] = {}
    for part, trainings in parts:
        if written and not all(each.directory.finished for each in trainings):
            show(written)
            log.info("\nOn one page: %s. The rest follows.", write_page(lab.folder))
        written |= make(lab, part, trainings)
    show(written)
    page = write_page(lab.folder)
    log.info("\n%s in %s. Report: %s", cfg.dataset.name, duration(time.monotonic() - started), page)
    log.info("next: %s", suggestion(lab))


if __name__ == "__main__":
    main()
