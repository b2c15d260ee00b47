"""The training state, the optimizer with its schedule, and one update step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from draem_jax import devices, divergence, losses


@flax.struct.dataclass
class TrainState:
    """What a resumed run needs, and whether there is anything to resume.

    Attributes:
        step: int32 scalar, the number of updates made.
        params: parameters of both networks, float32.
        batch_stats: running means and variances, float32.
        opt_state: of the optimizer.
        diverged_at: int32 scalar, the first step whose loss or gradient was not finite, which was not made and after
            which none is; 0 as long as there is none. Not saved: of a diverged state there is no checkpoint.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    diverged_at: jax.Array = np.int32(0)


def make_schedule(total_steps, *, learning_rate, decay_factor, decay_at, warmup_steps=0):
    """The learning rate at each step: constant, times `decay_factor` at each of the fractions `decay_at`.

    Args:
        total_steps: length of the run.
        learning_rate: the rate at the start.
        decay_factor: what each decay multiplies the rate by.
        decay_at: fractions of `total_steps` in (0, 1), ascending, such as (0.8, 0.9).
        warmup_steps: steps of linear rise from 0; 0 for none.

    Returns:
        A function of the step.
    """
    boundaries = {round(fraction * total_steps): decay_factor for fraction in decay_at}
    schedule = optax.piecewise_constant_schedule(learning_rate, boundaries)
    if not warmup_steps:
        return schedule
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / warmup_steps)


def make_optimizer(schedule):
    """Adam without weight decay; `schedule` is a function of the step, from `make_schedule`."""
    return optax.adam(schedule)


def init_state(variables, optimizer):
    """The state before the first step, as NumPy arrays, without compiling anything.

    Args:
        variables: {'params', 'batch_stats'} from `networks.init_variables` or from a checkpoint.
        optimizer: an optax optimizer that starts from zeros, as Adam does.
    """
    shapes = jax.eval_shape(optimizer.init, variables['params'])
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return TrainState(np.zeros((), np.int32), variables['params'], variables['batch_stats'], zeros)


def scale_images(images):
    """uint8 in 0..255 -> float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def make_update(model, optimizer, *, guess_range=False, slices=1, **loss_options):
    """One training step, to be mapped by `devices.parallel_update`.

    Args:
        model: `networks.Draem` with `axis_name=devices.AXIS`.
        optimizer: from `make_optimizer`.
        guess_range: take SSIM's dynamic range from each batch as the authors' code does, not 1.
        slices: into how many equal parts the examples of each device are cut, which pass through the networks one after
            the other, so that a batch takes the memory of one. The gradient is the mean over the slices; what is
            computed from a batch's examples together is per slice: the statistics of batch normalisation (the running
            ones move with each slice), and the range that is guessed.
        **loss_options: weights and gamma of `losses.draem_loss`.

    Returns:
        update(state, batch) -> (state, metrics). The batch holds 'image' and 'augmented' uint8 [B, H, W, 3] and
        'mask' uint8 [B, H, W, 1] in {0, 1}; the metrics are float32 scalars: 'loss', 'l2', 'ssim', 'focal',
        'gradient_norm', all averaged over the devices. From the first step on where the loss or the gradient is not
        finite, the state stays what it was before it (see `divergence`).
    """

    def loss_fn(params, batch_stats, batch):
        image, augmented = scale_images(batch['image']), scale_images(batch['augmented'])
        (reconstruction, logits), changes = model.apply(
            {'params': params, 'batch_stats': batch_stats}, augmented, train=True, mutable=['batch_stats']
        )
        dynamic_range = 1.0
        if guess_range:
            dynamic_range = losses.authors_dynamic_range(*devices.extremes(jax.lax.stop_gradient(reconstruction)))
        mask = batch['mask'].astype(jnp.float32)
        loss, parts = losses.draem_loss(
            reconstruction, logits, image, mask, dynamic_range=dynamic_range, **loss_options
        )
        return loss, ({'loss': loss, **parts}, changes['batch_stats'])

    def differentiate(params, batch_stats, batch):
        (_, (metrics, batch_stats)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params, batch_stats, batch)
        return gradient, metrics, batch_stats

    def differentiate_slices(params, batch_stats, batch):
        def add_slice(carry, batch):
            total, batch_stats = carry
            gradient, metrics, batch_stats = differentiate(params, batch_stats, batch)
            return (jax.tree.map(jnp.add, total, gradient), batch_stats), metrics

        batches = jax.tree.map(lambda leaf: leaf.reshape(slices, -1, *leaf.shape[1:]), batch)
        zeros = jax.tree.map(jnp.zeros_like, params)
        (total, batch_stats), metrics = jax.lax.scan(add_slice, (zeros, batch_stats), batches)
        return jax.tree.map(lambda leaf: leaf / slices, total), jax.tree.map(jnp.mean, metrics), batch_stats

    def update(state, batch):
        find_gradient = differentiate if slices == 1 else differentiate_slices
        gradient, metrics, batch_stats = find_gradient(state.params, state.batch_stats, batch)
        # The running statistics need no averaging: BatchNorm has seen the statistics of the whole batch.
        gradient, metrics = devices.average((gradient, metrics))
        metrics['gradient_norm'] = optax.tree.norm(gradient)
        with jax.numpy_dtype_promotion('standard'):  # optax raises Python floats to an integer count
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        after = TrainState(state.step + 1, params, batch_stats, opt_state, state.diverged_at)
        return divergence.guard(state, after, metrics['loss'], metrics['gradient_norm']), metrics

    return update
