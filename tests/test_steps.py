"""The loop over the steps, with an update that only counts."""

import contextlib

import numpy as np
import pytest

from draem_jax.preemption import Interruption
from draem_jax.training.state import TrainState
from draem_jax.training.steps import is_due, take_steps
from draem_jax.training.throughput import Throughput


def count_up(state, batch, asks_to_stop):
    """An update of one process: it stops at the step that asks."""
    return state.replace(step=state.step + 1), {'batch': np.float32(batch)}, asks_to_stop


def take(numbers, *, update=count_up, **options):
    """The steps from a state in which 4 are done, with batches 100, 101, ..."""
    options = {
        'interruption': Interruption(),
        'speed': Throughput(images_per_step=8, flops_per_image=1.0),
        'before_step': lambda count, state: None,
        **options,
    }
    return take_steps(update, TrainState(np.int32(4), {}, {}, ()), iter(range(100, 200)), numbers, **options)


@pytest.mark.parametrize(('every', 'due'), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (7, [7]), (100, [7]), (0, [7])])
def test_it_is_time_on_every_so_many_steps_and_on_the_last(every, due):
    assert [step for step in range(1, 8) if is_due(step, every, last=7)] == due


def test_steps_come_in_their_order_each_with_its_state_and_batch():
    steps = list(take(range(5, 9)))
    assert [step.number for step in steps] == [5, 6, 7, 8]
    assert [int(step.state.step) for step in steps] == [5, 6, 7, 8]
    assert [float(step.metrics['batch']) for step in steps] == [100, 101, 102, 103]
    assert not any(step.stops for step in steps)


def test_no_step_is_made_before_it_is_asked_for():
    made = []

    def update(state, batch, asks_to_stop):
        made.append(batch)
        return count_up(state, batch, asks_to_stop)

    steps = take(range(5, 9), update=update)
    assert made == []
    next(steps)
    assert made == [100]


def test_an_interruption_makes_the_next_step_the_last():
    interruption, taken = Interruption(), []
    for step in take(range(5, 100), interruption=interruption):
        taken.append((step.number, step.stops))
        if step.number == 6:
            interruption.signal = 'SIGTERM'
    assert taken == [(5, False), (6, False), (7, True)]


def test_what_comes_before_a_step_sees_its_count_since_the_start_and_the_state_before_it():
    calls = []
    list(take(range(5, 8), before_step=lambda count, state: calls.append((count, int(state.step)))))
    assert calls == [(1, 4), (2, 5), (3, 6)]


def test_every_step_and_every_wait_for_a_batch_is_counted():
    events = []

    class Recorder:
        @contextlib.contextmanager
        def waiting(self):
            events.append('wait')
            yield

        def step(self):
            events.append('step')

    list(take(range(5, 8), speed=Recorder()))
    assert events == ['wait', 'step'] * 3
