"""A cell of a sweep under way: its processes, its log, and how it ended in words."""

import datetime
import fcntl
import os
import shlex
import signal
import subprocess
import time
from typing import TextIO

from commands.cells import CellJob
from draem_jax.errors import Preempted, UserError

# How a cell ended: an exit code (-n: killed by signal n), or a sentence where there is none.
Outcome = int | str


class CellProcess:
    """Carries out the commands of a cell, one process after the other.

    Each process has a session of its own: a Ctrl-C in the terminal then reaches only the sweep, which passes it on.

    Args:
        cell_job: the cell.
        environment: variables of its processes, beside those of this one.

    Raises:
        UserError: another process is at work on the cell, or nothing can be written to its folder.
    """

    def __init__(self, cell_job: CellJob, environment: dict[str, str] | None = None) -> None:
        self._cell_job, self._start = cell_job, time.monotonic()
        self._environment = {**os.environ, 'PYTHONUNBUFFERED': '1', **(environment or {})}
        self._commands = cell_job.lacking_commands()
        self._is_stopping = False
        self._log = open_log(cell_job)
        self._process = self._start_next()

    def poll(self) -> int | None:
        """None while the cell runs; then, once, the exit code of its last process. 42 means that it was stopped."""
        code = self._process.poll() if self._process else 0
        if code is None:
            return None
        if code == 0 and not self._is_stopping:
            self._process = self._start_next()
            if self._process:
                return None
        if self._is_stopping and (code == -signal.SIGTERM or (code == 0 and not self._cell_job.is_finished())):
            code = Preempted.exit_code
        self._log.close()
        return code

    def stop(self) -> None:
        """Asks the process to save and leave, and starts no other."""
        if not self._is_stopping and self._process:
            self._process.send_signal(signal.SIGTERM)
        self._is_stopping = True

    def wait(self) -> None:
        """Returns when the process has ended. A signal handler may call this, even one that interrupts `poll`."""
        # Popen.wait would wait for ever for the lock that the interrupted Popen.poll holds.
        try:
            if self._process:
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            pass  # `poll` has already seen it end.

    def duration(self) -> datetime.timedelta:
        return datetime.timedelta(seconds=round(time.monotonic() - self._start))

    def _start_next(self) -> subprocess.Popen[bytes] | None:
        command = next(self._commands, None)
        if command is None:
            return None
        self._log.write(f'--- {time.strftime("%Y-%m-%d %H:%M:%S")} {shlex.join(command)}\n')
        return subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def open_log(cell_job: CellJob) -> TextIO:
    """Opens the log of a cell to append to, and locks it.

    The lock holds as long as this process, or one that it started, has the log open. When a sweep is killed and its
    processes live on, the next sweep therefore leaves their cells alone.

    Raises:
        UserError: another process holds the lock, or the log cannot be written.
    """
    try:
        log = cell_job.log.open('a', buffering=1)
    except OSError as error:
        raise UserError(f"Cannot write to '{cell_job.log}': {error.strerror}.") from error
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        log.close()
        raise UserError(f"Another process is at work on '{cell_job.cell.workdir}'.") from error
    except OSError:
        pass  # Not every file system has locks.
    return log


def ending(outcome: Outcome) -> str:
    """How a cell ended, in words."""
    if isinstance(outcome, str):
        return outcome
    if outcome < 0:
        return f'killed by {signal.Signals(-outcome).name}'
    return {0: 'done', Preempted.exit_code: 'stopped'}.get(outcome, f'exit code {outcome}')


def describe(cell_job: CellJob, outcome: Outcome) -> str:
    """How a cell failed, in one line. After an exit code follows the last line of the cell's log."""
    if isinstance(outcome, str):
        return outcome
    with cell_job.log.open('rb') as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode(errors='replace').splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), '')
    return f'{ending(outcome)}: {last.removeprefix("Error: ")} ({cell_job.log})'


def say(*texts: str) -> None:
    """Prints a line about the cells under way, with the time of day before it."""
    print(time.strftime('%H:%M:%S'), *texts, flush=True)
