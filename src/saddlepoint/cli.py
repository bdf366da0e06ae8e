"""What turns a script into a command: Hydra's overrides and sweeps, and errors of one line."""

from __future__ import annotations

import difflib
import functools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from saddlepoint.config import CONFIGS, one_line
from saddlepoint.errors import InputError, Stopped
from saddlepoint.runtime import STOPS


def entry(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a function of the config a command: Hydra's overrides and sweeps, and errors of one line.

    Exit status: 2 for what the user can mend, 130 for SIGINT (Ctrl-C) and 143 for SIGTERM.
    """

    def decorate(function: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(function)  # Hydra names the job after the function's module
        def job(cfg: DictConfig) -> None:
            try:
                function(cfg)
            except (InputError, HydraException, OmegaConfBaseException) as error:
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise  # the sweep's other jobs still run
                _leave(str(error) if isinstance(error, InputError) else _explain(error))

        main = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(job)

        def run() -> None:
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach us instead of being printed with hints
            logging.getLogger("matplotlib").setLevel(logging.WARNING)
            handlers = {each: signal.signal(each, _stop) for each in STOPS}
            try:
                main()
            except InputError as error:
                _leave(str(error))
            except (HydraException, OmegaConfBaseException) as error:
                _leave(_explain(error))
            except Stopped as stopped:
                if os.environ.get("RANK", "0") != "0":  # of torchrun's processes one speaks
                    sys.exit(128 + stopped.signum)
                name = signal.Signals(stopped.signum).name
                _leave(f"stopped by {name}; the same command goes on from here", 128 + stopped.signum)
            finally:
                for each, handler in handlers.items():
                    signal.signal(each, handler)

        return run

    return decorate


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped(signum)


def _leave(message: str, status: int = 2) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _explain(error: Exception) -> str:
    """Hydra's message in one line, with the choices and the nearest name for an unknown option."""
    text = one_line(error) + (" " + one_line(error.__cause__) if error.__cause__ else "")
    missing = re.search(r"Could not find '([\w./-]+)/([^'/]*)'", text)
    if missing:
        group, given = missing.groups()
        # recipe/paper/foo is looked for on behalf of dataset=foo
        group, folder = ("dataset", "dataset") if group.startswith("recipe/") else (group, group)
        choices = sorted(path.stem for path in (CONFIGS / folder).glob("*.yaml"))
        return f"unknown {group} {given!r}; choose {', '.join(choices)}{_nearest(given, choices)}"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        return f"unknown setting {unknown[1]!r}; see all of them with --cfg job"
    return text


def _nearest(given: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(given, choices, 1)
    return f" (did you mean {near[0]}?)" if near else ""
