"""Folders and files to read, on this machine or in a bucket: 'gs://bucket/folder', 's3://...', 'az://...'.

etils.epath reads buckets: with TensorFlow's tf.io.gfile where TensorFlow is installed, and with fsspec elsewhere. Paths
into a bucket are strings that start with 'gs://' or the like; no function here drops that part.
"""

import os
import pathlib
import posixpath
from collections.abc import Callable, Iterator
from typing import Any

from draem_jax.errors import UserError, first_line

BUCKETS = ('gs', 's3', 'az')  # what the address of a bucket begins with


def cache_folder() -> str:
    """What may be deleted and is made again lies here: `draem_jax` in the user's cache folder on this machine."""
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    return os.path.join(cache, 'draem_jax')


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads into a bucket."""
    return '://' in str(path)


def local_path(path: str, flag: str) -> str:
    """A path from the command line, with the user's home folder in place of a leading '~'.

    Args:
        path: as it was given.
        flag: which takes it, for the message.

    Raises:
        UserError: it is an address, and only the data set and the textures may lie in a bucket.
    """
    if is_remote(path):
        raise UserError(f"{flag}='{path}': expected a path on this machine, found an address. Mount or copy it.")
    return os.path.expanduser(path)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder at a path."""
    # TensorFlow says of what it does not support that it is no folder, unless it is asked for existence.
    return _ask(path, lambda there: there.exists() and there.is_dir()) if is_remote(path) else os.path.isdir(path)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file at a path."""
    return _ask(path, lambda there: there.is_file()) if is_remote(path) else os.path.isfile(path)


def names_in(folder: str | os.PathLike[str]) -> list[str]:
    """The names of the files and folders in a folder, sorted."""
    if is_remote(folder):
        return _ask(folder, lambda there: sorted(path.name for path in there.iterdir()))
    return sorted(os.listdir(folder))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file; raises OSError where it cannot be read."""
    return _ask(path, lambda there: there.read_bytes()) if is_remote(path) else pathlib.Path(path).read_bytes()


def stamp(path: str | os.PathLike[str]) -> list[Any]:
    """[path, size, time of the last change]: plain values that differ once a file has changed."""
    if is_remote(path):
        stat = _ask(path, lambda there: there.stat())
        return [path, stat.length, stat.mtime]
    stat = os.stat(path)
    return [os.path.abspath(path), stat.st_size, stat.st_mtime_ns]


def walk(
    folder: str | os.PathLike[str], onerror: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Like `os.walk`, but it follows links, visits no folder twice, and leaves out hidden folders.

    Args:
        folder: path.
        onerror: called with the OSError of a folder on this machine that cannot be read.

    Yields:
        (path of a folder, names of the folders in it, names of the files in it). Folders that the caller takes out of
        the first list are not visited.
    """
    if is_remote(folder):
        waiting = [str(folder)]
        while waiting:
            parent = waiting.pop()
            entries = _ask(parent, lambda there: list(there.iterdir())) if is_folder(parent) else []
            folders = [entry.name for entry in entries if entry.is_dir()]
            names = [entry.name for entry in entries if entry.name not in folders]
            folders = [name for name in folders if not name.startswith('.')]
            yield parent, folders, names
            waiting += [posixpath.join(parent, name) for name in folders]
        return
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=onerror):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        # Sorted, so that the same one of two links to a folder always counts.
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        yield parent, folders, names


def _ask(path: str | os.PathLike[str], question: Callable[[Any], Any]) -> Any:
    """What `question` returns for an address as an `epath.Path`.

    Raises:
        UserError: it is not the address of a bucket, or the bucket cannot be reached from here.
        OSError: there is nothing at the address.
    """
    if str(path).partition('://')[0] not in BUCKETS:
        known = ', '.join(f'{name}://' for name in BUCKETS)
        raise UserError(f"Cannot read '{path}': expected a path on this machine or an address in a bucket ({known}).")
    from etils import epath  # Half a second, and seldom needed.

    try:
        return question(epath.Path(path))
    except OSError:
        raise
    except Exception as error:  # Each way to a bucket has errors of its own; many are those of a missing package.
        raise UserError(
            f"Cannot read '{path}': {first_line(error)}. TensorFlow reads gs://; other buckets take fsspec and its "
            'package for them, such as s3fs. Or copy the folder to this machine.'
        ) from error
