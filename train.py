"""Train one network.

python train.py                                                  digits, simple, pgd: under a minute on a laptop
python train.py dataset=mnist model=wide seed=1                  the paper's MNIST network, its schedule exactly
python train.py -m model=simple,wide training=standard,pgd       a sweep

Repeating a command resumes an interrupted training and skips a finished one.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import replace

from omegaconf import DictConfig

from saddlepoint.adopt import rehearse
from saddlepoint.build import build, own_code
from saddlepoint.cli import entry
from saddlepoint.compose import measuring
from saddlepoint.errors import InputError
from saddlepoint.files import sha256
from saddlepoint.runs import Run
from saddlepoint.runtime import Runtime, generator, provenance, seeded
from saddlepoint.training import Recipe, Trainer
from saddlepoint.training.static import replaced

log = logging.getLogger("train")


@entry("train")
def main(cfg: DictConfig) -> None:
    run = Run.current(cfg)
    directory, overwrite, defined = run.directory, run.overwrites(), run.definition
    runtime: Runtime = build(cfg.runtime)
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    if cfg.logger.level not in levels:
        raise InputError(f"logger.level={cfg.logger.level}; choose {', '.join(levels)}")
    if runtime.processes.first:
        logging.getLogger().setLevel(cfg.logger.level)
    model = run.first_network().to(runtime.torch_device)
    with seeded(generator(cfg.seed, "objective").initial_seed()):  # yours may draw, too
        objective = build(cfg.training.objective)
    monitor, tracker = build(cfg.monitor), build(cfg.logger.tracker)
    if runtime.processes.first:
        build(cfg.dataset.data)  # one process downloads what is missing, before the others look
    runtime.processes.gather(None)
    data = build(cfg.dataset.data).to(runtime.torch_device)
    recipe: Recipe = build(cfg.trainer)
    rehearse(model, objective, recipe, data, max(1, recipe.batch_size // runtime.processes.count), cfg.trust_network)
    source = run.source()
    if source:  # examples made once, before the training
        network = source.load("last", runtime.torch_device)
        source.warn_of_changed_code()
        defined["training"]["source_sha256"] = sha256(source.directory.weights("last"))
        if overwrite or not directory.finished:
            noise = generator(cfg.seed, "static", runtime.torch_device)
            data = replace(data, train=replaced(data.train, network, build(cfg.attack), noise))
    names = {key: cfg[key].name for key in ("dataset", "model", "training", "recipe")}
    code = own_code(defined)
    trainer = Trainer(
        model,
        objective,
        data,
        recipe,
        runtime=runtime,
        directory=directory,
        tracker=tracker,
        monitor=monitor,
        metadata={**names, "seed": str(cfg.seed), **provenance(runtime), **({"code": code} if code else {})},
        seed=cfg.seed,
    )
    measure = "measure it: " + measuring([cfg.model.name], [cfg.training.name], cfg.seed)
    # Only now, with everything known to be right, is anything written.
    processes = runtime.processes
    with directory.hold() if processes.first else nullcontext():
        if processes.first:
            run.claim(defined, overwrite)
        if processes.gather(directory.finished)[0]:  # the others wait for the directory to be claimed, and do alike
            directory.discard_states()  # where it was killed between the two
            run.warn_of_changed_code()
            log.info("%s is finished; overwrite=true trains it again\n%s", directory.path, measure)
            return
        log.info("%s on %s", directory.path, runtime.describe())
        if processes.first:
            tracker.start(directory.path, defined)
        with tracker:  # which tells of a failure
            summary = trainer.fit()
    log.info("finished in %.0f s: wrote %s\n%s", summary["seconds"], directory.path, measure)


if __name__ == "__main__":
    main()
