"""The config of a command: composed by Hydra, and how it differs from what its choices give by themselves.

What differs names runs and reports. Values are compared and not what was typed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from saddlepoint.files import as_number, canonical
from saddlepoint.overrides import for_any_script, name_of, placeholder, top

OmegaConf.register_new_resolver("last", lambda values: values[-1], replace=True)
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# Settings that neither name nor define a run. (A run is not resumed on another kind of device or in another precision.)
ELSEWHERE = ("logger", "output_dir", "data_dir", "overwrite", "trust_network", "runtime", "weights", "hydra")
# The choices that make up a name, and the place of the data.
CHOSEN = ("dataset", "model", "training", "recipe")
OWN_DATA = ("dataset.name", "dataset.data.path", "dataset.channels", "dataset.classes")
# Settings of reproduce.py alone.
PLANNING = ("jobs", "items")
LONGEST = 80  # bytes of a name that is not cut


def quoted(value: str) -> str:
    """A text as an override's value."""
    return QuotedString(value, Quote.single).with_quotes()


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


def chosen(hydra: Any) -> dict[str, str]:
    """From Hydra's part of a config: what was chosen of each group of configs/. Groups inside groups follow from it."""
    choices = hydra.runtime.choices
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
    choices = chosen(config.hydra)
    experiment = choices.get("experiment")
    kept = [key for key in CHOSEN if key in choices]
    kept += ["experiment"] if experiment and shipped("experiment", experiment) else []
    base_choices = [f"{key}={choices[key]}" for key in kept]
    said = overrides_of(config.hydra)
    # Files of the user's that give themselves the name of one of ours.
    namesakes: dict[str, Any] = {
        group: choices[group]
        for group in kept
        if not shipped(group, choices[group]) and shipped(group, OmegaConf.select(config, f"{group}.name"))
    }
    if {each for each in said if top(each) not in (*ELSEWHERE, "seed")} <= set(base_choices):
        return namesakes
    base = compose(name, base_choices)
    usual = chosen(base.hydra)
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
        elif plain is ... or canonical(resolved(config, path)) != canonical(resolved(base, path)):
            found[key] = resolved(config, path)
    if name == "evaluate":  # which may not have had what a training takes away
        found |= {each: None for each in said if each.startswith("~") and placeholder(each) in said}
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


def resolved(config: DictConfig, path: Sequence[Any]) -> Any:
    """The setting at this path, as plain values with every reference resolved."""
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
    """A name as it is up to LONGEST bytes; a longer one is cut, and ends in a digest of the whole."""
    if len(name.encode()) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: LONGEST - 30].rsplit(',', 1)[0]},{digest}"


def for_training(overrides: Sequence[str]) -> list[str]:
    """Of a command's overrides those that train.py knows too: what sets something that its config has."""
    placeholders = {placeholder(each) for each in overrides if each.startswith("~")}
    return [each for each in overrides if top(each) in training_keys() and each not in placeholders]


@cache
def training_keys() -> frozenset[str]:
    """What train.py's config has at the top, and its groups."""
    config = compose("train", [])
    return frozenset({*map(str, config), *config.hydra.runtime.choices})


def config_folders(provider: str = "") -> list[Path]:
    """Where Hydra looks for config files: ours, and with provider="command-line" what --config-dir named."""
    sources = HydraConfig.get().runtime.config_sources
    return [Path(source.path) for source in sources if source.schema == "file" and provider in source.provider]


def typed() -> list[str]:
    """This command's arguments, for another one like it: --config-dir and overrides."""
    return [*brought(), *overrides_of(HydraConfig.get())]


def brought() -> list[str]:
    """This command's --config-dir, for another one."""
    return [f"--config-dir={folder}" for folder in config_folders("command-line")]


def overrides_of(hydra: Any) -> list[str]:
    """What was typed, from Hydra's part of a config; references such as ${threat} as they were written."""
    return [str(each) for each in cast(list[Any], OmegaConf.to_container(hydra.overrides.task))]


def next_command(script: str, *settings: str) -> str:
    """A command for what naturally follows: the script with what was typed now, but for the choice of runs."""
    replaced = {"model", "training", "seed", "overwrite", "weights", *PLANNING, *map(name_of, settings)}
    kept = [for_any_script(each) for each in typed() if name_of(each) not in replaced]
    return shlex.join(["python", f"scripts/{script}.py", *kept, *settings])


def measuring(models: Iterable[str], trainings: Iterable[str], last_seed: int) -> str:
    """The command that measures runs that were just made, by their names."""
    several = {"models": models, "trainings": trainings}
    choices = [f"{name}=[{','.join(dict.fromkeys(map(str, found)))}]" for name, found in several.items()]
    return next_command("accuracy_table", *choices, *([f"seeds={last_seed + 1}"] if last_seed else []))
