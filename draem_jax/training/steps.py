"""The steps of a training, one after the other."""

import dataclasses

import jax


def is_due(step, every, last):
    """True on every `every`-th step and on the last one."""
    return step == last or (every > 0 and step % every == 0)


@dataclasses.dataclass(frozen=True)
class Step:
    """What one update leaves behind.

    Attributes:
        number: the step's number in the run, from 1.
        state: `TrainState` after the update, on the devices. The next update takes its memory: use it before.
        metrics: float32 scalars by name, which the devices may still be computing.
        stops: whether this is the last step because a process was asked to stop.
    """

    number: int
    state: object
    metrics: dict
    stops: bool


def take_steps(update, state, batches, numbers, *, interruption, speed, before_step):
    """Makes one update after the other and yields a `Step` after each.

    Args:
        update: from `devices.parallel_update`.
        state: `TrainState` to start from, as `devices.replicate` gives it.
        batches: iterator of batches on the devices, from `devices.prefetch`.
        numbers: the numbers of the steps to make.
        interruption: `preemption.Interruption`; once it is true, the next step or the one after it is the last.
        speed: `Throughput`, which counts the steps and the time spent waiting for batches.
        before_step: called with the count of steps since this start, from 1, and the state before the step.
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
