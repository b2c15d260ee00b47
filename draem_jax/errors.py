"""The exceptions that end a script before its work is done, each with its exit code."""


class UserError(ValueError):
    """A mistake in the input, the configuration or the files.

    The message is one line: what was expected, what was found, where, and what to change. Scripts print it without a
    traceback and end with `exit_code`; users of the library can catch a ValueError.
    """

    exit_code = 1


class Diverged(UserError):  # noqa: N818  It says what happened to the training, as `Preempted` does.
    """A training whose loss or gradient is no longer a number; the message names step, rate and losses."""

    exit_code = 3


class Preempted(Exception):  # noqa: N818  Nothing is wrong.
    """A training that was asked to stop, and has saved all that it needs to go on; the message is one line."""

    exit_code = 42


def first_line(error: BaseException) -> str:
    """The first line of an exception's message that is not empty; the name of its type if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
