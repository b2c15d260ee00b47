"""Keeps the host's memory from one step to the next, where the host is what computes."""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def keep_freed():
    """Lets glibc keep what is freed instead of giving it back to the system; before anything starts JAX's threads.

    On a CPU XLA takes the temporaries of a step as one piece, and gives it back. Pieces of that size glibc maps and
    unmaps, so the system has to find and clear all of their pages in every step: 18,600 at 64 px, batches of 8 and the
    quickstart's widths, a seventh of the step's time. Now all threads share one heap that only grows, and a process
    keeps the most that it ever took.

    Returns:
        Whether it was done: not where JAX may find an accelerator, nor elsewhere than on Linux with glibc.
    """
    if _may_find_accelerator() or platform.libc_ver()[0] != 'glibc':
        return False
    libc = ctypes.CDLL(None)
    # No mappings for large pieces; no return of the heap's free end; no heaps of threads, which are too small for them.
    options = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_ARENA_MAX: 1}
    return all(libc.mallopt(option, value) for option, value in options.items())


def _may_find_accelerator():
    """Whether JAX has been installed for more than a CPU, and not been told to leave it alone."""
    if os.environ.get('JAX_PLATFORMS') == 'cpu':
        return False
    modules = [importlib.util.find_spec(name) for name in ('jax_plugins', 'libtpu')]
    return any(modules) or bool(importlib.metadata.entry_points(group='jax_plugins'))
