"""Being asked to stop: SIGTERM from a scheduler, SIGINT from the keyboard."""

import contextlib
import signal
import threading


class Interruption:
    """Whether a process has been asked to stop.

    Attributes:
        signal: name of the signal that asked, None while none did.
    """

    signal = None

    def __bool__(self):
        return self.signal is not None


@contextlib.contextmanager
def watch():
    """Inside the `with` block SIGTERM and SIGINT only leave a note, in the `Interruption` that it yields.

    A second SIGINT ends the process at once, in the middle of whatever it does. On leaving the block the handlers of
    before are back. Python calls handlers in the main thread alone, so in another thread nothing is installed.
    """
    interruption = Interruption()

    def note(number, frame):
        interruption.signal = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # The system's, which does not wait for Python's next turn.

    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None where it was not Python that installed it.
