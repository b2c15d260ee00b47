"""The one place that knows how work is spread over devices (today: `jax.pmap`)."""

import os

import jax

from draem_jax.errors import UserError

AXIS = 'devices'  # the name of the mapped axis: for pmean, and for BatchNorm(axis_name=...)


def count():
    """The number of devices of this process."""
    return jax.local_device_count()


def parallel_update(update):
    """`update(state, batch) -> (state, metrics)` over all devices; the state keeps its shape and is donated.

    The batch has a leading axis of devices ([D, B/D, ...], see `split`), the state and the metrics have none.
    Inside, `average` equalises values over the devices.
    """
    return jax.pmap(update, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=0)


def parallel_predict(predict):
    """`predict(variables, batch) -> outputs` over all devices; batch and outputs have a leading axis of devices."""
    return jax.pmap(predict, axis_name=AXIS, in_axes=(None, 0))


def average(tree):
    """The mean of every leaf over the devices; only inside a mapped function."""
    return jax.lax.pmean(tree, AXIS)


def extremes(values):
    """The smallest and the largest value on all devices; only inside a mapped function."""
    return jax.lax.pmin(values.min(), AXIS), jax.lax.pmax(values.max(), AXIS)


def split(batch):
    """[B, ...] -> [D, B/D, ...] for every leaf."""
    devices = count()
    return jax.tree.map(lambda leaf: leaf.reshape(devices, leaf.shape[0] // devices, *leaf.shape[1:]), batch)


def join(batch):
    """[D, B/D, ...] -> [B, ...] for every leaf: the inverse of `split`."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


def predict_batch(predict, variables, images):
    """Runs a mapped `predict` on images [B, H, W, 3] spread over the devices; NumPy arrays [B, ...] come back."""
    return join(jax.device_get(predict(variables, split(images))))


def check_processes():
    """Raises UserError where JAX sees several processes, each of which would train on the same examples."""
    if jax.process_count() > 1:
        raise UserError(f'Found {jax.process_count()} JAX processes; training runs in one process, on all its devices.')


def check_batch_size(batch_size, field):
    """Raises UserError unless a batch divides evenly over the devices."""
    if batch_size < 1 or batch_size % count():
        raise UserError(
            f'--config.{field}={batch_size} does not divide over the {count()} devices of this host; '
            f'take a multiple of {count()}.'
        )


def cache_compilations(folder=None):
    """Keeps compiled programs on disk, so that only the first run waits for the compiler.

    Args:
        folder: path; None for what JAX_COMPILATION_CACHE_DIR says, else `draem_jax` in the user's cache folder.
    """
    if folder is None and jax.config.jax_compilation_cache_dir:
        return
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    jax.config.update('jax_compilation_cache_dir', folder or os.path.join(cache, 'draem_jax'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
