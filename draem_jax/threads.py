"""Work on threads: as many of them as there are cores for this process."""

import collections
import concurrent.futures
import os


def core_count():
    """The number of cores that this process may use: on a shared machine often fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def map_ahead(function, items):
    """`map(function, items)` on threads, in order, a bounded number of results ahead of the reader."""
    workers = core_count()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = collections.deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
