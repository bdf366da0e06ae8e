"""The one exception for what a user can mend."""


class InputError(ValueError):
    """A wrong setting, file or environment.

    Its message is one line: what is wrong, what was expected, how to mend it.
    """
