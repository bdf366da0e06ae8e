"""A run: what it is, what it is called, where its files are.

What defines a run is its resolved training config. Its name is for people: the choices of model, training and recipe,
then every setting whose value differs from what these choices give by themselves.
"""

from __future__ import annotations

import copy
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from saddlepoint.adopt import load_weights
from saddlepoint.build import build, own_code
from saddlepoint.compose import (
    CHOSEN,
    ELSEWHERE,
    chosen,
    compose,
    differences,
    overrides_of,
    resolved,
    shipped,
    shortened,
    spelled,
    training_keys,
)
from saddlepoint.data import expanded, fingerprint
from saddlepoint.errors import InputError, one_line, whole
from saddlepoint.files import canonical, read_json, sha256, write_atomically, write_json
from saddlepoint.overrides import top
from saddlepoint.runtime import generator, seeded
from saddlepoint.training.checkpoint import CHECKPOINTS, RunDirectory, read_weights

log = logging.getLogger(__name__)
# Networks of this package, which draw their weights from a generator.
OURS = ("saddlepoint.models.CNN", "saddlepoint.models.ResNet", "saddlepoint.models.ArchitectureB")


def data_folder(config: DictConfig) -> Path:
    """<output_dir>/<dataset>: what is trained on it, and the report."""
    if config.output_dir is None:
        raise InputError("output_dir=null; expected a directory, such as outputs")
    name = config.dataset.name
    if not isinstance(name, str) or Path(name).name != name:
        raise InputError(f"dataset.name={name}; expected a text that can name a directory in output_dir")
    return expanded(str(config.output_dir)) / name


