"""Threads: as many as this process may use, results in order, and not too far ahead."""

import itertools
import os
import pathlib
import subprocess
import sys
import time

import pytest

from draem_jax import threads

ROOT = pathlib.Path(__file__).resolve().parent.parent
CODE = """
import os, sys
os.sched_setaffinity(0, {int(core) for core in sys.argv[1:]})
from draem_jax import threads
print(threads.core_count())
"""


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='Cores are assigned to processes on Linux only.')
@pytest.mark.parametrize('wanted', [1, 2])
def test_only_the_cores_of_this_process_count(wanted):
    cores = sorted(os.sched_getaffinity(0))[:wanted]
    command = [sys.executable, '-c', CODE, *map(str, cores)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(result.stdout) == len(cores)


def test_results_come_in_order_whichever_is_ready_first():
    delays = [0.02, 0.0, 0.01, 0.0, 0.005] * 4

    def wait(item):
        number, delay = item
        time.sleep(delay)
        return number

    assert list(threads.map_ahead(wait, enumerate(delays))) == list(range(20))
    assert list(threads.map_ahead(wait, [])) == []


def test_at_most_four_results_per_thread_are_computed_ahead(monkeypatch):
    monkeypatch.setattr(threads, 'core_count', lambda: 2)
    taken = []

    def endless():
        for item in itertools.count():
            taken.append(item)
            yield item

    results = threads.map_ahead(str, endless())
    for number in range(30):
        assert next(results) == str(number)
        assert len(taken) == number + 1 + 4 * 2
    results.close()


def test_an_error_comes_in_the_place_of_its_result_and_ends_the_work(monkeypatch):
    monkeypatch.setattr(threads, 'core_count', lambda: 1)
    started = []

    def divide(number):
        started.append(number)
        time.sleep(0.01)
        return 12 // (3 - number)

    results = threads.map_ahead(divide, range(100))
    assert [next(results) for _ in range(3)] == [4, 6, 12]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(started) < 100
    assert list(results) == []
