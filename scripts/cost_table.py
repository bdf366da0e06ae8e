"""What a training costs by this recipe and by the paper's: python scripts/cost_table.py dataset=cifar10 recipe=fast

Runs train.py in a folder of its own, for every model and training, until the steps after the first take
report.cost.seconds, and works out the rest. Trainings of yours are neither read nor touched.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from saddlepoint.build import build
from saddlepoint.cli import entry
from saddlepoint.compose import CONFIGS, brought, compose, for_training, typed
from saddlepoint.errors import InputError
from saddlepoint.files import read_json
from saddlepoint.jobs import die_with_parent
from saddlepoint.lab import Lab
from saddlepoint.overrides import name_of, top
from saddlepoint.show.names import named
from saddlepoint.show.table import Cell, Table
from saddlepoint.threat import parse_number
from saddlepoint.training import Recipe

log = logging.getLogger("cost_table")


@dataclass(frozen=True)
class Cost:
    """One row: what a training costs."""

    dataset: str
    training: str
    model: str
    recipe: str
    device: str
    torch: str
    precision: str
    batch_size: int
    epochs: float
    images_per_second: float
    minutes_per_epoch: float
    hours: float
    peak_memory_mib: int
    steps_timed: int
    command: str


def table(found: Sequence[Cost], *, dataset: str) -> Table:
    """What trainings cost: a row for each network and recipe, recipes of a network together.

    From the second recipe of a network on, its time is compared with the first one's.
    """
    first: dict[tuple[str, str], float] = {}
    rows = []
    for each in found:
        times = each.hours / first.setdefault((each.training, each.model), each.hours)
        hours = f"{each.hours:,.2f}" if each.hours >= 0.1 else f"{each.hours:.2g}"
        rows.append(
            [
                Cell(f"{named(each.training)} {each.model}, {each.recipe}"),
                Cell(each.precision),
                Cell(f"{each.images_per_second:,.1f}"),
                Cell(f"{each.minutes_per_epoch:,.2f}"),
                Cell(f"{each.epochs:,.1f}"),
                Cell.of(hours, {**dataclasses.asdict(each), "times_the_first_recipe": times}),
                Cell(f"{times:.1f}x" if each.recipe != found[0].recipe else ""),
                Cell(f"{each.peak_memory_mib:,}"),
            ]
        )
    header = ["Network, recipe", "Precision", "Images/s", "Minutes an epoch", "Epochs", "Hours in all"]
    header += [f"Against {found[0].recipe}", "Memory in MiB"]
    counts = [each.steps_timed for each in found]
    batches = " or ".join(dict.fromkeys(str(each.batch_size) for each in found))
    notes = [
        f"{found[0].device}; torch {found[0].torch}; batches of {batches}. Timed over "
        f"{min(counts)} to {max(counts)} steps after the first and worked out from there, measurements on held-out "
        "images left out. Memory: the most that the process held, libraries and data included."
    ]
    return Table(f"{dataset}: what a training costs", header, rows, notes)


def settings(model: str, training: str, recipe: str) -> list[str]:
    """Of train.py: what was typed here, but for changes to another recipe than this."""
    kept, own = [], recipe == chosen_recipe()
    for each in for_training(typed()):
        said_below = top(each) in ("logger", "output_dir") or name_of(each) == "recipe"
        if not said_below and (own or top(each) != "recipe"):
            kept.append(each)
    return [*brought(), *kept, f"model={model}", f"training={training}", f"recipe={recipe}"]


def chosen_recipe() -> str:
    return str(HydraConfig.get().runtime.choices["recipe"])


def composed(arguments: list[str]) -> DictConfig:
    """The configuration that train.py makes of them."""
    return compose("train", [each for each in arguments if not each.startswith("--")])


def few_steps(arguments: list[str], steps: int) -> tuple[float, dict[str, Any]]:
    """Seconds and summary of a training that ends after so many."""
    with tempfile.TemporaryDirectory() as folder:
        short = [f"recipe.steps={steps}", "recipe.epochs=null", "recipe.evaluations=1", "recipe.monitor.examples=1"]
        short.append("recipe.grow=null")  # whole images: what growing saves is not counted
        apart = ["logger=none", f"output_dir={folder}", "hydra.mode=RUN"]
        done = subprocess.run(
            [sys.executable, str(CONFIGS.parent / "train.py"), *arguments, *short, *apart],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=die_with_parent,
        )
        if done.returncode:
            raise InputError((done.stderr.splitlines() or ["train.py failed"])[-1].removeprefix("error: "))
        (path,) = Path(folder).rglob("training.json")
        summary = read_json(path)
    return steps * summary["batch_size"] / summary["images_per_second"], summary


def cost(lab: Lab, model: str, training: str, recipe: str, images: int) -> Cost:
    """The difference between two trainings is timed, so that neither their start nor their end counts."""
    arguments = settings(model, training, recipe)
    log.info("timing training=%s model=%s recipe=%s", training, model, recipe)
    start, _ = few_steps(arguments, 1)
    planned: Recipe = build(composed(arguments).trainer)
    batch_size, per_epoch = planned.batch_size, images // planned.batch_size
    steps = planned.number_of_steps(per_epoch)
    wanted = parse_number(lab.cfg.report.cost.seconds, "report.cost.seconds")
    timed = 1
    while True:
        end, summary = few_steps(arguments, 1 + timed)
        took = end - start
        if took >= wanted or timed >= steps:
            break
        growth = 1.2 * wanted / took if took > 0 else math.inf
        timed = min(steps, math.ceil(timed * min(max(growth, 2), 20)))
    if took <= 0:
        raise InputError(f"{timed} steps took no time compared with a training's start; choose a longer training")
    step = took / timed
    return Cost(
        dataset=lab.cfg.dataset.name,
        training=training,
        model=model,
        recipe=recipe,
        device=summary["device"],
        torch=summary["torch"],
        precision=summary["precision"],
        batch_size=batch_size,
        epochs=steps / per_epoch,
        images_per_second=batch_size / step,
        minutes_per_epoch=per_epoch * step / 60,
        hours=steps * step / 3600,
        peak_memory_mib=summary["peak_memory_mib"],
        steps_timed=timed,
        command=lab.command,
    )


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    lab = Lab(cfg)
    for training in cfg.trainings:
        made_once = composed(settings(cfg.models[0], training, chosen_recipe())).training.get("source")
        if made_once:
            raise InputError(f"training={training} learns as {made_once} does, on examples made once; leave it out")
    images, recipes = len(lab.data.train), dict.fromkeys([chosen_recipe(), "paper"])
    rows = [
        cost(lab, model, training, recipe, images)
        for training in cfg.trainings
        for model in cfg.models
        for recipe in recipes
    ]
    with lab.report() as out:
        out.add(f"cost-{lab.runtime.torch_device.type}", table(rows, dataset=cfg.dataset.name))
    out.tell()


if __name__ == "__main__":
    main()
