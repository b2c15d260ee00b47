"""Why a script ends before its work is done, each with its exit code."""


class UserError(ValueError):
    """A mistake in the input, the configuration or the files.

    The message is one line: what was expected, what was found, where, and what to change. Scripts
    print it without a traceback and leave with `exit_code`; a library user catches a ValueError.
    """

    exit_code = 1


class Diverged(UserError):  # noqa: N818  Said of the training, as of `Preempted`.
    """A training whose loss or gradient is no longer a number; the message names step, rate and losses."""

    exit_code = 3


class Preempted(Exception):  # noqa: N818  Nothing is wrong.
    """A training that was asked to stop, and has saved what it takes to go on; the message is one line."""

    exit_code = 42


def first_line(error):
    """The first line of what an exception says that is not empty; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
