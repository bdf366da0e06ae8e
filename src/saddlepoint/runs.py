"""A run: what it is, what it is called, where its files are. With cli.py and lab.py the only ones that know Hydra.

What defines a run is its resolved training config. Its name is for people: the choices of model, training and recipe,
then every setting whose value differs from what these choices give by themselves.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import logging
import os
import pkgutil
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import hydra
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from saddlepoint import own
from saddlepoint.adopt import load_weights
from saddlepoint.data import Data, expanded, fingerprint
from saddlepoint.errors import InputError, nearest, whole
from saddlepoint.files import as_number, canonical, read_json, sha256, write_atomically, write_json
from saddlepoint.runtime import Runtime, generator, seeded
from saddlepoint.tracking import Tracker
from saddlepoint.training import Monitor, Recipe
from saddlepoint.training.checkpoint import CHECKPOINTS, RunDirectory, read_weights

log = logging.getLogger(__name__)

OmegaConf.register_new_resolver("last", lambda values: values[-1], replace=True)

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# Networks of this package, which draw their weights from a generator.
OURS = ("saddlepoint.models.CNN", "saddlepoint.models.ResNet", "saddlepoint.models.ArchitectureB")
# Keys of a config that say how Hydra builds; the others are arguments.
DIRECTIVES = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")
# What has to come of a setting that describes something; others say so where they are used.
KINDS = {"dataset.data": Data, "runtime": Runtime, "monitor": Monitor, "trainer": Recipe, "logger.tracker": Tracker}
# Settings that neither name nor define a run. (A run is not resumed on another kind of device or in another precision.)
ELSEWHERE = ("logger", "output_dir", "data_dir", "overwrite", "trust_network", "runtime", "weights", "hydra")
# The choices that make up a name, and the place of the data.
CHOSEN = ("dataset", "model", "training", "recipe")
OWN_DATA = ("dataset.name", "dataset.data.path", "dataset.channels", "dataset.classes")
LONGEST = 80  # characters of a name


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def quoted(value: str) -> str:
    """A text as an override's value."""
    return QuotedString(value, Quote.single).with_quotes()


def build(config: Any, **extra: Any) -> Any:
    """The object that a config's `_target_` describes; errors of its arguments come out as themselves.

    Raises InputError that names the setting, as the user has it, where that cannot be called so.
    """
    path = str(config._get_full_key(None))
    names = dict(_refuse_calls(config, path, extra))
    try:
        made = hydra.utils.instantiate(config, **extra, _convert_="all")
    except InstantiationException as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        text, _, path = one_line(error).partition(" full_key: ")
        text = text if cause is error else f"{type(cause).__name__}: {one_line(cause)}"
        raise InputError(f"{names.get(path, path)}: {text}") from error
    if path in KINDS and not isinstance(made, KINDS[path]):
        expected = KINDS[path].__name__
        raise InputError(f"{path}._target_={config._target_} makes a {type(made).__name__}; expected a {expected}")
    return made


