"""Traces: which steps, and that what is written can be read."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from draem_jax.errors import UserError
from draem_jax.training import profiling


def names_in(folder):
    """The names of all events of the one trace in a folder."""
    (path,) = folder.rglob('*.trace.json.gz')
    return {event.get('name', '') for event in json.loads(gzip.decompress(path.read_bytes()))['traceEvents']}


def test_steps_are_two_numbers():
    assert profiling.parse_steps('20,25') == (20, 25)
    assert profiling.parse_steps('') is None


@pytest.mark.parametrize('text', ['20', '25,20', '0,3', 'a,b', '1,2,3'])
def test_other_texts_are_named(text):
    with pytest.raises(UserError, match=f'--profile_steps={text}: expected'):
        profiling.parse_steps(text)


@pytest.mark.parametrize('steps', [(2, 3), (3, 99)])
def test_a_trace_holds_those_steps_alone(tmp_path, steps):
    with profiling.tracing(tmp_path, steps) as before_step:
        for k in range(1, 6):
            before_step(k, jnp.ones(3))
            with jax.profiler.TraceAnnotation(f'step_{k}'):
                pass
    names = names_in(tmp_path)
    seen = [k for k in range(1, 6) if f'step_{k}' in names]
    assert seen == [k for k in range(1, 6) if steps[0] <= k <= steps[1]]


def test_a_trace_holds_what_jax_does_but_no_calls_of_python_functions(tmp_path):
    with profiling.tracing(tmp_path, (1, 1)) as before_step:
        for k in (1, 2):
            before_step(k, jnp.ones(3))
            jax.jit(jnp.sin)(jnp.ones(3)).block_until_ready()
    names = names_in(tmp_path)
    assert any('Execute' in name for name in names)
    assert not [name for name in names if name.startswith('$')]  # so the profiler names them: '$file.py:12 function'


def test_without_steps_nothing_is_written(tmp_path):
    with profiling.tracing(tmp_path / 'profile', None) as before_step:
        before_step(1, jnp.ones(3))
    assert not (tmp_path / 'profile').exists()
