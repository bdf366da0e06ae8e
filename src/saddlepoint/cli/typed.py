"""What was typed, as Hydra reads it; what it would refuse in several lines is refused in one."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from saddlepoint.compose import CONFIGS, compose, quoted
from saddlepoint.errors import InputError
from saddlepoint.overrides import of_a_training, placeholder

# Hydra's options, and those of them that a value follows.
OPTIONS = (
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"),
    *("--shell-completion", "-sc", "--info", "-i"),
)
WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    "--experimental-rerun",
)
# Settings that are paths: their values are taken as they are typed.
PATHS = ("output_dir", "data_dir", "init", "weights", "dataset.data.path", "dataset.data.root")
# Options of other programs in this field whose names say nothing about ours.
ELSEWHERE_CALLED = {
    **dict.fromkeys(("lr", "learning_rate"), "recipe.schedule.peak"),
    **dict.fromkeys(("wd", "l2_reg"), "recipe.weight_decay"),
    **dict.fromkeys(("gpu", "gpus", "cuda"), "runtime.device"),
    **dict.fromkeys(("output", "out", "out_dir", "save_dir", "log_dir"), "output_dir"),
    **dict.fromkeys(("data", "data_path", "root"), "data_dir"),
    **dict.fromkeys(("arch", "net", "network"), "model"),
    "bs": "batch_size",
    "epsilon": "threat.eps",
    **dict.fromkeys(("ema", "ema_decay", "swa"), "recipe.averaging"),
    **dict.fromkeys(("init_from", "pretrained", "weights"), "init"),
    "wandb": "logger",
}


def arguments(typed: Sequence[str], config_name: str) -> list[str]:
    """What was typed as Hydra reads it: options first, and paths in quotes.

    Raises InputError for what cannot be read, naming what to type.
    """
    options, overrides, left = [], [], list(typed)
    for each in left:
        if any("\ud800" <= character <= "\udfff" for character in each):  # as Python has such bytes
            raise InputError(
                f"{each}: some of its bytes are not UTF-8; write it in UTF-8, and rename the file if it is one"
            )
    while left:
        each = left.pop(0)
        name, equals, value = each.partition("=")
        if name in WITH_VALUE:
            if not equals and not left:
                raise InputError(f"{name} needs a value, such as {name} {'job' if name in ('--cfg', '-c') else 'mine'}")
            value = value if equals else left.pop(0)
            if name in ("--cfg", "-c") and value not in ("job", "hydra", "all"):
                raise InputError(f"{name} {value}; choose job, hydra or all")
            options += [name, value]
        elif each in OPTIONS:
            options.append(each)
        elif each.startswith("-"):
            follows = left and "=" not in left[0] and not left[0].startswith("-")
            meant = _meant(name, value if equals else left[0] if follows else "true", config_name)
            raise InputError(f"{name} is no option; {meant}")
        else:
            overrides.append(each)
    sweeps = bool({"-m", "--multirun"} & set(options))
    if sweeps and {"--cfg", "-c"} & set(options):
        raise InputError("--cfg shows the settings of one run; leave out -m, and choose one value of each sweep")
    written = [_quoted(each, sweeps) for each in overrides]
    _refuse([parsed(each) for each in written], sweeps, config_name)
    if config_name == "evaluate":
        written = [part for each in written for part in _taken_away(each, written)]
    return [*options, *written]


def _taken_away(override: str, overrides: Sequence[str]) -> list[str]:
    """What a training takes away and a script may lack is added first, so that Hydra can take it away.

    compose.for_training drops the addition.
    """
    there, bare = placeholder(override), override.startswith("~") and "=" not in override
    return [there, override] if bare and of_a_training(override) and there not in overrides else [override]


def _meant(option: str, value: str, config_name: str) -> str:
    """What somebody has to type who types --option value."""
    name, known = option.lstrip("-").replace("-", "_").lower(), settings(config_name)
    name = ELSEWHERE_CALLED.get(name, name)
    ends = [each for each in known if each == name or each.endswith(f".{name}")]
    # How something is measured, or on what, before how the network was trained.
    ends.sort(key=lambda each: (each != name, not each.startswith(("evaluation.", "runtime."))))
    if config_name == "evaluate" and name in ("model", "training"):
        return f"write {name}s=[{value}]"
    if not ends:
        return "settings are written name=value; see all of them with --cfg job"
    if ends[0] == "logger":
        value = "wandb"
    if ends[0] == "runtime.device" and (value == "true" or value.isdigit()):
        value = "cuda" if value == "true" else f"cuda:{value}"
    return f"write {ends[0]}={value}"


def parsed(override: str) -> Override:
    """Raises InputError with the quotes to type, if Hydra cannot read it."""
    parser = OverridesParser.create()
    try:
        return parser.parse_overrides([override])[0]
    except (OverrideParseException, ValueError, TypeError):
        pass
    key, equals, value = override.partition("=")
    if not equals:
        raise InputError(f"{override!r} is no setting; write name=value, and see all names with --cfg job")
    written = f"{key}={quoted(value)}"
    try:
        parser.parse_overrides([written])
    except (OverrideParseException, ValueError, TypeError):
        raise InputError(f"{key!r} is no name of a setting; see all of them with --cfg job") from None
    raise InputError(f"{override}: not a number, a list or a plain text; as a text, write {_for_a_shell(written)}")


def _for_a_shell(argument: str) -> str:
    """As one types it; double quotes around Hydra's single ones read best, where nothing inside is special."""
    return shlex.quote(argument) if set(argument) & set('"$`\\!') else f'"{argument}"'


