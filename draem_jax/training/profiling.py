"""A trace of some steps of a training, for TensorBoard's profiler, XProf or Perfetto."""

import contextlib

import jax

from draem_jax.errors import UserError


def parse_steps(text):
    """'20,25' -> (20, 25), the first and the last step to trace; None of an empty text.

    Raises:
        UserError: the text says something else.
    """
    if not text:
        return None
    parts = text.split(',')
    if len(parts) == 2 and all(part.strip().isdecimal() for part in parts):
        first, last = map(int, parts)
        if 1 <= first <= last:
            return first, last
    raise UserError(f"--profile_steps={text}: expected the first and the last step to trace, such as '20,25'.")


@contextlib.contextmanager
def tracing(folder, steps):
    """Traces some steps into a folder, with the Python calls, the compiler's passes and what the devices do.

    Args:
        folder: where to.
        steps: (first, last), counted from the start of this process, whose first step is 1 and compiles; or None.

    Yields:
        before_step(k, results): to call before the k-th step, with arrays that the steps before it compute.
    """
    runs = False

    def before_step(k, results):
        nonlocal runs
        if steps is None or k not in (steps[0], steps[1] + 1):
            return
        jax.block_until_ready(results)  # A step is traced with all that it does, and without those before it.
        if k == steps[0]:
            jax.profiler.start_trace(str(folder))
        elif runs:
            jax.profiler.stop_trace()
        runs = not runs

    try:
        yield before_step
    finally:
        if runs:
            jax.profiler.stop_trace()
