"""The loop over the steps of a training, and when something is due in it."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from draem_jax.preemption import Interruption
from draem_jax.training.state import TrainState
from draem_jax.training.throughput import Throughput


def is_due(step: int, every: int, last: int) -> bool:
    """True on every `every`-th step and on the last one."""
    return step == last or (every > 0 and step % every == 0)


@dataclasses.dataclass(frozen=True)
class Step:
    """What one update leaves behind.

    Attributes:
        number: the step's number in the run, from 1.
        state: the state after the update, on the devices. Use it before the next step, whose update takes its memory.
        metrics: float32 scalars by name, which the devices may still be computing.
        stops: whether this is the last step because a process was asked to stop.
    """

    number: int
    state: TrainState
    metrics: dict[str, jax.Array]
    stops: bool


def take_steps(
    update: Callable[[TrainState, Any, bool], tuple[TrainState, dict[str, jax.Array], bool]],
    state: TrainState,
    batches: Iterator[Any],
    numbers: Iterable[int],
    *,
    interruption: Interruption,
    speed: Throughput,
    before_step: Callable[[int, TrainState], None],
) -> Iterator[Step]:
    """Makes one update after the other and yields a `Step` after each.

    Args:
        update: from `devices.parallel_update`.
        state: the state to start from, as `devices.replicate` gives it.
        batches: batches on the devices, from `devices.prefetch`.
        numbers: the numbers of the steps to make.
        interruption: once it is true, the next step or the one after it is the last.
        speed: counts the steps and the time spent waiting for batches.
        before_step: called before each step with the count of steps since this start, from 1, and the state.
    """
    previous = None
    for count, number in enumerate(numbers, 1):
        before_step(count, state)
        with speed.waiting():
            batch = next(batches)
        # A signal may come at any moment, so each step asks only once.
        state, metrics, stops = update(state, batch, bool(interruption))
        # One step stays in flight: the host makes the next batch meanwhile, but never runs further ahead.
        jax.block_until_ready(metrics if previous is None else previous)
        previous = metrics
        speed.step()
        yield Step(number, state, metrics, stops)
        if stops:
            return
