"""One update of a training: the loss, its gradient over all devices, and the optimizer's step."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from draem_jax import devices
from draem_jax.model import losses
from draem_jax.model.networks import scale_images
from draem_jax.training import divergence
from draem_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def make_update(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    guess_range: bool = False,
    slices: int = 1,
    ema_decay: float = 0.0,
    **loss_options: float,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """One training step, to be mapped by `devices.parallel_update`.

    Args:
        model: `networks.Draem` with `axis_name=devices.AXIS`.
        optimizer: from `make_optimizer`.
        guess_range: take SSIM's dynamic range from each batch as the authors' code does, not 1.
        slices: how many equal parts the examples of each device are cut into. They pass through the networks one after
            the other, so that a batch takes the memory of one slice. The gradient is the mean over the slices. What is
            computed from all examples together is computed per slice: the statistics of batch normalisation (the
            running ones move with each slice), and the range that is guessed.
        ema_decay: of the moving averages of parameters and running statistics, if the state has some. The first steps
            use (1 + step) / (10 + step) where that is smaller, so that the initial values are soon forgotten.
        **loss_options: weights and gamma of `losses.draem_loss`.

    Returns:
        update(state, batch) -> (state, metrics). The batch holds 'image' and 'augmented' uint8 [B, H, W, 3] and
        'mask' uint8 [B, H, W, 1] in {0, 1}. The metrics are float32 scalars: 'loss', its parts as
        `losses.draem_loss` names them, and 'gradient_norm', all averaged over the devices. Once the loss or gradient of
        a step is not finite, the state stays what it was before that step (see `divergence`).
    """

    def loss_fn(params: Any, batch_stats: Any, batch: Batch) -> tuple[jax.Array, tuple[Metrics, Any]]:
        image, augmented = scale_images(batch['image']), scale_images(batch['augmented'])
        (reconstruction, logits), changes = model.apply(
            {'params': params, 'batch_stats': batch_stats}, augmented, train=True, mutable=['batch_stats']
        )
        dynamic_range: float | jax.Array = 1.0
        if guess_range and reconstruction is not None:
            dynamic_range = losses.authors_dynamic_range(*devices.extremes(jax.lax.stop_gradient(reconstruction)))
        mask = batch['mask'].astype(jnp.float32)
        loss, parts = losses.draem_loss(
            reconstruction, logits, image, mask, dynamic_range=dynamic_range, **loss_options
        )
        return loss, ({'loss': loss, **parts}, changes['batch_stats'])

    def differentiate(params: Any, batch_stats: Any, batch: Batch) -> tuple[Any, Metrics, Any]:
        (_, (metrics, batch_stats)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params, batch_stats, batch)
        return gradient, metrics, batch_stats

    def differentiate_slices(params: Any, batch_stats: Any, batch: Batch) -> tuple[Any, Metrics, Any]:
        def add_slice(carry: tuple[Any, Any], batch: Batch) -> tuple[tuple[Any, Any], Metrics]:
            total, batch_stats = carry
            gradient, metrics, batch_stats = differentiate(params, batch_stats, batch)
            return (jax.tree.map(jnp.add, total, gradient), batch_stats), metrics

        batches = jax.tree.map(lambda leaf: leaf.reshape(slices, -1, *leaf.shape[1:]), batch)
        zeros = jax.tree.map(jnp.zeros_like, params)
        # On a CPU convolutions inside a loop are dozens of times slower. Elsewhere a loop saves compiling every slice.
        unroll = slices if devices.on_cpu() else 1
        (total, batch_stats), metrics = jax.lax.scan(add_slice, (zeros, batch_stats), batches, unroll=unroll)
        return jax.tree.map(lambda leaf: leaf / slices, total), jax.tree.map(jnp.mean, metrics), batch_stats

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        find_gradient = differentiate if slices == 1 else differentiate_slices
        gradient, metrics, batch_stats = find_gradient(state.params, state.batch_stats, batch)
        # The running statistics are not averaged: they come from the whole batch, so all devices have the same.
        gradient, metrics = devices.average((gradient, metrics))
        metrics['gradient_norm'] = optax.tree.norm(gradient)
        with jax.numpy_dtype_promotion('standard'):  # optax raises Python floats to an integer count
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averages = state.averages
        if averages is not None:
            count = state.step.astype(jnp.float32)
            decay = jnp.minimum(ema_decay, (1 + count) / (10 + count))
            newest = {'params': params, 'batch_stats': batch_stats}
            averages = jax.tree.map(lambda mean, value: value + decay * (mean - value), averages, newest)
        after = TrainState(state.step + 1, params, batch_stats, opt_state, state.diverged_at, averages)
        return divergence.guard(state, after, metrics['loss'], metrics['gradient_norm']), metrics

    return update
