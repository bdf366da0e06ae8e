"""The two ways to leave early: what a user can mend, and a signal."""


class InputError(ValueError):
    """A wrong setting, file or environment.

    Its message is one line: what is wrong, what was expected, how to mend it.
    """


def whole(value: object, name: str, least: int = 1) -> None:
    """Raises InputError naming `name` unless `value` is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value}; expected a whole number of at least {least}")


class Stopped(BaseException):
    """SIGINT or SIGTERM asked for an end. Like KeyboardInterrupt, no `except Exception` holds it up."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
