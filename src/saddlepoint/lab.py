"""One command that measures: its device, data, tracker and command line, made once."""

from __future__ import annotations

import fnmatch
import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from saddlepoint.attacks import PGD, Attack, measurable
from saddlepoint.build import build, own_code
from saddlepoint.compose import (
    PLANNING,
    chosen,
    config_folders,
    differences,
    for_training,
    shipped,
    shortened,
    spelled,
    typed,
)
from saddlepoint.data import Data, Split, fingerprint
from saddlepoint.errors import InputError, nearest, whole
from saddlepoint.files import canonical
from saddlepoint.measure.result import Accuracy, Result
from saddlepoint.measure.subject import Subject
from saddlepoint.overrides import name_of, top
from saddlepoint.runs import Run, data_folder, difference_between
from saddlepoint.runtime import PRECISIONS, Runtime
from saddlepoint.show.folder import Report
from saddlepoint.tracking import Tracker
from saddlepoint.training.checkpoint import CHECKPOINTS

log = logging.getLogger(__name__)

Settings = DictConfig  # composed from evaluate.yaml
Network = tuple[str, str, int]  # model, training, seed
R = TypeVar("R", covariant=True)

# Settings of the scripts; those that change a measurement itself begin like the latter.
SCRIPTS = ("models", "trainings", "seeds", "jobs", "items", "landscape", "evaluation", "report")
TELLING = ("report.sources", "report.epsilon.steps", "report.epsilon.queries")
# What a report is not named after: more seeds refine it, and parts and checkpoints have files of their own.
UNNAMED = ("seeds", *PLANNING, "evaluation.examples", "evaluation.checkpoint")


@dataclass(frozen=True)
class Measurement(Generic[R]):
    """What is to be measured of a network.

    Args:
        make: measures it, or reads what was measured; with the network of the source, if there is one.
        source: another network that it takes, on which examples are made, say.
        checkpoint: of the network; for None the configured one.
    """

    network: Network
    make: Callable[[Lab, Subject, Subject | None], R]
    source: Network | None = None
    checkpoint: str | None = None


