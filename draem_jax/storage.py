"""Folders and files to read, on this machine or in a bucket: 'gs://bucket/folder', 's3://...', 'az://...'.

Buckets go through etils.epath, which takes TensorFlow's tf.io.gfile where TensorFlow is installed and fsspec elsewhere.
Paths are strings throughout, and of a bucket they keep their 'gs://'.
"""

import os
import pathlib
import posixpath


def is_remote(path):
    """Whether a path names something in a bucket."""
    return '://' in str(path)


def is_folder(path):
    """Whether there is a folder at a path."""
    return _remote(path).is_dir() if is_remote(path) else os.path.isdir(path)


def is_file(path):
    """Whether there is a file at a path."""
    return _remote(path).is_file() if is_remote(path) else os.path.isfile(path)


def names_in(folder):
    """The names of the files and folders in a folder, sorted."""
    return sorted(path.name for path in _remote(folder).iterdir()) if is_remote(folder) else sorted(os.listdir(folder))


def read_bytes(path):
    """What a file holds; raises OSError where it cannot be read."""
    return (_remote(path) if is_remote(path) else pathlib.Path(path)).read_bytes()


def stamp(path):
    """[path, size, time of the last change]: what differs when a file has been changed; plain values."""
    if is_remote(path):
        stat = _remote(path).stat()
        return [path, stat.length, stat.mtime]
    stat = os.stat(path)
    return [os.path.abspath(path), stat.st_size, stat.st_mtime_ns]


def walk(folder, onerror=None):
    """As `os.walk`, links followed; no folder twice, whichever way it is reached; hidden ones left out.

    Args:
        folder: path.
        onerror: function that is called with the OSError of a folder on this machine that cannot be read.

    Yields:
        (path of a folder, names of the files in it).
    """
    if is_remote(folder):
        waiting = [str(folder)]
        while waiting:
            parent = waiting.pop()
            entries = list(_remote(parent).iterdir()) if is_folder(parent) else []
            inner = [entry for entry in entries if entry.is_dir()]
            yield parent, [entry.name for entry in entries if entry not in inner]
            waiting += [posixpath.join(parent, entry.name) for entry in inner if not entry.name.startswith('.')]
        return
    visited = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=onerror):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        # Sorted, so that of two links to one folder it is always the same that counts.
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        yield parent, names


def _remote(path):
    from etils import epath  # Half a second, and seldom needed.

    return epath.Path(path)
