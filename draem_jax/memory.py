"""What programs take of a device's memory, and what to say when it is full."""

import contextlib
from collections.abc import Iterator

import jax

from draem_jax.errors import UserError, first_line


@contextlib.contextmanager
def explaining_full_memory(advice: str) -> Iterator[None]:
    """Turns the error that JAX raises in the `with` block when a device's memory is full into a UserError.

    Args:
        advice: a sentence that says what takes less memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        raise UserError(f'The memory of a device is full: {first_line(error)} {advice}') from error


def describe(program: jax.stages.Compiled) -> str:
    """'3.10 GB on each device, of 60.12 GB that JAX may take': by XLA's own analysis of a compiled program.

    It counts arguments, results, intermediate values and the code; what is donated counts once. A part that is not
    known is left out: a CPU does not say what JAX may take.
    """
    analysis = program.memory_analysis()
    if analysis is None:
        return 'an unknown amount of memory'
    needed = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.generated_code_size_in_bytes
        - analysis.alias_size_in_bytes
    )
    text = f'{needed / 1e9:.2f} GB on each device'
    limit = (jax.local_devices()[0].memory_stats() or {}).get('bytes_limit')
    return text if limit is None else f'{text}, of {limit / 1e9:.2f} GB that JAX may take'