class Lab:
    """What a script needs to measure the runs of train.py that its settings choose.

    Args:
        cfg: composed from evaluate.yaml.
        alone: whether the script works as one process. Raises InputError then, if torchrun started several.
    """

    def __init__(self, cfg: DictConfig, alone: bool = True) -> None:
        self.cfg, self.script = cfg, str(HydraConfig.get().job.name)
        self.begin(self.script)
        self.missing: list[Path] = []  # networks that were asked for and are not trained
        self._warned: set[Path] = set()
        self._composed: dict[tuple[str, str], Run] = {}
        self._runs: dict[Network, Run] = {}
        self._attacks: dict[str, Attack | None] = {}
        self._refuse_choices()
        current = Run.current(cfg)
        self.definition = current.definition
        self.differences = differences(current.config)  # from the settings that the choices alone give
        self.choices = chosen(current.config.hydra)
        self.runtime: Runtime = build(cfg.runtime)
        if alone and self.runtime.processes.count > 1:
            raise InputError(f"{self.script}.py works as one process; start it without torchrun")

    def begin(self, script: str, *settings: str) -> None:
        """What is measured from here on names this script as its command, with what was typed and these settings."""
        kept = [each for each in typed() if name_of(each) not in PLANNING]
        self.command = shlex.join(["python", f"scripts/{script}.py", *kept, *settings])
        self._subjects: dict[tuple[Path, str], Subject] = {}

    @cached_property
    def data(self) -> Data:
        data: Data = build(self.cfg.dataset.data)
        return data

    @cached_property
    def _own_data(self) -> str | None:
        """What tells data of somebody's own from others at the same place; published ones are known by their name."""
        data = self.cfg.dataset.data
        path, code = data.get("path"), own_code({"data": OmegaConf.to_container(data, resolve=True)})
        return "-".join(filter(None, (path and fingerprint(path), code))) or None

    @cached_property
    def total(self) -> int:
        """How many test images there are."""
        return len(self.data.test)

    @cached_property
    def test_images(self) -> Split:
        """The first `evaluation.examples` test images (all for null) on the device."""
        examples = self.cfg.evaluation.examples
        whole(self.cfg.evaluation.batch_size, "evaluation.batch_size")
        if examples is not None and (not isinstance(examples, int) or not 1 <= examples <= self.total):
            raise InputError(f"evaluation.examples={examples}; expected between 1 and the {self.total} test images")
        return self.data.test.take(examples).to(self.runtime.torch_device)

    def attack(self, name: str) -> Attack | None:
        """One of `attacks`, by the name that rows use; None for "natural", which is no attack."""
        if name == "natural":
            return None
        if name not in self._attacks:
            known = self.cfg.attacks
            if not isinstance(name, str) or name not in known:
                near = nearest(str(name), known)
                raise InputError(f"unknown attack {name!r}; choose natural, {', '.join(known)}{near}")
            if known[name] is None:
                raise InputError(f"attacks.{name}=null is no attack; leave {name} out of the rows instead")
            self._attacks[name] = measurable(build(known[name]), f"attacks.{name}")
        return self._attacks[name]

    def pgd(self, name: str) -> PGD:
        """One of `attacks` that has to be PGD."""
        attack = self.attack(name)
        if not isinstance(attack, PGD):
            raise InputError(f"attacks.{name} is not PGD, which this measurement needs")
        return attack

    def run(self, model: str, training: str, seed: int) -> Run:
        """The run that train.py makes of these choices and of what was typed here, as far as it knows that."""
        if (model, training) not in self._composed:
            if not (isinstance(model, str) and isinstance(training, str)):
                raise InputError(
                    f"no network is called model={model} training={training}; expected names, such as wide"
                )
            overrides = for_training(typed())
            self._composed[model, training] = Run.of([*overrides, f"model={model}", f"training={training}"])
        if (model, training, seed) not in self._runs:
            self._runs[model, training, seed] = self._composed[model, training].with_seed(seed)
        return self._runs[model, training, seed]

    def subject(self, model: str, training: str, seed: int, checkpoint: str | None = None) -> Subject | None:
        """A finished run under measurement; None, said so, where there is none. The checkpoint is as configured."""
        checkpoint = checkpoint or self.cfg.evaluation.checkpoint
        if checkpoint not in CHECKPOINTS:
            raise InputError(f"evaluation.checkpoint={checkpoint}; choose {', '.join(CHECKPOINTS)}")
        run = self.run(model, training, seed)
        directory = run.directory
        if not directory.finished:
            if directory.path not in self.missing:
                log.warning("not trained yet: %s", directory.path)
                self.missing.append(directory.path)
            return None
        if (directory.path, checkpoint) not in self._subjects:
            trained, wanted = directory.read_config().get("threat"), run.definition["threat"]
            if canonical(trained) != canonical(wanted):  # which a config file of the user's can change under a name
                difference = difference_between(trained, wanted, "threat")
                raise InputError(
                    f"{directory.path} is of another threat ({difference}); make it again with overwrite=true"
                )
            if directory.path not in self._warned:
                run.warn_of_changed_code()
                self._warned.add(directory.path)
            device = self.runtime.torch_device
            self._subjects[directory.path, checkpoint] = Subject(
                directory,
                checkpoint,
                lambda: run.load(checkpoint, device),
                self.runtime,
                self.command,
                self._own_data,
                own_code({"network": run.definition["dataset"].get("network")}),
            )
        return self._subjects[directory.path, checkpoint]

    def measure(self, wanted: Measurement[R]) -> R | None:
        """The result, measured now or earlier; None where one of its networks is not trained."""
        subject = self.subject(*wanted.network, wanted.checkpoint)
        source = self.subject(*wanted.source) if wanted.source else None
        if subject is None or (wanted.source and source is None):
            return None
        self.release(subject, source)
        return wanted.make(self, subject, source)

    def release(self, *kept: Subject | None) -> None:
        """Free the memory of all other networks."""
        for each in self._subjects.values():
            if each not in kept:
                each.__dict__.pop("model", None)

    def accuracy(
        self,
        subject: Subject,
        name: str,
        attack: Attack | None,
        source: Subject | None = None,
        examples: int | None = None,
        limited: bool = True,
    ) -> Result[Accuracy]:
        """The accuracy under an attack (None: on the images as they are) on the first `examples` test images.

        `limited`: the slowest attacks see only the first `report.at_most`. With `source` the examples are made there.
        """
        settings = self.cfg.evaluation
        if settings.precision not in PRECISIONS:
            raise InputError(f"evaluation.precision={settings.precision}; choose {' or '.join(PRECISIONS)}")
        limits = [examples, self.cfg.report.at_most.get(name) if limited else None]
        part = self.test_images.take(min([len(self.test_images), *(limit for limit in limits if limit is not None)]))
        return subject.accuracy(
            name,
            attack,
            part,
            self.total,
            batch_size=settings.batch_size,
            seed=settings.seed,
            precision=settings.precision,
            source=source,
        )

    @property
    def comparable(self) -> bool:
        """Whether these numbers compare with the paper's: the training and the attacks are as our files have them."""
        if self._own_data is not None:  # whatever they are called
            return False
        ours = all(shipped(group, self.choices.get(group)) for group in ("experiment", "evaluation", "report"))
        return ours and all(key.split(".")[0] in SCRIPTS and not key.startswith(TELLING) for key in self.differences)

    @cached_property
    def folder(self) -> Path:
        """<output_dir>/<dataset>/report, with what differs added to its name: tables/ and figures/ go there."""
        named = {key: value for key, value in self.differences.items() if key not in UNNAMED}
        return data_folder(self.cfg) / shortened(f"report{self.cfg.recipe.suffix}{spelled(named)}")

    def report(self) -> Report:
        """The folder, to be filled; logger=wandb shows its figures."""
        kept = [each for each in typed() if name_of(each) not in UNNAMED and top(each) not in ("logger", "runtime")]
        return Report(self.folder, self.command, self.tracker(), self.definition, kept)

    def tracker(self) -> Tracker:
        """A new one, as the logger says: each shows one run."""
        made: Tracker = build(self.cfg.logger.tracker)
        return made

    def _refuse_choices(self) -> None:
        """Raises InputError for a choice of no runs, of unknown ones, or of no images."""
        cfg = self.cfg
        whole(cfg.seeds, "seeds")
        if "natural" in cfg.attacks:
            raise InputError("attacks.natural would hide the natural accuracy; give the attack another name")
        for name, group, runs in (("models", "model", "{}-*"), ("trainings", "training", "*-{}*")):
            refuse_text(name, cfg[name])
            known = sorted({path.stem for folder in config_folders() for path in (folder / group).glob("*.yaml")})
            found = [path.name for path in data_folder(cfg).glob("*")]
            for each in map(str, cfg[name]):  # a file may give it another name, as only its runs can tell
                if each not in known and not fnmatch.filter(found, runs.format(each)):
                    choices = f"choose from {', '.join(known)}{nearest(each, known)}"
                    raise InputError(f"{name}=[{each}]: unknown {group} {each!r}; {choices}")
        if not cfg.models or not cfg.trainings:
            raise InputError(f"models={cfg.models} trainings={cfg.trainings}; expected at least one of each")
        for part in cfg.report:
            settings = None if OmegaConf.is_interpolation(cfg.report, part) else cfg.report[part]
            if isinstance(settings, DictConfig):
                for several in ("models", "trainings"):
                    refuse_text(f"report.{part!s}.{several}", settings.get(several))
                if settings.get("examples") is not None:
                    whole(settings.examples, f"report.{part!s}.examples")
        if cfg.evaluation.checkpoint != "last" and self.script not in ("accuracy_table", "export"):
            raise InputError(
                f"evaluation.checkpoint={cfg.evaluation.checkpoint} is for accuracy_table.py and export.py; "
                "methods_table.py shows the last and the best"
            )


def refuse_text(name: str, values: Any) -> None:
    """Raises InputError naming `name` if a text stands where a list of texts is expected."""
    if isinstance(values, str):
        raise InputError(f"{name}={values}; expected a list such as [{values}]")
