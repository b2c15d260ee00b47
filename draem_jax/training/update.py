"""One update of a training: the loss, its gradient over all devices, and the optimizer's step."""

import jax
import jax.numpy as jnp
import optax

from draem_jax import devices
from draem_jax.model import losses
from draem_jax.model.networks import scale_images
from draem_jax.training import divergence
from draem_jax.training.state import TrainState


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
        # On a CPU convolutions inside a loop are dozens of times slower; elsewhere a loop compiles one slice alone.
        unroll = slices if jax.default_backend() == 'cpu' else 1
        (total, batch_stats), metrics = jax.lax.scan(add_slice, (zeros, batch_stats), batches, unroll=unroll)
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
