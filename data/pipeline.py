"""Training examples with tf.data: example k is a function of (seed, k) alone."""

import atexit
import functools
import weakref
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from data.banks import Bank, failure
from data.synthesis.example import make_example
from draem_jax.threads import core_count

# TensorFlow only prepares data here; JAX owns the accelerators.
tf.config.set_visible_devices([], 'GPU')

Batch = dict[str, np.ndarray]


def training_batches(
    images: Bank,
    textures: Bank | str,
    *,
    seed: int,
    batch_size: int,
    first_batch: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    **options: Any,
) -> Iterator[Batch]:
    """Endless batches of simulated anomalies: batch k is examples k B ... k B + B - 1, wherever the iteration starts.

    Args:
        images: bank of normal images, uint8 [N, H, W, 3] (`data.banks`; an array is one).
        textures: bank of textures, uint8 [T, H, W, 3], or banks.COLOUR, or banks.SELF.
        seed: chooses the examples, together with their positions.
        batch_size: B, over all processes.
        first_batch: where to start; a resumed run passes the number of batches already seen.
        process_index: which part of each batch is made here; `process_count` equal parts follow each other in the order
            of the examples.
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


def examples(images: Bank, textures: Bank | str, *, seed: int, positions: Iterable[int], **options: Any) -> Batch:
    """The training examples at some positions, as a training with the same seed, banks and options takes them.

    Args:
        images, textures, seed, **options: as for `training_batches`.
        positions: K integers >= 0; example j of batch k is at position k B + j.

    Returns:
        Dict of arrays, as one batch of K.
    """
    chosen = np.asarray(list(positions), np.int64)
    dataset = tf.data.Dataset.from_tensor_slices(chosen)
    return next(_batches(images, textures, seed, dataset, len(chosen), options))


def _batches(
    images: Bank, textures: Bank | str, seed: int, positions: tf.data.Dataset, batch_size: int, options: dict[str, Any]
) -> Generator[Batch, None, None]:
    # AutoGraph would search the code for Python control flow on tensors. There is none, and the search takes longer
    # than the rest of a start.
    make = tf.autograph.experimental.do_not_convert(functools.partial(make_example, images, textures, seed, **options))
    made = positions.map(make, num_parallel_calls=core_count(), deterministic=True)
    dataset = made.batch(batch_size, drop_remainder=True).prefetch(2).with_options(_untuned())
    batches = _iterate(dataset, (images, textures), tf.errors.OpError)
    _open.add(batches)
    return batches


def _untuned() -> tf.data.Options:
    # Nothing here needs tuning. The thread that tunes wakes up at intervals of up to a minute, and closing an iterator
    # would wait for it.
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _iterate(
    dataset: tf.data.Dataset, banks: tuple[Bank | str, ...], tensorflow_error: type[Exception]
) -> Generator[Batch, None, None]:
    """Yields the batches. If a file cannot be decoded, it raises the bank's own error instead of TensorFlow's."""
    try:
        yield from dataset.as_numpy_iterator()
    except tensorflow_error:
        for bank in banks:
            error = failure(bank)
            if error is not None:
                raise error from None
        raise


# TensorFlow's threads take images from Python. At the end of the program they would wait for the interpreter, and the
# interpreter for them, so `_close_all` closes all open iterators first.
_open: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for batches in list(_open):
        batches.close()
