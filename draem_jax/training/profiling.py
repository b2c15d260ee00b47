"""A trace of some steps of a training, for TensorBoard's profiler, XProf or Perfetto."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax

from draem_jax.errors import UserError


def parse_steps(text: str) -> tuple[int, int] | None:
    """'20,25' -> (20, 25), the first and the last step to trace; None for an empty text.

    Raises:
        UserError: the text says something else.
    """
    if not text:
        return None
    parts = text.split(',')
    if len(parts) == 2 and all(part.strip().isdecimal() and len(part) < 20 for part in parts):
        first, last = map(int, parts)
        if 1 <= first <= last:
            return first, last
    raise UserError(f"--profile_steps={text}: expected the first and the last step to trace, such as '20,25'.")


def start_trace(folder: str | os.PathLike[str]) -> None:
    """Traces what the devices do, and what JAX and XLA do on the host, until `jax.profiler.stop_trace` is called.

    The calls of Python functions are left out. They slow what is traced, and where a step is traced and compiled they
    are nearly all of the file: 103 of 110 MB for the first two steps of a small network.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    jax.profiler.start_trace(str(folder), profiler_options=options)


@contextlib.contextmanager
def tracing(folder: str | os.PathLike[str], steps: tuple[int, int] | None) -> Iterator[Callable[[int, Any], None]]:
    """Traces some steps into a folder, as `start_trace` does.

    Args:
        folder: where the trace is written.
        steps: (first, last), counted from the start of this process, whose step 1 compiles; None to trace nothing.

    Yields:
        before_step(k, results): to be called before the k-th step, with arrays that the steps before it compute.
    """
    is_running = False

    def before_step(k: int, results: Any) -> None:
        nonlocal is_running
        if steps is None or k not in (steps[0], steps[1] + 1):
            return
        jax.block_until_ready(results)  # So the trace begins and ends between two steps.
        if k == steps[0]:
            start_trace(folder)
        elif is_running:
            jax.profiler.stop_trace()
        is_running = not is_running

    try:
        yield before_step
    finally:
        if is_running:
            jax.profiler.stop_trace()
