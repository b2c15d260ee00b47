"""Memory that is freed stays with the process, where JAX computes on a CPU."""

import importlib.metadata
import platform
import subprocess
import sys

import pytest

from draem_jax import memory

# Takes, touches and frees 64 MiB again and again: how many pages the system has to find in the last of these rounds.
FAULTS = """
import ctypes, resource, sys
from draem_jax import memory
if sys.argv[1] == 'keep':
    assert memory.keep_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    piece = libc.malloc(2**26)
    ctypes.memset(piece, 1, 2**26)
    libc.free(piece)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word):
    done = subprocess.run([sys.executable, '-c', FAULTS, word], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='glibc alone has these options')
def test_a_large_piece_is_the_same_pages_again():
    assert faults('keep') < 10
    assert faults('leave') > 1000  # 4 KiB each, or some times as large on other processors


@pytest.mark.parametrize('platforms', ['', 'cuda,cpu'])
def test_where_there_may_be_an_accelerator_memory_is_left_alone(platforms, monkeypatch):
    monkeypatch.setenv('JAX_PLATFORMS', platforms)
    monkeypatch.setattr(importlib.metadata, 'entry_points', lambda group: [group])
    assert not memory.keep_freed()
