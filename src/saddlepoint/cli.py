"""What turns a script into a command: Hydra's overrides and sweeps, a help page, and errors of one line."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import itertools
import logging
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, cast

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from saddlepoint.errors import InputError, Stopped, flag, nearest
from saddlepoint.runs import CONFIGS, DIRECTIVES, KINDS, chosen, compose, one_line, placeholder, quoted
from saddlepoint.runtime import STOPS, part

log = logging.getLogger(__name__)

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
# Settings of several parts that may be null.
OPTIONAL = ("augmentation", "grow")
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


def entry(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a function of the config a command: Hydra's overrides and sweeps, --help, and errors of one line.

    The help page begins with the docstring of the function's module.
    Exit status: 2 for what the user can correct, 130 for SIGINT (Ctrl-C) and 143 for SIGTERM.
    """

    def decorate(function: Callable[[DictConfig], None]) -> Callable[[], None]:
        composed: list[bool] = []  # whether Hydra has come to the function

        @functools.wraps(function)  # Hydra names the job after the function's module
        def job(cfg: DictConfig) -> None:
            composed.append(True)
            if another_process():
                logging.getLogger().setLevel(logging.ERROR)
            try:
                _compare_kinds(cfg)
                if config_name == "train":
                    _refuse_unread(cfg)
                with _memory(cfg, "recipe.batch_size" if config_name == "train" else "evaluation.batch_size"):
                    function(cfg)
            except (InputError, HydraException, OmegaConfBaseException) as error:
                message = str(error) if isinstance(error, InputError) else _explain(error, config_name)
                if HydraConfig.get().mode == RunMode.MULTIRUN:  # its other jobs still run, and its end names one alone
                    log.error("failed: %s", _as_typed(message))
                    raise
                _leave(message)

        main = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(job)

        def run() -> None:
            composed.clear()
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach us instead of being printed with hints
            logging.getLogger("matplotlib").setLevel(logging.WARNING)
            logging.raiseExceptions = False  # after `| head` the work continues without log messages
            handlers = {each: signal.signal(each, _stop) for each in STOPS}
            try:
                sys.argv[1:] = arguments(sys.argv[1:], config_name)
                if {"-h", "--help"} & set(sys.argv[1:]):  # which configs/hydra/quiet.yaml lays out
                    sys.argv.append(f"hydra.help.header={quoted(function.__globals__['__doc__'].strip())}")
                main()
            except InputError as error:
                _leave(str(error))
            except (HydraException, OmegaConfBaseException) as error:
                _leave(_explain(error, config_name))
            except (ValueError, TypeError, LookupError, AssertionError) as error:  # Hydra's, of one of the overrides
                if composed or (culprit := _culprit(config_name)) is None:
                    raise
                _leave(_explain_override(culprit, error, config_name))
            except Stopped as stopped:
                if another_process():
                    sys.exit(128 + stopped.signum)
                name = signal.Signals(stopped.signum).name
                again = ", without overwrite=true" if "overwrite=true" in map(str.lower, sys.argv) else ""
                _leave(f"stopped by {name}; repeat the command to resume{again}", 128 + stopped.signum)
            else:
                part()
            finally:
                logging.raiseExceptions = True
                for each, handler in handlers.items():
                    signal.signal(each, handler)

        return run

    return decorate


def another_process() -> bool:
    """Whether this is one of torchrun's processes but not the first, which speaks for all."""
    return os.environ.get("RANK", "0") != "0"


@contextmanager
def _memory(cfg: DictConfig, setting: str) -> Iterator[None]:
    """Too little memory on the device becomes one line that names the batch size."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        size = OmegaConf.select(cfg, setting)
        what = "this does" if size is None else f"{setting}={size} images do"
        held_out = ", or for held-out images +monitor.batch_size=50" if setting == "recipe.batch_size" else ""
        remedy = "" if size is None else f"; lower it{held_out}"
        raise InputError(f"{what} not fit in the device's memory{remedy}") from None


def _choices(group: str) -> list[str]:
    """Ours, and those of a --config-dir."""
    return sorted({path.stem for folder in [CONFIGS, *_brought()] for path in (folder / group).glob("*.yaml")})


def _brought() -> list[Path]:
    """The folder of a --config-dir, if there is one."""
    return list(map(Path, re.findall(r"(?:^|\n)(?:--config-dir|-cd)[=\n](.*)", "\n".join(sys.argv[1:]))))


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped(signum)


def _leave(message: str, status: int = 2) -> None:
    if another_process():  # most often all fail alike, and torchrun ends the others once the first has left
        for each in STOPS:
            signal.signal(each, signal.SIG_DFL)
        time.sleep(5)
    print(f"error: {_as_typed(message)}", file=sys.stderr)
    sys.exit(status)


def _as_typed(message: str) -> str:
    """In one line, with null, which Python calls None, and with characters that a terminal would not show escaped."""
    message = re.sub(r"(=|=\[|, |unknown \w+ )('?)None\2(?=[;,: \]]|$)", r"\1null", message)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in message)


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
    quoted = [_quoted(each, sweeps) for each in overrides]
    _refuse([_parsed(each) for each in quoted], sweeps, config_name)
    if config_name == "evaluate":
        quoted = [part for each in quoted for part in _taken_away(each, quoted)]
    return [*options, *quoted]


def _taken_away(override: str, overrides: Sequence[str]) -> list[str]:
    """A script may not have what a training takes away: it is put there first. runs.for_training leaves that out."""
    there = placeholder(override)
    of_a_training = override.startswith(("~monitor.", "~trainer.", "~training.", "~model.")) and "=" not in override
    return [there, override] if of_a_training and there not in overrides else [override]


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


def _parsed(override: str) -> Override:
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
        found = _parsed(override)
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
                raise InputError(f"{line}: hydra is needed; choose {', '.join(_choices(key))}")
            if not all(isinstance(one, str) for one in (given if isinstance(given, list) else [given])):
                raise InputError(f"{line}: unknown {key}; choose {', '.join(_choices(key))}")


def _refuse_unread(cfg: DictConfig) -> None:
    """Raises InputError for a setting that was added where nothing reads it: it would only change the run's name."""
    command = HydraConfig.get()
    for override in map(_parsed, command.overrides.task):
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


