"""hydra/launcher=parallel: a sweep's trainings side by side on this machine's GPUs, or CPU cores."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

log = logging.getLogger(__name__)


class Parallel(Launcher):
    """Each job is a train.py of its own, with the GPU, or the share of the cores, to itself.

    Args:
        jobs: how many at a time; None for one a GPU, or one a CPU core.
    """

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        # Only now: Hydra imports this file for every command of its environment.
        from saddlepoint.build import build
        from saddlepoint.compose import brought, measuring
        from saddlepoint.errors import InputError
        from saddlepoint.jobs import Training, spread, train
        from saddlepoint.runs import Run

        setup_globals()
        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)
        if self.config.hydra.job.name != "train":
            raise InputError("hydra/launcher=parallel is for train.py; scripts measure one network after another")
        HydraConfig.instance().set_config(self.config)
        plan: list[Training] = []
        made = []
        for overrides in job_overrides:
            run = Run(self.loader.load_sweep_config(self.config, list(overrides)))
            made.append(run.config)
            plan.append(Training(run, [*brought(), *overrides], run.source()))
        # Finished ones too: train.py sees whether they are what is asked for, or to be made again.
        jobs, threads, gpus = spread(build(made[-1].runtime), self.jobs, len(plan))
        log.info("training %d networks, %d at a time", len(plan), jobs)
        train(plan, jobs, threads, gpus, keep_going=True)
        models, trainings = [each.model.name for each in made], [each.training.name for each in made]
        log.info("measure them: %s", measuring(models, trainings, max(each.seed for each in made)))
        return [
            JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
            if each.failure is None
            else JobReturn(overrides=list(overrides), status=JobStatus.FAILED, _return_value=InputError(each.failure))
            for each, overrides in zip(plan, job_overrides, strict=True)
        ]
