"""What turns a script into a command: Hydra's overrides and sweeps, a help page, and errors of one line."""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saddlepoint.errors import InputError, Stopped, nearest
from saddlepoint.runs import CONFIGS, one_line
from saddlepoint.runtime import STOPS, part

log = logging.getLogger(__name__)


def entry(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a function of the config a command: Hydra's overrides and sweeps, --help, and errors of one line.

    The help page is the docstring of the function's module, and what the config files say of themselves.
    Exit status: 2 for what the user can mend, 130 for SIGINT (Ctrl-C) and 143 for SIGTERM.
    """

    def decorate(function: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(function)  # Hydra names the job after the function's module
        def job(cfg: DictConfig) -> None:
            if another_process():
                logging.getLogger().setLevel(logging.ERROR)
            try:
                with _memory(cfg, "recipe.batch_size" if config_name == "train" else "evaluation.batch_size"):
                    function(cfg)
            except (InputError, HydraException, OmegaConfBaseException) as error:
                message = str(error) if isinstance(error, InputError) else _explain(error, config_name)
                if HydraConfig.get().mode == RunMode.MULTIRUN:  # its other jobs still run, and its end names one alone
                    log.error("failed: %s", message)
                    raise
                _leave(message)

        main = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(job)

        def run() -> None:
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach us instead of being printed with hints
            logging.getLogger("matplotlib").setLevel(logging.WARNING)
            if {"-h", "--help"} & set(sys.argv[1:]):
                print(help_page(function.__globals__["__doc__"], config_name))
                return
            # Hydra takes options before overrides only, or after them, and not among them.
            sys.argv[1:] = sorted(
                sys.argv[1:], key=lambda each: not each.startswith("-") and bool(re.match(r"~|.*=", each))
            )
            handlers = {each: signal.signal(each, _stop) for each in STOPS}
            try:
                main()
            except InputError as error:
                _leave(str(error))
            except (HydraException, OmegaConfBaseException) as error:
                _leave(_explain(error, config_name))
            except Stopped as stopped:
                if another_process():
                    sys.exit(128 + stopped.signum)
                name = signal.Signals(stopped.signum).name
                again = ", without overwrite=true" if "overwrite=true" in map(str.lower, sys.argv) else ""
                _leave(f"stopped by {name}; the same command goes on from here{again}", 128 + stopped.signum)
            else:
                part()
            finally:
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
        mend = "" if size is None else f"; lower it{held_out}"
        raise InputError(f"{what} not fit in the device's memory{mend}") from None


def help_page(usage: str, config_name: str) -> str:
    """Usage, the groups with their choices and the settings, each with the comment beside it in configs/."""
    text = "".join((CONFIGS / f"{name}.yaml").read_text() for name in ("run", config_name))
    groups = re.findall(r"^  - (\w+): (\w+) *# *(.*)", text, re.M)
    settings = re.findall(r"^(\w+): ([^#\n]*?) *# *(.*)", text, re.M)
    plurals = {name for name, _, _ in settings}  # a script's models=[simple,wide] stands for model=

    def listed(items: list[tuple[str, str, str]], choices: bool) -> list[str]:
        return [
            f"  {f'{name}={default}':<34} {meaning}" + (f"\n{'':37}{', '.join(_choices(name))}" if choices else "")
            for name, default, meaning in items
            if f"{name}s" not in plurals
        ]

    return "\n".join(
        [
            usage.strip(),
            "\nChoices (what is taken when nothing is said, what it is for, all there are):",
            *listed(groups, choices=True),
            "\nSettings (any value in the configuration can be given so):",
            *listed(settings, choices=False),
            "\nEvery setting: --cfg job. A sweep: -m seed=0,1,2. Configs of your own: --config-dir mine",
        ]
    )


def _choices(group: str) -> list[str]:
    """Ours, and those of a --config-dir."""
    brought = re.findall(r"(?:^|\n)(?:--config-dir|-cd)[=\n](.*)", "\n".join(sys.argv[1:]))
    folders = [CONFIGS, *map(Path, brought)]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped(signum)


def _leave(message: str, status: int = 2) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _explain(error: Exception, config_name: str) -> str:
    """Hydra's message in one line, with the choices and the nearest name for an unknown option."""
    text = one_line(error) + (" " + one_line(error.__cause__) if error.__cause__ else "")
    if "hydra/launcher/submitit" in text:
        return "hydra/launcher=slurm needs a package that is not installed: pip install -e .[slurm]"
    missing = re.search(r"Could not find '([\w./-]+)/([^'/]*)'", text)
    if missing:
        group, given = missing.groups()
        # recipe/paper/foo is looked for on behalf of dataset=foo
        group = "dataset" if group.startswith("recipe/") else group
        choices = _choices(group)
        return f"unknown {group} {given!r}" + (
            f"; choose {', '.join(choices)}{nearest(given, choices)}" if choices else ""
        )
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        near = nearest(unknown[1], settings(config_name))
        return f"unknown setting {unknown[1]!r}{near}; see all of them with --cfg job"
    unset = re.search(r"Missing mandatory value: (\S+)", text)
    if unset:
        return f"{unset[1]} is not set; add {unset[1]}=..."
    return text


def settings(config_name: str) -> list[str]:
    """The names of all settings, as the defaults have them."""

    def names(node: Any, above: str) -> list[str]:
        below = node if isinstance(node, dict) else {}
        return [above, *(name for key, value in below.items() for name in names(value, f"{above}.{key}"))]

    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(hydra.compose(config_name))
    assert isinstance(config, dict)
    config = {"experiment": None, **config}  # a group that adds to the others and is nothing itself
    return [name for key, value in config.items() for name in names(value, str(key))]
