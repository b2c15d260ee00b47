"""Several processes that train or evaluate together: how they find each other, meet, agree, and end.

JAX numbers them from 0. Process 0, the main one, writes everything that is written once. With a single process, which
is the usual case, nothing here waits for anybody.

They talk by JAX's coordination service, which runs in process 0 and takes no device. So a process may be late by hours.
In a collective of the devices it may not: Gloo, which CPUs use, gives up after 30 s.
"""

import contextlib
import hashlib
import itertools
import os
import pathlib
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

import jax

from draem_jax.errors import UserError, first_line

# The words by which errors of JAX's transport can be told from others, which have the same types: Gloo between CPUs,
# NCCL between GPUs, and the service that watches whether all processes are alive.
_LOST = re.compile(
    r'gloo|nccl|coordination service|barrier|heartbeat|another task died|connection (reset|refused|closed)|broken pipe',
    re.IGNORECASE,
)

_DAY_IN_MS = 24 * 60 * 60 * 1000
_FILE_SERVER_SECONDS = 5  # A file that another host has just written may not be seen at once.
_LOOK_SECONDS = 1  # how often a process looks whether another one has ended
_GRACE_SECONDS = 2  # for a process to say itself why it ends, before it is ended because another one has ended

# What the processes write into the coordination service, where all can read it.
_COMPARED = 'draem_jax/compared'
_ENDED = 'draem_jax/ended'

_comparisons = itertools.count()  # All processes make the same comparisons in the same order.
_is_ending = threading.Event()


def process_count() -> int:
    """How many processes take part; 1 unless `connect` was called."""
    return jax.process_count()


def process_index() -> int:
    """Which of the processes this is, from 0."""
    return jax.process_index()


def is_main() -> bool:
    """Whether this is the process that writes logs, results and everything else that is written once."""
    return jax.process_index() == 0


def print_once(line: str, file: TextIO | None = None) -> None:
    """Prints a line, once for all processes."""
    if is_main():
        print(line, file=file)