def _refuse_calls(node: Any, path: str, given: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """(path below the whole config, name of the setting that it refers to) of each `_target_` in a config.

    Raises InputError for one that is not there, or does not take its settings and what else is `given`.
    """
    if isinstance(node, ListConfig):
        for index, each in enumerate(node):
            yield from _refuse_calls(each, f"{path}[{index}]")
    if not isinstance(node, DictConfig) or node._is_none():
        return
    name = str(node._get_full_key(None))
    # By their keys, of which some are numbers: image sizes in recipe.grow.
    arguments = {key: str(key) for key in node if key not in DIRECTIVES}
    if "_target_" in node:
        yield path, name
        for flag in ("_partial_", "_recursive_"):
            if not isinstance(node.get(flag, False), bool):
                raise InputError(f"{name}.{flag}={node[flag]}; choose true or false")
        _refuse_arguments(_found(f"{name}._target_", node._target_), node, name, {*arguments.values(), *given})
    if node.get("_recursive_", True):
        for key, text in arguments.items():
            if not OmegaConf.is_missing(node, key):
                yield from _refuse_calls(node[key], f"{path}.{text}")


def _refuse_arguments(made: Any, node: DictConfig, name: str, given: set[str]) -> None:
    try:
        taken = inspect.signature(made, follow_wrapped=False).parameters
    except ValueError:
        return  # some of the builtins do not say what they take
    unknown = sorted(given - {*taken})
    if unknown and not any(each.kind == each.VAR_KEYWORD for each in taken.values()):
        near, remedy = nearest(unknown[0], [*taken]), " ".join(f"~{name}.{key}" for key in unknown)
        takes = f"{node._target_} takes no {', '.join(unknown)}{near}"
        raise InputError(f"{name}.{unknown[0]}: {takes}; leave out what you added, or add {remedy}")
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    for key, each in list(taken.items())[len(node.get("_args_", ())) :]:
        if not node.get("_partial_") and key not in given and each.default is each.empty and each.kind not in variable:
            later = f"++{name}._partial_=true if it is given later"
            raise InputError(f"{name}.{key} is not set; {node._target_} needs it: add +{name}.{key}=..., or {later}")


def _found(setting: str, target: Any) -> Any:
    """The class or function of this name. Raises InputError naming the setting and the nearest name there is."""
    try:
        found = hydra.utils.get_object(target)
    except Exception as error:  # noqa: BLE001 (importing a module runs it)
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        near = ""
        if isinstance(cause, ModuleNotFoundError) and "." not in str(cause.name):
            near = "; write the whole name, such as torch.optim.Adam, or put its folder into PYTHONPATH, or install it"
        else:
            with suppress(Exception):
                above, _, last = target.rpartition(".")
                near = nearest(last, dir(pkgutil.resolve_name(above)))
        raise InputError(f"{setting}={target}: {one_line(cause)}{near}") from None
    if not callable(found):
        raise InputError(f"{setting}={target} is a {type(found).__name__}; expected a class or a function")
    return found


def own_code(definition: Mapping[str, Any]) -> str | None:
    """A digest of your own files that the `_target_`s of a definition, or of a part of it, need; None for none."""
    made, left = [], list(definition.items())
    while left:
        key, value = left.pop()
        if key == "_target_":
            made.append(_found(key, value))
        elif isinstance(value, Mapping):
            left += value.items()
        elif isinstance(value, list):
            left += [("", each) for each in value]
    return own.code(*made)


@contextmanager
def _composing() -> Iterator[None]:
    """Inside a command Hydra is ready; elsewhere, as in a notebook, it is started for the moment."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            yield


def compose(name: str, overrides: Sequence[str], config_dir: str | Path | None = None) -> DictConfig:
    """The config `name` with these overrides, Hydra's own part included, as a command composes it. Do not change it."""
    # Hydra takes what follows file:// as it is.
    folder = quoted(f"file://{Path(config_dir).resolve()}") if config_dir else ""
    search = [f"hydra.searchpath=[{folder}]"] if config_dir else []
    with _composing():
        # Files of the user's can change between two commands of one process, ours do not.
        theirs = search or (HydraConfig.initialized() and config_folders("command-line"))
        return (_composed.__wrapped__ if theirs else _composed)(name, (*overrides, *search))


@lru_cache(64)
def _composed(name: str, overrides: tuple[str, ...]) -> DictConfig:
    return hydra.compose(name, list(overrides), return_hydra_config=True)


def chosen(config: DictConfig) -> dict[str, str]:
    """What was chosen of each group of configs/; groups inside groups follow from these."""
    choices = config.hydra.runtime.choices
    return {
        group: str(choice)
        for group, choice in choices.items()
        if not group.startswith("hydra") and not {"/", "@"} & set(group) and choice is not None
    }


def shipped(group: str, choice: str | None) -> bool:
    """Whether what was chosen of a group, if anything was, is one of our files."""
    return choice in (None, "null") or (CONFIGS / group / f"{choice}.yaml").exists()


def differences(config: DictConfig) -> dict[str, Any]:
    """What differs from the config that the choices alone give: other choices, then settings by name, with values.

    Values are compared and not what was typed: 4/16 is 0.25. A setting that only refers to another is left out.
    """
    name = str(config.hydra.job.config_name)
    choices = chosen(config)
    experiment = choices.get("experiment")
    kept = [key for key in CHOSEN if key in choices]
    kept += ["experiment"] if experiment and shipped("experiment", experiment) else []
    base_choices = [f"{key}={choices[key]}" for key in kept]
    typed = _typed(config.hydra)
    # Files of the user's that give themselves the name of one of ours.
    namesakes: dict[str, Any] = {
        group: choices[group]
        for group in kept
        if not shipped(group, choices[group]) and shipped(group, OmegaConf.select(config, f"{group}.name"))
    }
    if {each for each in typed if _key(each) not in (*ELSEWHERE, "seed")} <= set(base_choices):
        return namesakes
    base = compose(name, base_choices)
    usual = chosen(base)
    others = {
        group: choice
        for group, choice in choices.items()
        if choice != usual.get(group) and group not in (*CHOSEN, *ELSEWHERE, "experiment", "evaluation", "report")
    }
    if others:
        base = compose(name, [*base_choices, *(f"{group}={choice}" for group, choice in others.items())])
    found: dict[str, Any] = {**namesakes, **others}
    ours, usual_ones = _leaves(config), _leaves(base)
    for path in sorted({*ours, *usual_ones}, key=str):
        raw, plain = ours.get(path, ...), usual_ones.get(path, ...)
        key = ".".join(map(str, path))
        # Data of somebody's own have to be named and are part of every name; what is plain there may have parts here.
        known = path[0] in (*ELSEWHERE, "seed") or key in OWN_DATA or plain == "???"
        known = known or (name != "evaluate" and path[0] not in training_keys())
        if raw == plain or known or (raw is ... and any(each[: len(path)] == path for each in ours)):
            continue
        if raw is ...:
            found[f"~{key}"] = None
        elif plain is ... or canonical(_resolved(config, path)) != canonical(_resolved(base, path)):
            found[key] = _resolved(config, path)
    if name == "evaluate":  # which may not have had what a training takes away
        found |= {each: None for each in typed if each.startswith("~") and placeholder(each) in typed}
    return found


def _leaves(config: DictConfig) -> dict[tuple[Any, ...], Any]:
    """Settings as they are written, references included, by their path."""
    found: dict[tuple[Any, ...], Any] = {}

    def walk(node: Any, path: tuple[Any, ...]) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(value, (*path, key))
        else:
            found[path] = node

    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    walk(OmegaConf.to_container(own), ())
    return found


def _resolved(config: DictConfig, path: Sequence[Any]) -> Any:
    node: Any = config
    for key in path:
        node = node[key]
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def spelled(differing: Mapping[str, Any]) -> str:
    """Differences as the end of a name, such as ",threat.eps=0.2"; "" for none."""

    def text(value: Any) -> str:
        number = as_number(value)
        if number is not None:
            short = repr(int(number)) if number == int(number) else repr(number)
            return short if len(short) <= 8 or not isinstance(value, str) else value
        if isinstance(value, list):
            return "+".join(map(text, value))
        return json.dumps(value) if isinstance(value, dict) or value is None else str(value)

    def part(key: str, value: Any) -> str:
        return key if key.startswith("~") else f"{key}={text(value)}"

    return "".join("," + re.sub(r"[^\w.=~+-]+", "_", part(key, value)) for key, value in differing.items())


def shortened(name: str) -> str:
    """A name of at most LONGEST characters: what is beyond becomes a digest of the whole."""
    if len(name.encode()) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: LONGEST - 30].rsplit(',', 1)[0]},{digest}"


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0].split(".")[0]


