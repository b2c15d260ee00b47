"""Both ends of the line between a benchmark and the processes that it measures.

A request is a line of JSON, a list of words, on the standard input of a process; the answer is a line of JSON, an
object, on its standard output. This file needs nothing but Python, for PyTorch has an environment of its own.
"""

import contextlib
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback

_OUT_OF_MEMORY = re.compile(r'RESOURCE_EXHAUSTED|out of memory|not enough memory|cannot allocate memory', re.IGNORECASE)
_WANTED = re.compile(r'allocat\w*:?\s+([\d.]+)\s*(bytes|[KMGT]?i?B)\b', re.IGNORECASE)


class TimeOver(Exception):  # noqa: N818  It is no error: what was measured counts.
    """The time that was given to a benchmark has passed."""


class Clock:
    """Counts down from `minutes`, or never ends if they are 0."""

    def __init__(self, minutes=0.0):
        self._end = time.monotonic() + 60 * minutes if minutes else math.inf

    def left(self):
        """Seconds that remain; infinite without a limit."""
        return self._end - time.monotonic()


def describe_error(error):
    """One line about an exception: 'out of memory (11.96GiB wanted)', or its type and the first line of its message."""
    text = str(error)
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        wanted = _WANTED.search(text)
        return f'out of memory ({wanted[1]} {wanted[2]} wanted)' if wanted else 'out of memory'
    return f'{type(error).__name__}: {text.splitlines()[0][:200] if text else ""}'


def serve(answer):
    """Answers each request with what `answer(*words)` returns, or with its error, until standard input ends.

    Libraries print to standard error meanwhile, so that their lines are not taken for answers.
    """
    replies = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(*json.loads(line))
        except Exception as error:  # The other contenders go on.
            traceback.print_exc(file=sys.stderr)
            reply = {'error': describe_error(error), 'detail': str(error)[:2000]}
        replies.write(json.dumps(reply) + '\n')


class Contender:
    """A process that runs `serve`. Used as a context: it and its children are gone afterwards, and so is their memory.

    Args:
        command: program and arguments.
        clock: `ask` raises TimeOver when it has run down.
        patience: seconds within which a request is answered, or the process is ended.
        environment: variables that are set in addition to those of this process.
        verbose: whether what the process prints is shown.

    Attributes:
        error: why it no longer answers, or None.
        detail: the longer message of that error, where there is one.
    """

    def __init__(self, command, clock, patience=math.inf, environment=None, verbose=False):
        self.error = self.detail = None
        self._clock, self._patience, self._unread, self._is_gone = clock, patience, b'', False
        self._printed = None if verbose else tempfile.TemporaryFile()  # noqa: SIM115  Closed with the process.
        # A session of its own makes a group of processes, which is ended as a whole: torch.compile starts helpers.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            bufsize=0,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )

    def ask(self, *words):
        """The answer to a request; None where there is none, with `error` saying why.

        Raises:
            TimeOver: the clock ran down before the answer came. The process is ended.
        """
        if self.error:
            return None
        try:
            self._process.stdin.write(json.dumps(words).encode() + b'\n')
            reply = json.loads(self._read_line())
        except TimeoutError:
            self._kill()
            if self._clock.left() <= 0:
                self.error = 'The time was over.'
                raise TimeOver from None
            reply = {'error': f'no answer to "{words[0]}" within {self._patience / 60:.3g} minutes'}
        except (OSError, ValueError):
            reply = {'error': self._last_words()}
        self.error, self.detail = reply.get('error'), reply.get('detail')
        return None if self.error else reply

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self._process.stdin.close()  # It ends by itself and frees what it holds,
            if kind is None:
                self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._kill()  # or else by force; and what it started ends.
            self._process.stdout.close()
            if self._printed:
                self._printed.close()

    def _read_line(self):
        end = time.monotonic() + self._patience
        while b'\n' not in self._unread:
            left = min(end - time.monotonic(), self._clock.left())
            wait = None if math.isinf(left) else max(left, 0)
            if not select.select([self._process.stdout], [], [], wait)[0]:
                raise TimeoutError
            arrived = os.read(self._process.stdout.fileno(), 1 << 16)
            if not arrived:
                raise OSError('The process ended.')
            self._unread += arrived
        line, self._unread = self._unread.split(b'\n', 1)
        return line

    def _kill(self):
        if not self._is_gone:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._is_gone = True

    def _last_words(self):
        """Why a process ended that should have answered: its exit code or signal, and the last line that it printed."""
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return 'it closed its standard output'
        if code == -signal.SIGKILL:
            return 'killed from outside, as the system does when the memory of the host is full'
        printed = ''
        if self._printed:
            self._printed.seek(0)
            lines = self._printed.read().decode(errors='replace').split('\n')
            printed = next((line.strip()[:200] for line in reversed(lines) if line.strip()), '')
        end = f'ended by {signal.Signals(-code).name}' if code < 0 else f'ended with exit code {code}'
        return f'{end}: {printed}' if printed else end


def end_on_signals():
    """Makes SIGINT and SIGTERM leave through every `with` and `finally`, once: `timeout` sends SIGTERM twice."""

    def leave(number, frame):
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, leave)