def _quoted(override: str, sweeps: bool) -> str:
    """The override with its value in quotes, if it is a path that Hydra would read as something else.

    In a sweep commas separate paths, unless there is a file of the whole name.
    """
    key, equals, value = override.partition("=")
    if not equals or key.lstrip("+") not in PATHS or value == "null":
        return override
    try:
        found = parsed(override)
    except InputError:
        several = sweeps and not Path(value).expanduser().exists()
        return f"{key}={','.join(map(quoted, value.split(',') if several else [value]))}"
    as_typed = isinstance(found._value, str | QuotedString | list | dict) or (found.is_sweep_override() and sweeps)
    return override if as_typed else f"{key}={quoted(value)}"


def _refuse(overrides: Sequence[Override], sweeps: bool, config_name: str) -> None:
    """Raises InputError for what Hydra refuses in several lines, or with an exception that is none of its own."""
    for each in overrides:
        key, line = each.key_or_group, str(each.input_line)
        if each.is_sweep_override() and not sweeps:
            value = line.partition("=")[2]
            text = _for_a_shell(f"{key}={quoted(value)}")
            raise InputError(f"{line}: for a sweep add -m, for a list write {key}=[{value}], for a text {text}")
        if config_name == "evaluate" and key in ("model", "training", "seed"):
            raise InputError(f"{line}: scripts choose runs by models=[...] trainings=[...] seeds=number")
        if (CONFIGS / key).is_dir():
            if each.is_force_add() or (each.is_add() and key != "experiment"):
                raise InputError(f"{line}: write {line.lstrip('+')}")
            given = [] if each.is_delete() or each.is_sweep_override() else each.value()
            if key == "hydra" and given == []:  # whose defaults write a folder
                raise InputError(f"{line}: hydra is needed; choose {', '.join(choices_of(key))}")
            if not all(isinstance(one, str) for one in (given if isinstance(given, list) else [given])):
                raise InputError(f"{line}: unknown {key}; choose {', '.join(choices_of(key))}")


def choices_of(group: str) -> list[str]:
    """Ours, and those of a --config-dir."""
    return sorted({path.stem for folder in [CONFIGS, *config_dirs()] for path in (folder / group).glob("*.yaml")})


def config_dirs() -> list[Path]:
    """The folder of a --config-dir, if there is one."""
    return list(map(Path, re.findall(r"(?:^|\n)(?:--config-dir|-cd)[=\n](.*)", "\n".join(sys.argv[1:]))))


def settings(config_name: str) -> list[str]:
    """The names of all settings, as the defaults have them."""

    def names(node: Any, above: str) -> list[str]:
        below = node if isinstance(node, dict) else {}
        return [above, *(name for key, value in below.items() for name in names(value, f"{above}.{key}"))]

    config = OmegaConf.to_container(compose(config_name, []))
    assert isinstance(config, dict)
    config = {"experiment": None, **config}  # a group that adds to the others and is nothing itself
    return [name for key, value in config.items() if key != "hydra" for name in names(value, str(key))]
