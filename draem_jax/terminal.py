"""Text for a terminal: aligned tables, and names that cannot break a line."""

from collections.abc import Collection, Sequence


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
