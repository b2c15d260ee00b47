"""Notices when the process is asked to stop: SIGTERM from a scheduler, SIGINT from the keyboard."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interruption:
    """Whether a process has been asked to stop.

    Attributes:
        signal: name of the signal that asked; None while none did.
    """

    signal: str | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def watch() -> Iterator[Interruption]:
    """Notes SIGTERM and SIGINT in the `Interruption` that it yields; in the `with` block they do nothing else.

    A second SIGINT ends the process at once, in the middle of whatever it does. Leaving the block puts the earlier
    handlers back. Python calls handlers in the main thread only, so in another thread nothing is installed.
    """
    interruption = Interruption()

    def note(number: int, frame: FrameType | None) -> None:
        interruption.signal = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # The system's handler, which does not wait for Python.

    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None if it was not installed by Python.
