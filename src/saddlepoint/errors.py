"""The two ways to leave early, what a user can correct and a signal; and what their messages are made of."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class InputError(ValueError):
    """A wrong setting, file or environment.

    Its message is one line: what is wrong, what was expected, what to type.
    """


def whole(value: object, name: str, least: int = 1) -> None:
    """Raises InputError naming `name` unless `value` is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value}; expected a whole number of at least {least}")


def flag(value: object, name: str) -> None:
    """Raises InputError naming `name` unless `value` is True or False; a text such as "no" would count as true."""
    if not isinstance(value, bool):
        raise InputError(f"{name}={value}; choose true or false")


def nearest(given: str, choices: Sequence[str]) -> str:
    """For the end of a message: the choice that was probably meant, if one is near."""
    near = difflib.get_close_matches(given, choices, 1)
    # A setting without the name of its group, such as epochs for recipe.epochs.
    near = near or [choice for choice in choices if choice.endswith(f".{given}")]
    return f" (did you mean {near[0]}?)" if near else ""


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


class Stopped(BaseException):
    """SIGINT or SIGTERM asked for an end. Like KeyboardInterrupt, no `except Exception` holds it up."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
