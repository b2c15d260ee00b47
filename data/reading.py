"""From a builder to arrays: examples decoded and resized, in memory for training or streamed for testing."""

import collections
import concurrent.futures
import os

import numpy as np
from tqdm import tqdm

from data.in_place import InPlaceBuilder, read
from draem_jax import images
from draem_jax.errors import UserError


def prepare(builder):
    """Draws or downloads what a builder needs; does nothing for files that are read in place."""
    builder.download_and_prepare()


def count_examples(builder, split):
    """The number of examples of a split; 0 where the data set has no such split."""
    return builder.info.splits[split].num_examples if split in builder.info.splits else 0


def read_split(builder, split, size, *, antialias=False):
    """Yields the examples of a split, in order, decoded ahead by as many threads as there are cores.

    Args:
        builder: a TFDS builder with the features of `data.in_place`.
        split: 'train' or 'test'.
        size: (height, width).
        antialias: as in `images.resize`.

    Yields:
        Dicts as `data.in_place.read` returns them.
    """
    if isinstance(builder, InPlaceBuilder):
        yield from _map_ahead(lambda record: read(record, size, antialias), builder.records(split))
        return
    for example in builder.as_dataset(split=split, shuffle_files=False).as_numpy_iterator():
        yield {
            'image': images.resize(example['image'], size, antialias=antialias),
            'mask': images.resize(example['mask'][..., 0], size)[..., None],
            'label': int(example['label']),
            'defect_type': example['defect_type'].decode(),
            'filename': example['filename'].decode(),
            'has_mask': bool(example.get('has_mask', True)),
        }


def _map_ahead(function, items):
    """`map(function, items)` on threads, in order, a bounded number of results ahead of the reader."""
    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = collections.deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def load_normals(builder, size, *, antialias=False, validation_fraction=0.0):
    """Decodes the normal training images once.

    Args:
        builder: a TFDS builder with the features of `data.in_place`.
        size: (height, width).
        antialias: as in `images.resize`.
        validation_fraction: part of the images kept apart, the same ones for every seed of training.

    Returns:
        (training images, validation images), uint8 [N, H, W, 3] each; the second is empty at fraction 0.

    Raises:
        UserError: no image is left for one of the two, or a file cannot be read.
    """
    count = count_examples(builder, 'train')
    held_out = round(validation_fraction * count)
    if held_out == count or (validation_fraction > 0 and held_out == 0):
        raise UserError(
            f'--config.dataset.validation_fraction={validation_fraction} of {count} images leaves {count - held_out} '
            f'for training and {held_out} for validation; both need at least one.'
        )
    is_held_out = np.zeros(count, bool)
    is_held_out[np.random.default_rng(0).permutation(count)[:held_out]] = True
    training = np.empty((count - held_out, *size, 3), np.uint8)
    validation = np.empty((held_out, *size, 3), np.uint8)
    targets = [iter(training), iter(validation)]
    examples = read_split(builder, 'train', size, antialias=antialias)
    progress = tqdm(examples, total=count, desc='Reading images', unit='image', leave=False, disable=None)
    for example, held in zip(progress, is_held_out, strict=True):
        next(targets[int(held)])[...] = example['image']
    return training, validation


def load_textures(folder, size, *, limit=0):
    """Decodes the texture images of a folder, however nested.

    Args:
        folder: path.
        size: (height, width) that each is resized to, whatever its shape, as the authors do.
        limit: how many at most, spread evenly over the sorted list; 0 for all.

    Returns:
        uint8 [T, H, W, 3].

    Raises:
        UserError: no folder, no images in it, or one that cannot be read.
    """
    paths = images.list_images(folder)
    if 0 < limit < len(paths):
        paths = [paths[index] for index in np.linspace(0, len(paths) - 1, limit).round().astype(int)]
    textures = np.empty((len(paths), *size, 3), np.uint8)
    decoded = _map_ahead(lambda path: images.resize(images.read_image(path), size), paths)
    for target, texture in zip(
        textures, tqdm(decoded, 'Reading textures', len(paths), leave=False, disable=None), strict=True
    ):
        target[...] = texture
    return textures


def padded_batches(builder, size, batch_size, *, antialias=False):
    """The test split in batches of one size; the last one is filled up.

    Args:
        builder: a TFDS builder with the features of `data.in_place`.
        size: (height, width).
        batch_size: B.
        antialias: as in `images.resize`.

    Yields:
        Dict of 'image' uint8 [B, H, W, 3], 'mask' uint8 [B, H, W, 1] from 0 to 255, and lists of the real examples
        only: 'label', 'defect_type', 'filename', 'has_mask'. Rows beyond their length are filler.
    """
    batch = []
    for example in read_split(builder, 'test', size, antialias=antialias):
        batch.append(example)
        if len(batch) == batch_size:
            yield _collate(batch, batch_size)
            batch = []
    if batch:
        yield _collate(batch, batch_size)


def _collate(examples, batch_size):
    fields = {name: [example[name] for example in examples] for name in examples[0]}
    filler = batch_size - len(examples)
    for name in ('image', 'mask'):
        fields[name] = np.stack(fields[name] + [np.zeros_like(fields[name][0])] * filler)
    return fields
