"""What turns a script into a command: Hydra's overrides and sweeps, a help page, and errors of one line."""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saddlepoint.cli.check import compare_kinds, refuse_unread
from saddlepoint.cli.explain import culprit_of, explain, explain_override
from saddlepoint.cli.typed import arguments
from saddlepoint.compose import CONFIGS, quoted
from saddlepoint.errors import InputError, Stopped
from saddlepoint.runtime import STOPS, part

log = logging.getLogger(__name__)


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
                compare_kinds(cfg)
                if config_name == "train":
                    refuse_unread(cfg)
                with _memory(cfg, "recipe.batch_size" if config_name == "train" else "evaluation.batch_size"):
                    function(cfg)
            except (InputError, HydraException, OmegaConfBaseException) as error:
                message = str(error) if isinstance(error, InputError) else explain(error, config_name)
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
                _leave(explain(error, config_name))
            except (ValueError, TypeError, LookupError, AssertionError) as error:  # Hydra's, of one of the overrides
                if composed or (culprit := culprit_of(config_name)) is None:
                    raise
                _leave(explain_override(culprit, error, config_name))
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
