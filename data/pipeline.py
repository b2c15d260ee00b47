"""Endless training batches with tf.data: example k is a function of (seed, k) alone."""

import functools

import numpy as np
import tensorflow as tf

from data import synthesis

# TensorFlow only prepares data here; JAX owns the accelerators.
tf.config.set_visible_devices([], 'GPU')


def training_batches(images, textures, *, seed, batch_size, first_batch=0, **options):
    """Batches of simulated anomalies: batch k is examples k B ... k B + B - 1, wherever the iteration starts.

    Args:
        images: uint8 [N, H, W, 3], normal images.
        textures: uint8 [T, H, W, 3].
        seed: integer.
        batch_size: B.
        first_batch: where to start; a resumed run passes the number of batches already seen.
        **options: of `synthesis.make_example`.

    Returns:
        An endless iterator of dicts of NumPy arrays: 'image' and 'augmented' uint8 [B, H, W, 3],
        'mask' uint8 [B, H, W, 1] in {0, 1}.
    """
    make = functools.partial(
        synthesis.make_example, tf.convert_to_tensor(images), tf.convert_to_tensor(textures), seed, **options
    )
    positions = tf.data.Dataset.range(first_batch * batch_size, np.iinfo(np.int64).max)
    examples = positions.map(make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return examples.batch(batch_size, drop_remainder=True).prefetch(2).as_numpy_iterator()


def fixed_examples(images, textures, *, seed, count, **options):
    """The first `count` simulated examples, as one dict of arrays: for validation.

    Args and returns: as `training_batches`, with `count` for the batch size.
    """
    return next(training_batches(images, textures, seed=seed, batch_size=count, **options))
