"""Text for a terminal: aligned tables, names that cannot break a line, and output that cannot end a script."""

import contextlib
import io
import os
import sys
from collections.abc import Collection, Sequence
from typing import Any


def align(
    rows: Sequence[Sequence[str]], *, left: int = 1, separator: str = '  ', wide_before: Collection[int] = ()
) -> list[str]:
    """Rows as lines whose columns line up.

    Args:
        rows: each holds as many strings as there are columns.
        left: how many of the first columns are flush left; the others are flush right.
        separator: what stands between two columns.
        wide_before: columns, counted from 0, before which the gap is wider by one space.

    Returns:
        One string for each row, without spaces at its end.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        line = ''
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            line += (separator if column else '') + (' ' if column in wide_before else '')
            line += cell.ljust(width) if column < left else cell.rjust(width)
        lines.append(line.rstrip())
    return lines


def printable(text: str) -> str:
    """A name from a file system as one line of text; what cannot be printed, such as a line break, becomes '?'."""
    return ''.join(character if character.isprintable() else '?' for character in text)


def make_forgiving() -> None:
    """Lets no line that cannot be printed end the script. Scripts call it before they print.

    On stdout and stderr a character that their encoding lacks becomes '?'. What is written to a pipe that nobody reads
    any more, as after `| head`, is dropped. After any other failure, such as a full disk under a log file, the rest is
    dropped too, and stderr says so.
    """
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='replace')
            setattr(sys, name, _Forgiving(stream))


class _Forgiving:
    """A text stream whose `write` and `flush` raise no OSError; for all else it is the stream that it wraps."""

    def __init__(self, stream: io.TextIOWrapper):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Leads the stream to nowhere, so that what waits in its buffers does not fail again when Python ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            with contextlib.suppress(OSError):
                reason = error.strerror or error
                print(f'Warning: cannot write to {self._stream.name}: {reason}. The work goes on.', file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
