"""Hydra's and OmegaConf's errors in one line, with the choices and the nearest name."""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import Any

import hydra
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from saddlepoint.build import DIRECTIVES
from saddlepoint.cli.check import listed
from saddlepoint.cli.typed import choices_of, config_dirs, parsed, settings
from saddlepoint.compose import CONFIGS, compose
from saddlepoint.errors import nearest, one_line


def explain(error: Exception, config_name: str) -> str:
    """Hydra's or OmegaConf's error in one line, with the choices and the nearest name for an unknown one."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, given = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and given.startswith("submitit"):
            return "hydra/launcher=slurm needs a package that is not installed: pip install -e .[slurm]"
        if group.startswith("recipe/") or group == "report":  # which are looked for on behalf of dataset=...
            if given in choices_of("dataset") and group in ("recipe/paper", "recipe/fast", "report"):
                return (
                    f"dataset={given} has no {group}/{given}.yaml; write one for your own, such as 'defaults: [digits]'"
                )
            group = "dataset"
        choices = sorted({*choices_of(group), *(error.options or [])})
        return f"unknown {group} {given!r}; choose {', '.join(choices)}{nearest(given, choices)}"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    name = getattr(cause, "full_key", None)
    if isinstance(cause, MissingMandatoryValue):
        return f"{name} is not set; add {name}=..."
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and not isinstance(error, OmegaConfBaseException):
        above, _, last = str(name).rpartition(".")
        if last in DIRECTIVES:
            return f"to replace {above} as a whole, write '~{above}' '+{above}={{_target_: ...}}'"
        made = cause.parent_node.get("_target_") if isinstance(cause.parent_node, DictConfig) else None
        more = f", or put + in front to pass it to {made}" if made and _takes(made, last) else ""
        near = nearest(str(name), settings(config_name))
        return f"unknown setting {name!r}{near}; see all of them with --cfg job{more}"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return f"{name} is missing; remove what takes it away, or add +{name}=..."
    if isinstance(cause, InterpolationResolutionError):
        return f"{name} refers to what is not there ({str(cause).splitlines()[0]})"
    if isinstance(cause, OmegaConfBaseException):
        return f"{name}: {str(cause).splitlines()[0]}"
    culprit = culprit_of(config_name)
    return one_line(error) if culprit is None else explain_override(culprit, error, config_name)


def _takes(target: Any, argument: str) -> bool:
    """Whether a `_target_` may be called with this argument, as far as one can tell."""
    try:
        parameters = inspect.signature(hydra.utils.get_object(target)).parameters
    except Exception:  # noqa: BLE001 (importing it runs somebody's code)
        return True
    return argument in parameters or any(each.kind == each.VAR_KEYWORD for each in parameters.values())


def explain_override(culprit: str, error: Exception, config_name: str) -> str:
    """Of an error without attributes, by the override that leads to it."""
    override, known = parsed(culprit), settings(config_name)
    key = override.key_or_group
    if override.is_delete() and key not in known:
        return f"{culprit}: unknown setting {key!r}{nearest(key, known)}; see all of them with --cfg job"
    if override.is_delete() and (CONFIGS / key).is_dir():
        return f"{culprit}: {key} is needed; choose {', '.join(choices_of(key))}"
    with contextlib.suppress(Exception):  # a choice may be wrong too
        if override.is_delete() and OmegaConf.select(compose(config_name, _chosen()), key) is None:
            return f"{culprit}: {key} is null, which cannot be taken away; leave this out"
    if override.is_add() and key in known:
        return f"{culprit}: there is a {key} already; write {culprit.lstrip('+')}"
    above = key.rpartition(".")[0]
    if above in known and isinstance(whole := OmegaConf.select(compose(config_name, []), above), ListConfig):
        return f"{culprit}: {above} is a list; write all of it, such as {above}={listed(whole)}"
    return f"{culprit}: {one_line(error)}"


def culprit_of(config_name: str) -> str | None:
    """The first override that Hydra cannot take alone, with what is chosen, or after the others; None if none."""
    typed = [each for each in sys.argv[1:] if each[0:1] != "-" and ("=" in each or each.startswith("~"))]
    folder = next((each for each in config_dirs() if each.is_dir()), None)
    for choices in ([], _chosen()):
        for each in typed:
            try:
                compose(config_name, [*choices, *([each] if each not in choices else [])], folder)
            except Exception:  # noqa: BLE001 (which is what is looked for)
                return each
    for number, each in enumerate(typed, start=1):
        try:
            compose(config_name, typed[:number], folder)
        except Exception:  # noqa: BLE001
            return each
    return None


def _chosen() -> list[str]:
    """Of the overrides those that choose a file of a group."""
    typed = [each for each in sys.argv[1:] if "=" in each and "," not in each]
    return [each for each in typed if (CONFIGS / each.partition("=")[0]).is_dir()]