def connect(
    *,
    coordinator: str | None = None,
    process_count: int | None = None,
    process_index: int | None = None,
    heartbeat_timeout_seconds: int = 100,
) -> None:
    """Makes this process one of several that train or evaluate together; call it before anything else touches JAX.

    Args:
        coordinator: 'host:port' where process 0 listens. If this and both numbers are None, the environment is asked:
            SLURM, Open MPI, Kubernetes and Cloud TPU tell each process who takes part.
        process_count: number of processes.
        process_index: which one this is, from 0.
        heartbeat_timeout_seconds: a process that gives no sign of life for so long counts as dead, and all others end.

    Raises:
        UserError: the others cannot be found.
    """
    given = [value is not None for value in (coordinator, process_count, process_index)]
    if any(given) and not all(given):
        raise UserError(
            'Without an environment that knows them, a process needs --coordinator, --process_count and '
            '--process_index together.'
        )
    # JAX's own service for preemption would catch SIGTERM, and nothing here asks it.
    jax.config.update('jax_enable_preemption_service', False)
    try:
        jax.distributed.initialize(
            coordinator,
            process_count,
            process_index,
            cluster_detection_method='deactivate' if all(given) else None,
            heartbeat_timeout_seconds=heartbeat_timeout_seconds,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        message = f'This process cannot connect to the others: {first_line(error)}'
        if not all(given):
            message += (
                ' --distributed asks the environment (SLURM, Open MPI, Kubernetes, Cloud TPU); elsewhere say '
                '--coordinator=HOST:PORT --process_count=N --process_index=I.'
            )
        raise UserError(message) from error
    threading.Thread(target=_end_with_the_others, name='end with the others', daemon=True).start()


def _end_with_the_others() -> None:
    """Ends this process once another one says that it ends with an error.

    Otherwise it would wait in its next step, until the coordination service misses the other's heartbeat and aborts it.
    """
    ended = None
    while ended is None:
        time.sleep(_LOOK_SECONDS)
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # Nobody has said so.
            ended = _client().key_value_try_get(_ENDED)
    time.sleep(_GRACE_SECONDS)
    if not _is_ending.is_set():
        print(f'Error: process {ended} has ended with an error, which its own output shows.', file=sys.stderr)
        exit_process(1)


def check_connected() -> None:
    """Raises UserError if JAX sees other processes that this one is not connected to, as on several TPU hosts."""
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise UserError(f'Found {jax.process_count()} JAX processes: start each of them with --distributed.')


def meet(name: str) -> None:
    """Waits until every process has called this with the same `name`."""
    if process_count() > 1:
        from orbax.checkpoint import multihost  # It takes a second to import, and one process needs none of it.

        multihost.get_barrier_sync_fn()(key=name, timeout_ms=_DAY_IN_MS)


def check_same(value: object, shown: str, question: str) -> None:
    """Raises UserError unless all processes call this with the same value; call it in all of them.

    Args:
        value: anything whose `repr` says all that has to be the same.
        shown: the value in a few words: the error says it for each group of processes that agree.
        question: what the user should look at, as the error's last sentence.
    """
    if process_count() == 1:
        return
    digest = hashlib.sha256(repr(value).encode(errors='surrogateescape')).hexdigest()
    folder = f'{_COMPARED}/{next(_comparisons)}'
    _client().key_value_set(f'{folder}/{process_index()}', f'{shown} (SHA-256 {digest[:12]})')
    meet('comparison')
    groups: dict[str, list[str]] = {}
    for name, text in _client().key_value_dir_get(folder):
        groups.setdefault(text, []).append(name.rpartition('/')[2])
    if len(groups) > 1:
        parts = [f'Process {", ".join(sorted(indices, key=int))}: {text}.' for text, indices in groups.items()]
        raise UserError(f'The processes do not see the same. {" ".join(sorted(parts))} {question}')


def check_shared_folder(folder: str | os.PathLike[str], flag: str) -> None:
    """Raises UserError unless a folder is the same one in all processes, whatever host they run on.

    The main process leaves a file in it, which the others look for.

    Args:
        folder: made in the main process if it does not exist.
        flag: the command line's name of the folder, for the error.
    """
    if process_count() == 1:
        return
    file = pathlib.Path(folder) / '.shared'
    if is_main():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f'{socket.gethostname()} {os.getpid()} {time.time_ns()}')
        except OSError as error:
            raise UserError(f"Cannot write to {flag} '{folder}': {error.strerror}.") from error
    meet('a file in the shared folder')
    end = time.monotonic() + _FILE_SERVER_SECONDS
    while not (is_there := file.is_file()) and time.monotonic() < end:
        time.sleep(0.1)
    content = file.read_text() if is_there else 'nothing'
    try:
        text = f'the folder of {content.partition(" ")[0]}' if is_there else 'another folder'
        check_same(content, text, f"Is {flag} '{folder}' a folder that all hosts share?")
    finally:
        if is_main():
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def explaining_lost_processes() -> Iterator[None]:
    """Turns the error that JAX raises in the `with` block when another process is gone into a UserError."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # JAX's transport raises ValueErrors too.
        if process_count() == 1 or isinstance(error, UserError) or not _LOST.search(str(error)):
            raise
        raise UserError(
            f'Another process is gone: {first_line(error)} Start all of them again with the same flags to go on from '
            'the newest checkpoint.'
        ) from error


def exit_process(code: int) -> NoReturn:
    """Ends this process after an error. One of several ends at once, and so do the others, whatever they are doing."""
    if not jax.distributed.is_initialized():
        sys.exit(code)
    _is_ending.set()
    sys.stdout.flush()
    sys.stderr.flush()
    is_first = False
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # Another one was first, or the service is gone.
        _client().key_value_set(_ENDED, str(process_index()))
        is_first = True
    if is_main():  # The service ends with this process, and that would abort those that still need it.
        time.sleep(2 * _LOOK_SECONDS + (_GRACE_SECONDS if is_first else 0))
    os._exit(code)


def _client() -> Any:
    """This process's connection to the coordination service."""
    from orbax.checkpoint import multihost

    return multihost.get_jax_distributed_client()
