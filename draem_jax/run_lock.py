"""One training in a directory at a time: a locked file in it, which says who trains there.

The system gives the lock back when the process ends, however it ends. The file that a killed process leaves behind
therefore keeps nobody out.
"""

import contextlib
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import TextIO

from draem_jax.errors import UserError

FILE = 'train.lock'


@contextlib.contextmanager
def hold(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps other trainings out of a directory for the time of the `with` block.

    The directory is made if it does not exist. Leaving the block removes the file, and the directories that were made
    if they are still empty.

    Raises:
        UserError: another process trains there, or nothing can be written there.
    """
    workdir = pathlib.Path(workdir)
    made = _make(workdir)
    try:
        with contextlib.closing(_lock(workdir / FILE)):
            try:
                yield
            finally:
                (workdir / FILE).unlink(missing_ok=True)  # Still locked, so it is ours.
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # Something lies in it now.
                folder.rmdir()


def _make(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Makes a directory; returns those that did not exist before, the innermost first."""
    missing = []
    for folder in (workdir, *workdir.parents):
        if os.path.lexists(folder):
            if not folder.is_dir():
                raise UserError(f"Cannot write to --workdir '{workdir}': '{folder}' is a file. Name a folder.")
            break
        missing.append(folder)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to --workdir '{workdir}': {error.strerror}.") from error
    return missing


def _lock(path: pathlib.Path) -> TextIO:
    """The file of a lock, open and locked, with this process named in it."""
    with contextlib.ExitStack() as on_error:
        try:
            file = on_error.enter_context(path.open('a+', encoding='utf-8', errors='replace'))
            _take(file, path)
            if not _is_at(file, path):  # Whoever held the lock removed the file after it was opened here.
                return _lock(path)
            file.truncate(0)
            file.write(f'{socket.gethostname()} {os.getpid()}\n')
            file.flush()
        except OSError as error:
            raise UserError(f"Cannot write to --workdir '{path.parent}': {error.strerror}, '{path}'.") from error
        on_error.pop_all()
    return file


def _take(file: TextIO, path: pathlib.Path) -> None:
    """Locks an open file; raises UserError where another process holds the lock."""
    file.seek(0)
    host, _, process = file.read(1000).strip().rpartition(' ')
    holder = f'process {process} on {host}' if host and process.isdecimal() else 'another process'
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"A training is under way in '{path.parent}': {holder} holds '{path}'. Wait for its end, or take another "
            '--workdir.'
        ) from error
    except OSError as error:  # Not every file system has locks. Then only a process of this machine can be found.
        if host == socket.gethostname() and process.isdecimal() and _is_alive(int(process)):
            raise UserError(
                f"A training is under way in '{path.parent}': {holder} has written '{path}'. Wait for its end, or "
                'delete the file if that process is no training.'
            ) from error


def _is_at(file: TextIO, path: pathlib.Path) -> bool:
    """Whether an open file is the one that a path leads to."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_alive(process: int) -> bool:
    """Whether there is a process of this number, other than this one."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # It is somebody else's.
        pass
    return True
