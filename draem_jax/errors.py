"""The one exception that means "the user can mend this"."""


class UserError(ValueError):
    """A mistake in the input, the configuration or the files.

    The message is one line: what was expected, what was found, where, and what to change. Scripts
    print it without a traceback and leave with exit code 1; a library user catches a ValueError.
    """
