"""Objects from settings: what a `_target_` describes is made, or refused in one line that names the setting."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf

from saddlepoint import own
from saddlepoint.data import Data
from saddlepoint.errors import InputError, nearest, one_line
from saddlepoint.runtime import Runtime
from saddlepoint.tracking import Tracker
from saddlepoint.training import Monitor, Recipe

# Keys of a config that say how Hydra builds; the others are arguments.
DIRECTIVES = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")
# What has to come of a setting that describes something; others say so where they are used.
KINDS = {"dataset.data": Data, "runtime": Runtime, "monitor": Monitor, "trainer": Recipe, "logger.tracker": Tracker}


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