@dataclass(frozen=True)
class Run:
    """One training of one network, done or not.

    Args:
        config: composed for train.py or import_network.py, with Hydra's part.
    """

    config: DictConfig

    @classmethod
    def of(cls, overrides: Sequence[str], config_dir: str | Path | None = None) -> Run:
        """The run that `python train.py overrides` trains."""
        return cls(compose("train", overrides, config_dir))

    @classmethod
    def current(cls, config: DictConfig) -> Run:
        """The run that this command is about, from the config that Hydra gives its function."""
        everything = copy.deepcopy(config)
        OmegaConf.set_struct(everything, False)
        everything.hydra = copy.deepcopy(HydraConfig.get())
        return cls(everything)

    def with_seed(self, seed: int) -> Run:
        """The same with another seed."""
        config = copy.copy(self.config)
        config.seed = seed
        other = Run(config)
        other.__dict__["name"] = self.name  # which the seed is not part of
        return other

    @cached_property
    def name(self) -> str:
        config = self.config
        name = f"{config.model.name}-{config.training.name}{config.recipe.suffix}"
        if Path(name).name != name:
            raise InputError(f"{name} is no name of a directory; a run is stored inside output_dir")
        return shortened(name + spelled(differences(config)))

    @property
    def taught_by(self) -> str | None:
        """The training of the network whose examples this one learns; None for most."""
        name: str | None = self.config.training.get("source")
        return name

    @property
    def passes(self) -> int:
        """Forward and backward passes an example, as its method says; else those of the attack and one.

        1 for what cannot be built: train.py refuses it.
        """
        try:
            objective, steps = build(self.config.training.objective), self.config.recipe.attack.steps
        except (InputError, OmegaConfBaseException):
            return 1
        return int(getattr(objective, "passes", 1 + steps if isinstance(steps, int) else 1))

    def source(self) -> Run | None:
        """The run, of the same model and seed, whose network this training learns from; None for most."""
        name = self.taught_by
        if name is None:
            return None
        typed = [each for each in overrides_of(self.config.hydra) if each.split("=")[0] not in ("training", "seed")]
        return Run.of([*typed, f"training={name}", f"seed={self.config.seed}"])

    @cached_property
    def directory(self) -> RunDirectory:
        """<output_dir>/<dataset>/<name>/seed<seed>."""
        whole(self.config.seed, "seed", least=0)
        return RunDirectory(data_folder(self.config) / self.name / f"seed{self.config.seed}")

    @cached_property
    def definition(self) -> dict[str, Any]:
        """What defines the run, as plain values with every reference resolved."""
        keys = [str(key) for key in self.config if key in training_keys() and key not in ELSEWHERE]
        found: dict[str, Any] = {key: resolved(self.config, [key]) for key in keys}
        data = found["dataset"].get("data", {})  # what lacks it is refused where it is built
        data.pop("root", None)  # the same data, wherever they are
        if "path" in data:  # data of somebody's own are known by their content
            data["data_sha256"] = fingerprint(data.pop("path"))
        if (init := found.pop("init", None)) is not None:  # as are weights
            path = expanded(str(init))
            found["init_sha256"] = sha256(path) if path.is_file() else None  # what is trained needs it no more
        return found

    def warn_of_changed_code(self) -> None:
        """Say so where a finished run was trained with other code of your own."""
        code = own_code(self.definition)
        if self.directory.read_summary().get("code", code) != code:
            log.warning("your code has changed since %s was trained", self.directory.path)

    @property
    def overrides(self) -> list[str]:
        """What makes this run of train.py's defaults: its choices, then what was typed besides."""
        choices, typed = chosen(self.config.hydra), overrides_of(self.config.hydra)
        named = [f"{key}={choices[key]}" for key in CHOSEN]
        said = {*CHOSEN, "seed", *(["experiment"] if shipped("experiment", choices.get("experiment")) else [])}
        besides = [each for each in typed if each.split("=")[0] not in said and top(each) not in ELSEWHERE]
        return [*named, *besides, f"seed={self.config.seed}"]

    def network(self) -> nn.Module:
        """The configured network, its weights drawn from the seed.

        Ours are given a generator; others draw from torch's, numpy's or Python's.
        """
        described, init = self.config.dataset.network, generator(self.config.seed, "init")
        if described.get("_target_") in OURS:
            network = build(described, generator=init)
        else:
            with seeded(init.initial_seed()):
                network = build(described)
        if not isinstance(network, nn.Module):
            raise InputError(f"dataset.network is a {type(network).__name__}; expected a torch.nn.Module")
        state = network.state_dict()
        if others := [name for name, each in state.items() if not isinstance(each, Tensor)]:
            raise InputError(f"dataset.network keeps {others[0]} besides tensors, which a file of weights cannot hold")
        if lazy := [name for name, each in state.items() if is_lazy(each)]:
            raise InputError(f"dataset.network: {lazy[0]} has no size yet; give it, as nn.LazyLinear cannot be loaded")
        return network

    def first_network(self) -> nn.Module:
        """The network as training begins: with the weights of the file `init`, if there is one."""
        network = self.network()
        if self.config.init is not None:
            path = expanded(str(self.config.init))
            if not path.is_file():
                raise InputError(
                    f"init={path} is no file; expected a state dict, such as another run's last.safetensors"
                )
            load_weights(network, path)
        return network

    def load(self, checkpoint: str = "last", device: torch.device | str = "cpu") -> nn.Module:
        """The trained network, in eval mode. What is built is what was asked for; the stored config is only compared.

        Raises InputError if there is no such run, or it holds another network.
        """
        directory = self.directory
        if not directory.config.exists():
            raise InputError(f"no run at {directory.path}; train it first with train.py")
        stored = directory.read_config()["dataset"]
        wanted = OmegaConf.to_container(self.config.dataset.network, resolve=True)
        if canonical(stored["network"]) != canonical(wanted):
            difference = difference_between(stored["network"], wanted, "dataset.network")
            raise InputError(f"{directory.path} holds another network ({difference})")
        model = self.network().to(device).eval()
        path = directory.weights(checkpoint)
        trained_on = read_weights(path, model).get("dataset", stored["name"])
        if trained_on != stored["name"]:
            raise InputError(f"{path} was trained on {trained_on}, not {stored['name']}")
        written = directory.read_summary().get(f"{checkpoint}_sha256") if directory.finished else None
        if written not in (None, sha256(path)):
            raise InputError(f"{path} is not what the training wrote; restore it, or train again with overwrite=true")
        return model

    def claim(self, defined: Mapping[str, Any], overwrite: bool) -> None:
        """Make the directory this run's. Raises InputError if it holds a run of another configuration."""
        directory = self.directory
        if overwrite:
            # The summary first: it means finished.
            weights = (directory.weights(checkpoint).name for checkpoint in CHECKPOINTS)
            states = ("state.pt", "previous.pt", "history.csv", "wandb.id", "run.json", "config.yaml")
            for name in ("training.json", *weights, *states):
                (directory.path / name).unlink(missing_ok=True)
        if directory.config.exists():
            try:
                stored = yaml.safe_load(directory.config.read_text())
            except (yaml.YAMLError, UnicodeDecodeError):
                raise InputError(f"{directory.config} is damaged; overwrite=true starts the run again") from None
            if canonical(stored) != canonical(defined):
                raise InputError(
                    f"{directory.path} holds another configuration ({difference_between(stored, defined)}); "
                    "choose another output_dir, or overwrite=true to start it again"
                )
        else:
            write_json(directory.path / "run.json", {"overrides": self.overrides})
            write_atomically(directory.config, yaml.safe_dump(dict(defined), sort_keys=False).encode())

    def overwrites(self) -> bool:
        """The setting. Raises InputError where it would destroy what a restarted job has."""
        given: bool = self.config.overwrite
        if given and os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
            raise InputError(
                "overwrite=true in a job that SLURM has started again would discard its own state; leave it out"
            )
        return given