def _compare_kinds(cfg: DictConfig) -> None:
    """Raises InputError where one value stands for several, or several for one, unlike what the choices give."""
    command = HydraConfig.get()
    if not command.overrides.task:
        return
    choices = chosen(OmegaConf.create({"hydra": {"runtime": {"choices": dict(command.runtime.choices)}}}))
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
            raise InputError(f"{name}={_listed(value)}; expected {several} such as {_listed(expected)}")


def _listed(value: Any) -> str:
    """As it is typed: without spaces, and texts without quotes."""
    if isinstance(value, ListConfig):
        return f"[{','.join(map(_listed, value))}]"
    return "null" if value is None else str(value)


def _shown(node: DictConfig, key: Any) -> str:
    """A value for an example; what has parts, or is not there, as dots."""
    try:
        return "..." if OmegaConf.is_missing(node, key) or OmegaConf.is_config(node[key]) else str(node[key])
    except InterpolationResolutionError:
        return "..."


def _explain(error: Exception, config_name: str) -> str:
    """Hydra's or OmegaConf's error in one line, with the choices and the nearest name for an unknown one."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, given = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and given.startswith("submitit"):
            return "hydra/launcher=slurm needs a package that is not installed: pip install -e .[slurm]"
        if group.startswith("recipe/") or group == "report":  # which are looked for on behalf of dataset=...
            if given in _choices("dataset") and group in ("recipe/paper", "recipe/fast", "report"):
                return (
                    f"dataset={given} has no {group}/{given}.yaml; write one for your own, such as 'defaults: [digits]'"
                )
            group = "dataset"
        choices = sorted({*_choices(group), *(error.options or [])})
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
    culprit = _culprit(config_name)
    return one_line(error) if culprit is None else _explain_override(culprit, error, config_name)


def _takes(target: Any, argument: str) -> bool:
    """Whether a `_target_` may be called with this argument, as far as one can tell."""
    try:
        parameters = inspect.signature(hydra.utils.get_object(target)).parameters
    except Exception:  # noqa: BLE001 (importing it runs somebody's code)
        return True
    return argument in parameters or any(each.kind == each.VAR_KEYWORD for each in parameters.values())


def _explain_override(culprit: str, error: Exception, config_name: str) -> str:
    """Of an error without attributes, by the override that leads to it."""
    override, known = _parsed(culprit), settings(config_name)
    key = override.key_or_group
    if override.is_delete() and key not in known:
        return f"{culprit}: unknown setting {key!r}{nearest(key, known)}; see all of them with --cfg job"
    if override.is_delete() and (CONFIGS / key).is_dir():
        return f"{culprit}: {key} is needed; choose {', '.join(_choices(key))}"
    with contextlib.suppress(Exception):  # a choice may be wrong too
        if override.is_delete() and OmegaConf.select(compose(config_name, _chosen()), key) is None:
            return f"{culprit}: {key} is null, which cannot be taken away; leave this out"
    if override.is_add() and key in known:
        return f"{culprit}: there is a {key} already; write {culprit.lstrip('+')}"
    above = key.rpartition(".")[0]
    if above in known and isinstance(whole := OmegaConf.select(compose(config_name, []), above), ListConfig):
        return f"{culprit}: {above} is a list; write all of it, such as {above}={_listed(whole)}"
    return f"{culprit}: {one_line(error)}"


def _culprit(config_name: str) -> str | None:
    """The first override that Hydra cannot take alone, with what is chosen, or after the others; None if none."""
    typed = [each for each in sys.argv[1:] if each[0:1] != "-" and ("=" in each or each.startswith("~"))]
    folder = next((each for each in _brought() if each.is_dir()), None)
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


def settings(config_name: str) -> list[str]:
    """The names of all settings, as the defaults have them."""

    def names(node: Any, above: str) -> list[str]:
        below = node if isinstance(node, dict) else {}
        return [above, *(name for key, value in below.items() for name in names(value, f"{above}.{key}"))]

    config = OmegaConf.to_container(compose(config_name, []))
    assert isinstance(config, dict)
    config = {"experiment": None, **config}  # a group that adds to the others and is nothing itself
    return [name for key, value in config.items() if key != "hydra" for name in names(value, str(key))]
