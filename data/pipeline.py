"""Training examples with tf.data: example k is a function of (seed, k) alone."""

import atexit
import functools
import weakref

import numpy as np
import tensorflow as tf

from data.banks import failure
from data.synthesis.example import make_example
from draem_jax.threads import core_count

# TensorFlow only prepares data here; JAX owns the accelerators.
tf.config.set_visible_devices([], 'GPU')


def training_batches(images, textures, *, seed, batch_size, first_batch=0, process_index=0, process_count=1, **options):
    """Endless batches of simulated anomalies: batch k is examples k B ... k B + B - 1, wherever the iteration starts.

    Args:
        images: bank of normal images, uint8 [N, H, W, 3] (`data.banks`; an array is one).
        textures: bank of textures, uint8 [T, H, W, 3], or banks.COLOUR, or banks.SELF.
        seed: integer.
        batch_size: B, over all processes.
        first_batch: where to start; a resumed run passes the number of batches already seen.
        process_index: which part of each batch is made here, of `process_count` equal ones in the order of the
            examples.
        process_count: a divisor of B.
        **options: of `make_example`.

    Returns:
        An endless iterator of dicts of NumPy arrays: 'image' and 'augmented' uint8 [b, H, W, 3],
        'mask' uint8 [b, H, W, 1] in {0, 1}, where b = B / process_count.
    """
    if batch_size % process_count:
        raise ValueError(f'A batch of {batch_size} does not divide over {process_count} processes.')
    part = batch_size // process_count
    rows = tf.data.Dataset.range(first_batch * part, np.iinfo(np.int64).max)
    positions = rows.map(lambda row: row // part * batch_size + process_index * part + row % part)
    return _batches(images, textures, seed, positions, part, options)


def examples(images, textures, *, seed, positions, **options):
    """The training examples at some positions, whatever training makes or made them.

    Args:
        images, textures, seed, **options: as for `training_batches`.
        positions: K integers >= 0: example j of batch k is at position k B + j.

    Returns:
        Dict of arrays, as one batch of K.
    """
    positions = np.asarray(list(positions), np.int64)
    dataset = tf.data.Dataset.from_tensor_slices(positions)
    return next(_batches(images, textures, seed, dataset, len(positions), options))


def _batches(images, textures, seed, positions, batch_size, options):
    # There is nothing to convert, and to look for it takes longer than all the rest of a start.
    make = tf.autograph.experimental.do_not_convert(functools.partial(make_example, images, textures, seed, **options))
    made = positions.map(make, num_parallel_calls=core_count(), deterministic=True)
    dataset = made.batch(batch_size, drop_remainder=True).prefetch(2).with_options(_untuned())
    batches = _iterate(dataset, (images, textures), tf.errors.OpError)
    _open.add(batches)
    return batches


def _untuned():
    # There is nothing to tune, and the thread that does it looks up only every so often, up to a minute: so long would
    # the end of an iterator wait for it.
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _iterate(dataset, banks, tensorflow_error):
    try:
        yield from dataset.as_numpy_iterator()
    except tensorflow_error:
        for bank in banks:
            if failure(bank) is not None:
                raise failure(bank) from None
        raise


# TensorFlow's threads take images from Python: while the interpreter shuts down they would wait for it, and it for
# them.
_open = weakref.WeakSet()


@atexit.register
def _close_all():
    for batches in list(_open):
        batches.close()
