"""What programs take of memory, and what is said when it is full."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from draem_jax import memory
from draem_jax.errors import UserError


def test_full_memory_is_one_line_with_what_to_change():
    with pytest.raises(UserError) as caught, memory.explaining_full_memory('Take smaller images.'):
        jnp.ones((2**24, 2**24)).block_until_ready()  # 10^15 bytes
    assert re.fullmatch(r'The memory of a device is full: .*Out of memory.* Take smaller images\.', str(caught.value))


def test_other_errors_keep_their_type():
    with pytest.raises(ZeroDivisionError), memory.explaining_full_memory('Take smaller images.'):
        raise ZeroDivisionError
    with pytest.raises(jax.errors.JaxRuntimeError), memory.explaining_full_memory('Take smaller images.'):
        raise jax.errors.JaxRuntimeError('INTERNAL: something else')


def test_the_memory_of_a_program_is_that_of_its_arguments_and_results():
    megabytes_250 = jax.ShapeDtypeStruct((250, 2**10, 2**8), np.float32)
    program = jax.jit(lambda a, b: a + b).lower(megabytes_250, megabytes_250).compile()
    assert memory.describe(program) == f'{3 * 250 * 2**20 / 1e9:.2f} GB on each device'
    in_place = jax.jit(lambda a, b: a + b, donate_argnums=0).lower(megabytes_250, megabytes_250).compile()
    assert memory.describe(in_place) == f'{2 * 250 * 2**20 / 1e9:.2f} GB on each device'
