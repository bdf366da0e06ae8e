"""A composed config against what its choices give: the kinds of its values, and settings that nothing reads."""

from __future__ import annotations

import copy
import itertools
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from saddlepoint.build import KINDS
from saddlepoint.cli.typed import ELSEWHERE_CALLED, parsed, settings
from saddlepoint.compose import chosen, compose
from saddlepoint.errors import InputError, flag, nearest

# Settings of several parts that may be null.
OPTIONAL = ("augmentation", "grow")


def refuse_unread(cfg: DictConfig) -> None:
    """Raises InputError for a setting that was added where nothing reads it: it would only change the run's name."""
    command = HydraConfig.get()
    for override in map(parsed, command.overrides.task):
        key = override.key_or_group
        group = {"@", "/"} & set(key) or key in command.runtime.choices
        if not (override.is_add() or override.is_force_add()) or group or key in settings("train"):
            continue
        if OmegaConf.select(cfg, key) is None:  # what follows took it away
            continue
        nodes = [OmegaConf.select(cfg, each) for each in itertools.accumulate(key.split("."), "{}.{}".format)]
        passed_on = any(isinstance(node, DictConfig) and "_target_" in node for node in nodes)
        if not passed_on and _others(cfg, key, "a") == _others(cfg, key, "b"):
            last = key.rpartition(".")[2]
            near = nearest(ELSEWHERE_CALLED.get(last, last), settings("train"))
            raise InputError(f"{override.input_line}: nothing reads {key}{near}; see all settings with --cfg job")


def _others(cfg: DictConfig, key: str, value: str) -> Any:
    """All other settings, resolved, where this one has the value; where one of them then fails, what equals nothing."""
    changed = copy.deepcopy(cfg)
    OmegaConf.set_struct(changed, False)
    OmegaConf.update(changed, key, value, merge=False)
    try:
        whole = node = cast(Any, OmegaConf.to_container(changed, resolve=True))
    except OmegaConfBaseException:
        return object()
    *parents, last = key.split(".")
    for each in parents:
        node = node[each if each in node else int(each)]
    del node[last if last in node else int(last)]
    return whole


def compare_kinds(cfg: DictConfig) -> None:
    """Raises InputError where one value stands for several, or several for one, unlike what the choices give."""
    command = HydraConfig.get()
    if not command.overrides.task:
        return
    choices = chosen(command)
    usual = compose(str(command.job.config_name), [f"{group}={choice}" for group, choice in choices.items()])
    _compare_below(cfg, usual, "")


def _compare_below(given: DictConfig, usual: DictConfig, above: str) -> None:
    for key in usual:
        name = f"{above}{key!s}"
        if OmegaConf.is_missing(given, key) and not OmegaConf.is_missing(usual, key):
            raise InputError(f"{name} is not set; add {name}=...")
        if key == "hydra" or key not in given or OmegaConf.is_missing(usual, key):
            continue
        written = given._get_node(key)
        refers = OmegaConf.is_interpolation(given, cast("str", key))
        if refers and written == usual._get_node(key):
            continue  # what it refers to has another name, which was typed
        if refers and name in KINDS:
            raise InputError(f"{name}={written}; expected settings of its own, with a _target_")
        try:
            expected, value = usual[key], given[key]
        except InterpolationResolutionError:
            continue  # whoever uses it says so
        if isinstance(expected, bool):
            flag(value, name)
        if expected is None or (value is None and (not OmegaConf.is_config(expected) or key in OPTIONAL)):
            continue
        if isinstance(expected, DictConfig):
            if not isinstance(value, DictConfig):
                below = [f"{name}.{each!s}={_shown(expected, each)}" for each in expected if each != "_partial_"]
                raise InputError(f"{name}={value}; expected settings such as {' '.join(below)}")
            if "_target_" in expected and not isinstance(value.get("_target_"), str):
                raise InputError(f"{name} has no _target_, which says what to make; expected {expected._target_}")
            _compare_below(value, expected, f"{name}.")
        elif isinstance(expected, ListConfig) != isinstance(value, ListConfig) or isinstance(value, DictConfig):
            several = "a list" if isinstance(expected, ListConfig) else "one value"
            raise InputError(f"{name}={listed(value)}; expected {several} such as {listed(expected)}")


def listed(value: Any) -> str:
    """As it is typed: without spaces, and texts without quotes."""
    if isinstance(value, ListConfig):
        return f"[{','.join(map(listed, value))}]"
    return "null" if value is None else str(value)


def _shown(node: DictConfig, key: Any) -> str:
    """A value for an example; what has parts, or is not there, as dots."""
    try:
        return "..." if OmegaConf.is_missing(node, key) or OmegaConf.is_config(node[key]) else str(node[key])
    except InterpolationResolutionError:
        return "..."
