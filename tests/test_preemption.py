"""Signals, sent to this process and to one of its own."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from draem_jax import preemption


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_note_and_afterwards_the_handlers_are_those_of_before(number):
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with preemption.watch() as interruption:
        assert not interruption
        os.kill(os.getpid(), number)
        assert interruption
        assert interruption.signal == signal.Signals(number).name
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_handlers_are_those_of_before_after_an_error_too():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match='else'), preemption.watch():
        raise ValueError('something else')
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_interrupt_ends_the_process_at_once():
    code = """if True:
        import os, signal
        from draem_jax import preemption
        with preemption.watch() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            print(interruption.signal, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            print(interruption.signal, flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            print('still here')
    """
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert result.stdout.split() == ['SIGINT', 'SIGTERM']
    assert result.returncode == -signal.SIGINT
    assert not result.stderr


def test_outside_the_main_thread_nothing_is_installed():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def look():
        with preemption.watch() as interruption:
            seen.append((bool(interruption), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
