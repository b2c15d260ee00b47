"""Adam, and the learning rate over the steps of a run."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

STEPS, COSINE = 'steps', 'cosine'


def make_schedule(
    total_steps: int,
    *,
    learning_rate: float,
    decay_factor: float,
    decay_at: Sequence[float],
    warmup_steps: int = 0,
    schedule: str = STEPS,
) -> optax.Schedule:
    """The learning rate at each step: constant, times `decay_factor` at each of the fractions `decay_at`; or a cosine.

    Args:
        total_steps: length of the run.
        learning_rate: the rate at the start.
        decay_factor: what each decay multiplies the rate by.
        decay_at: fractions of `total_steps` in (0, 1), ascending, such as (0.8, 0.9).
        warmup_steps: steps of linear rise from 0; 0 for none.
        schedule: STEPS; or COSINE, which falls from `learning_rate` to 0 along half a cosine and needs no `decay_at`.

    Returns:
        A function of the step.

    References:
        Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, equation 5, without restarts.
    """
    if schedule == COSINE:

        def rate(step: Any) -> jax.Array:
            return learning_rate * (1 + jnp.cos(jnp.pi * (step / total_steps))) / 2

    else:
        boundaries = {round(fraction * total_steps): decay_factor for fraction in decay_at}
        rate = optax.piecewise_constant_schedule(learning_rate, boundaries)
    if not warmup_steps:
        return rate
    return lambda step: rate(step) * jnp.minimum(1.0, (step + 1) / warmup_steps)


def make_optimizer(schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adam without weight decay; `schedule` is a function of the step, from `make_schedule`."""
    return optax.adam(schedule)
