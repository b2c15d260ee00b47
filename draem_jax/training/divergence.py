"""What happens when a training diverges: on the device nothing changes any more, and the host leaves at its next look.

A step whose loss or gradient is not finite would spoil parameters, moments and running statistics for good. To notice
it in time without the host waiting for every step, the device itself refuses to make the step, and every one after it.
"""

import jax
import jax.numpy as jnp

from draem_jax.errors import Diverged


def guard(before, after, *values):
    """`after` as long as every value has always been finite, `before` from the first step on where one was not.

    Inside the mapped update. It is elementwise on arrays that the optimizer reads and writes anyway.

    Args:
        before: `TrainState` before a step.
        after: `TrainState` after it.
        *values: scalars of the step, equal on all devices.

    Returns:
        `TrainState`; its `diverged_at` remembers the first such step.
    """
    is_finite = jnp.all(jnp.isfinite(jnp.stack(values)))
    diverged_at = jnp.where((before.diverged_at == 0) & ~is_finite, before.step + 1, before.diverged_at)
    kept = jax.tree.map(lambda old, new: jnp.where(diverged_at == 0, new, old), before, after)
    return kept.replace(diverged_at=diverged_at)


def check(step, state, recent, schedule):
    """Raises Diverged where the device has refused a step; waits for the device.

    Args:
        step: the newest step that was asked for.
        state: `TrainState` after it.
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