def for_training(overrides: Sequence[str]) -> list[str]:
    """Of a command's overrides those that train.py knows too: what sets something that its config has."""
    placeholders = {placeholder(each) for each in overrides if each.startswith("~")}
    return [each for each in overrides if _key(each) in training_keys() and each not in placeholders]


def placeholder(deletion: str) -> str:
    """What lets a script take a setting away that only a training has."""
    return f"++{deletion[1:]}=0"


@cache
def training_keys() -> frozenset[str]:
    """What train.py's config has at the top, and its groups."""
    config = compose("train", [])
    return frozenset({*map(str, config), *config.hydra.runtime.choices})


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
        whole = copy.deepcopy(config)
        OmegaConf.set_struct(whole, False)
        whole.hydra = copy.deepcopy(HydraConfig.get())
        return cls(whole)

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
        typed = [each for each in _typed(self.config.hydra) if each.split("=")[0] not in ("training", "seed")]
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
        resolved: dict[str, Any] = {key: _resolved(self.config, [key]) for key in keys}
        data = resolved["dataset"].get("data", {})  # what lacks it is refused where it is built
        data.pop("root", None)  # the same data, wherever they are
        if "path" in data:  # data of somebody's own are known by their content
            data["data_sha256"] = fingerprint(data.pop("path"))
        if (init := resolved.pop("init", None)) is not None:  # as are weights
            path = expanded(str(init))
            resolved["init_sha256"] = sha256(path) if path.is_file() else None  # what is trained needs it no more
        return resolved

    def warn_of_changed_code(self) -> None:
        """Say so where a finished run was trained with other code of your own."""
        code = own_code(self.definition)
        if self.directory.read_summary().get("code", code) != code:
            log.warning("your code has changed since %s was trained", self.directory.path)

    @property
    def overrides(self) -> list[str]:
        """What makes this run of train.py's defaults: its choices, then what was typed besides."""
        choices, typed = chosen(self.config), _typed(self.config.hydra)
        named = [f"{key}={choices[key]}" for key in CHOSEN]
        said = {*CHOSEN, "seed", *(["experiment"] if shipped("experiment", choices.get("experiment")) else [])}
        besides = [each for each in typed if each.split("=")[0] not in said and _key(each) not in ELSEWHERE]
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
    Under "outputs" are the committed ones, too.
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


def command(script: str, *arguments: str) -> str:
    """A line for a shell."""
    return shlex.join(["python", script, *arguments])


def config_folders(provider: str = "") -> list[Path]:
    """Where Hydra looks for config files: ours, and with provider="command-line" what --config-dir named."""
    sources = HydraConfig.get().runtime.config_sources
    return [Path(source.path) for source in sources if source.schema == "file" and provider in source.provider]


def typed() -> list[str]:
    """This command's arguments, for another one like it: --config-dir and overrides."""
    return [*brought(), *_typed(HydraConfig.get())]


def brought() -> list[str]:
    """This command's --config-dir, for another one."""
    return [f"--config-dir={folder}" for folder in config_folders("command-line")]


def _typed(hydra: Any) -> list[str]:
    """Its overrides, with references such as ${threat} as they were written."""
    return [str(each) for each in cast(list[Any], OmegaConf.to_container(hydra.overrides.task))]