def difference_between(stored: Any, wanted: Any, name: str = "") -> str:
    """In words, the first setting that differs."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in [*wanted, *stored]:
            if canonical(stored.get(key)) != canonical(wanted.get(key)):
                return difference_between(stored.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
    there, here = ("null" if each is None else each for each in (stored, wanted))
    return f"{name or 'config'} is {there} there and {here} here"


def load(
    folder: str | Path, *overrides: str, checkpoint: str = "last", config_dir: str | Path | None = None
) -> nn.Module:
    """The network of a run's folder, such as outputs/reference/mnist/wide-pgd-fast/seed0, in eval mode on the CPU.

    It is built from our configs by the names that the run gives, and from `overrides`, where the run changed the
    network; nothing that the folder holds is executed. Raises InputError if the folder holds another network.
    """
    directory = RunDirectory(folder)
    if not directory.config.exists():
        raise InputError(f"no run at {folder}; its folder holds config.yaml and last.safetensors")
    if config_dir is not None and not Path(config_dir).is_dir():
        raise InputError(f"no folder {config_dir} of config files")
    stored, made = directory.read_config(), directory.path / "run.json"
    names = [f"{group}={stored[group]['name']}" for group in ("dataset", "model")]
    # A choice may have another name than its file, as dataset=own has. Names and numbers alone are taken: a value such
    # as {_target_: os.system} would be built.
    typed = (read_json(made).get("overrides") or []) if made.exists() else []
    plain = re.compile(r"(dataset|model|dataset\.(name|channels|classes))=[\w-]+")
    kept = [each for each in map(str, typed) if plain.fullmatch(each)]
    try:
        run = Run.of([*(kept or names), *overrides], config_dir=config_dir)
    except (HydraException, OmegaConfBaseException) as error:
        yours = "" if config_dir else "; with files of your own, give their folder as config_dir="
        raise InputError(f"{folder}: {one_line(error)}{yours}") from None
    run.__dict__["directory"] = directory  # wherever it was moved
    return run.load(checkpoint)


def results(folder: str | Path = "outputs") -> list[dict[str, Any]]:
    """Every accuracy measured under the folder, a row each; pandas.DataFrame makes a table of them.

    A row has the run's names, what was typed for it (such as threat.eps), the checkpoint, the measurement and its
    attack, the accuracy with its 95% interval (0 to 1), the number of images, the mean loss, and the file.
    The default folder includes the committed results.
    """
    rows = []
    for file in sorted(Path(folder).rglob("results/*.json")):
        result = read_json(file)
        if "accuracy" not in result:
            continue
        key, made = result["key"], file.parents[1] / "run.json"
        typed = (read_json(made).get("overrides") or []) if made.exists() else []
        low, high = result["interval"]
        rows.append(
            {
                **dict(each.lstrip("+").split("=", 1) for each in typed if "=" in each),
                **result["run"],
                "checkpoint": key["checkpoint"],
                "measurement": key["measurement"],
                **{f"attack.{name}": value for name, value in (key.get("attack") or {}).items()},
                "accuracy": result["accuracy"],
                "low": low,
                "high": high,
                "examples": key["examples"],
                "loss": result["loss"],
                "file": str(file),
            }
        )
    return rows
