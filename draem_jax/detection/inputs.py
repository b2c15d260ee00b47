"""Which images predict.py looks at: those that files, folders and patterns name, without what it wrote itself."""

import glob
import itertools
import os
import pathlib
import sys
from collections.abc import Sequence

from draem_jax import images, storage
from draem_jax.errors import UserError
from draem_jax.terminal import printable


def list_inputs(inputs: Sequence[str], out: str) -> list[str]:
    """The image files that the arguments name, each once, in the order given.

    Folders and patterns leave out what lies below `out`, or in the results of another run or call: scripts of ours
    wrote it. A file that is named itself is taken whatever its name ends in, even if it is not there: reading it will
    tell.

    Args:
        inputs: files, folders and patterns; `~` is the user's home folder.
        out: folder of the results.

    Raises:
        UserError: there is no argument, one is an address, or there are no images in a folder or for a pattern.
    """
    if not inputs:
        raise UserError('Which images? Name files, folders or patterns: predict.py --workdir=RUN photo.png parts/.')
    written = os.path.join(os.path.abspath(out), '')
    paths: dict[str, str] = {}
    for argument in (storage.local_path(argument, 'input') for argument in inputs):
        if os.path.isdir(argument):
            # The folder of the results may hold nothing but these. That is said below.
            matches = images.list_images(argument, allow_none=_is_in(argument, written))
        elif glob.has_magic(argument) and not os.path.exists(argument):
            matches = _list_matches(argument)
        else:
            paths.setdefault(os.path.abspath(argument), argument)
            continue
        others = [path for path in matches if not _is_in(path, written)]
        if not others and (matches or _is_in(argument, written)):
            raise UserError(
                f"'{argument}' lies in '{out}', the folder of the results, and what lies there is not taken for input. "
                '--out=FOLDER takes another one, outside of the images.'
            )
        if not others:
            raise UserError(f"No images ({' '.join(images.EXTENSIONS)}) found for '{argument}'.")
        for path in others:
            paths.setdefault(os.path.abspath(path), path)
    return list(paths.values())


def _list_matches(pattern: str) -> list[str]:
    """The images whose paths match a pattern, and those in folders that do."""
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), pathlib.Path(pattern).parts))
    top = os.path.join(*fixed) if fixed else os.curdir
    matches: list[str] = []
    results: list[str] = []
    for match in sorted(glob.glob(pattern, recursive=True)):
        if images.is_own_output(os.path.join(top, os.path.relpath(match, top)), top):
            results.append(match)
        elif os.path.isdir(match):
            matches += images.list_images(match, allow_none=True)
        elif images.is_image(match):
            matches.append(match)
    if results:
        print(
            f"Note: passed over {len(results)} path(s) that match '{printable(pattern)}', such as "
            f"'{printable(results[0])}': a script of ours wrote them.",
            file=sys.stderr,
        )
    return matches


def _is_in(path: str, folder: str) -> bool:
    """Whether `path` is `folder`, an absolute path with a separator at its end, or lies in it."""
    return os.path.join(os.path.abspath(path), '').startswith(folder)
