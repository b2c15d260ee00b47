"""What happens when a training diverges: the device refuses to go on, and the host raises an error at its next look.

A step whose loss or gradient is not finite would spoil parameters, moments and running statistics for good. The host
could prevent that only by waiting for every step, which is slow. So the device itself skips the step, and every one
after it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from draem_jax.errors import Diverged
from draem_jax.training.state import TrainState


def guard(before: TrainState, after: TrainState, *values: jax.Array) -> TrainState:
    """Returns `after` while every value has been finite, and `before` from the first step on where one was not.

    It is called inside the mapped update. It costs little: it only touches arrays that the optimizer reads and writes
    anyway.

    Args:
        before: the state before a step.
        after: the state after it.
        *values: scalars of the step, equal on all devices.

    Returns:
        One of the two, with `diverged_at` set to the first such step.
    """
    is_finite = jnp.all(jnp.isfinite(jnp.stack(values)))
    diverged_at = jnp.where((before.diverged_at == 0) & ~is_finite, before.step + 1, before.diverged_at)
    kept = jax.tree.map(lambda old, new: jnp.where(diverged_at == 0, new, old), before, after)
    return kept.replace(diverged_at=diverged_at)


def check(step: int, state: TrainState, recent: Sequence[dict[str, jax.Array]], schedule: optax.Schedule) -> None:
    """Raises Diverged if the device has skipped a step; waits for the device.

    Args:
        step: the newest step that was asked for.
        state: the state after it.
        recent: metrics of the newest steps in their order, back to the last check or further.
        schedule: the learning rate as a function of the step.
    """
    diverged_at = int(state.diverged_at)
    if not diverged_at:
        return
    values = jax.device_get(recent[diverged_at - step - 1])
    parts = ', '.join(f'{name} {value:.4g}' for name, value in values.items())
    raise Diverged(
        f'Training diverged at step {diverged_at}, learning rate {float(schedule(diverged_at - 1)):.4g}: {parts}. '
        'The checkpoints on disk are from before it. Lower --config.optimizer.learning_rate, in another --workdir; '
        '--config.training.warm_start can name this one to start from its networks.'
    )
