"""From a builder to images: decoded and resized, as a bank for training or streamed for testing."""

import collections
import concurrent.futures
import functools
import os
import pathlib

import numpy as np
from tqdm import tqdm

from data.bank import FileImages, Selection
from data.cache import in_memory, on_disk
from data.in_place import InPlaceBuilder, read
from draem_jax import images
from draem_jax.errors import UserError
from draem_jax.files import stamp


def prepare(builder):
    """Draws or downloads what a builder needs; does nothing for files that are read in place."""
    try:
        builder.download_and_prepare()
    except FileExistsError:  # Another process, such as another seed of a sweep, did the same and was faster.
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
        yield from map_ahead(lambda record: read(record, size, antialias), builder.records(split))
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


def map_ahead(function, items):
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


def load_normals(
    builder,
    size,
    *,
    antialias=False,
    validation_fraction=0.0,
    test_fraction=0.0,
    skip_unreadable=False,
    cache='memory',
    cache_folder='',
    pinned=None,
):
    """The normal training images, parted in three: to train on, to validate with, and to test on.

    Args:
        builder: a TFDS builder with the features of `data.in_place`.
        size: (height, width).
        antialias: as in `images.resize`.
        validation_fraction: part of the images kept apart, the same ones for every seed of training.
        test_fraction: likewise for the test, where the data set has no test images.
        skip_unreadable: pass over files that cannot be read, and name them.
        cache: one of `data.cache.CACHES`.
        cache_folder: where 'disk' keeps its file; '' for `data.cache.default_folder()`.
        pinned: the names that an earlier call returned, which this one keeps to whatever the fractions; images that
            have come since are trained on.

    Returns:
        (training, validation, test images, names): three banks of uint8 [H, W, 3] (`data.bank`), the second empty at
        fraction 0, the third also where the data set has test images; and {'validation': file names, 'test': file
        names}.

    Raises:
        UserError: no image is left for one of the parts, or a file cannot be read.
    """
    if count_examples(builder, 'test'):
        test_fraction = 0.0
    is_in_place = isinstance(builder, InPlaceBuilder)
    if is_in_place:
        records = builder.records('train')

        def decode(record):
            return read(record, size, antialias)['image']

        if skip_unreadable:
            records = [records[index] for index in readable(records, decode, 'Checking images')]
        count, files = len(records), [record.image for record in records]
        decoded = functools.partial(map_ahead, decode, records)
    else:
        count, files = count_examples(builder, 'train'), files_of(builder)
        decoded = functools.partial(_images, builder, size, antialias)
    all_names = [record.filename for record in records] if is_in_place else [f'train/{index}' for index in range(count)]
    if pinned is None:
        training, validation, test = part(count, validation_fraction, test_fraction)
    else:
        training, validation, test = find_parts(all_names, pinned)

    def decode_all():
        return tqdm(decoded(), 'Reading images', count, unit='image', leave=False, disable=None)

    if cache == 'none':
        if not is_in_place:
            raise UserError(
                f"--config.dataset.cache=none reads images where they lie, and '{builder.name}' is kept by TFDS. "
                'Expected memory or disk.'
            )
        bank = FileImages(records, decode, size)
    elif cache == 'disk':
        identity = [builder.info.full_name, bool(antialias), [stamp(file) for file in files]]
        bank = on_disk(decode_all, (count, *size, 3), identity=identity, folder=cache_folder)
    else:
        bank = in_memory(decode_all(), (count, *size, 3))
    names = {'validation': [all_names[index] for index in validation], 'test': [all_names[index] for index in test]}
    return Selection(bank, training), Selection(bank, validation), Selection(bank, test), names


def _images(builder, size, antialias):
    for example in read_split(builder, 'train', size, antialias=antialias):
        yield example['image']


def files_of(builder):
    """The files in which TFDS keeps a prepared data set."""
    return sorted(str(path) for path in pathlib.Path(builder.data_path).iterdir() if path.is_file())


def part(count, validation_fraction, test_fraction):
    """Which of `count` images are for training, validation and test: three sorted arrays of indices.

    Raises:
        UserError: one that should have images gets none.
    """
    validation, test = round(validation_fraction * count), round(test_fraction * count)
    if (validation_fraction > 0 and not validation) or (test_fraction > 0 and not test) or validation + test >= count:
        also = f' and test_fraction={test_fraction}' if test_fraction else ''
        numbers = (
            f'{max(count - validation - test, 0)} for training, {validation} for validation and {test} for the test'
        )
        raise UserError(
            f'--config.dataset.validation_fraction={validation_fraction}{also} of {count} images leaves {numbers}; '
            'each needs at least one, or a fraction of 0.'
        )
    shuffled = np.random.default_rng(0).permutation(count)
    ends = [validation, validation + test]
    validation, test, training = np.split(shuffled, ends)
    return np.sort(training), np.sort(validation), np.sort(test)


def find_parts(names, pinned):
    """As `part`, with the images of validation and test given by name.

    Args:
        names: the file names of all images.
        pinned: {'validation': names, 'test': names}.

    Raises:
        UserError: images are gone that a run validates or is tested with.
    """
    place = {name: index for index, name in enumerate(names)}
    parts = []
    for what in ('validation', 'test'):
        gone = [name for name in pinned[what] if name not in place]
        if gone:
            raise UserError(
                f'{len(gone)} of the {len(pinned[what])} images that this run keeps for the {what} cannot be found, as '
                f"'{gone[0]}'. Put them back, or start a new run."
            )
        parts.append(np.sort(np.array([place[name] for name in pinned[what]], int)))
    training = np.setdiff1d(np.arange(len(names)), np.concatenate(parts))
    if not len(training):
        raise UserError(f'Of {len(names)} images none is left for training beside those kept for validation and test.')
    return training, *parts


def readable(files, decode, what):
    """The indices of those files that can be decoded; the others are named and counted on the screen.

    Raises:
        UserError: none of them can be.
    """

    def find_error(file):
        try:
            decode(file)
        except UserError as error:
            return str(error)

    errors = list(tqdm(map_ahead(find_error, files), what, len(files), leave=False, disable=None))
    kept = [index for index, error in enumerate(errors) if error is None]
    for error in filter(None, errors):
        tqdm.write(f'Passed over: {error}')
    if not kept:
        raise UserError(f'Of {len(files)} files none can be read; the first: {errors[0]}')
    if len(kept) < len(files):
        tqdm.write(f'{len(files) - len(kept)} of {len(files)} files were passed over.')
    return kept


def load_textures(folder, size, *, limit=0, skip_unreadable=False, cache='memory', cache_folder=''):
    """The texture images of a folder, however nested.

    Args:
        folder: path.
        size: (height, width) that each is resized to, whatever its shape, as the authors do.
        limit: how many at most, spread evenly over the sorted list; 0 for all.
        skip_unreadable: pass over files that cannot be read, and name them.
        cache: one of `data.cache.CACHES`.
        cache_folder: where 'disk' keeps its file; '' for `data.cache.default_folder()`.

    Returns:
        A bank of T images uint8 [H, W, 3] (`data.bank`).

    Raises:
        UserError: no folder, no images in it, or one that cannot be read.
    """
    paths = spread(images.list_images(folder), limit)

    def decode(path):
        return images.resize(images.read_image(path), size)

    if skip_unreadable:
        paths = [paths[index] for index in readable(paths, decode, 'Checking textures')]

    def decode_all():
        return tqdm(map_ahead(decode, paths), 'Reading textures', len(paths), leave=False, disable=None)

    if cache == 'none':
        return FileImages(paths, decode, size)
    if cache == 'disk':
        identity = ['textures', [stamp(path) for path in paths]]
        return on_disk(decode_all, (len(paths), *size, 3), identity=identity, folder=cache_folder)
    return in_memory(decode_all(), (len(paths), *size, 3))


def spread(items, limit):
    """At most `limit` of the items, spread evenly over all of them; 0 for all."""
    if not 0 < limit < len(items):
        return items
    return [items[index] for index in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def padded_batches(examples, batch_size):
    """Examples in batches of one size; the last one is filled up.

    Args:
        examples: from `read_split`.
        batch_size: B.

    Yields:
        Dict of 'image' uint8 [B, H, W, 3], 'mask' uint8 [B, H, W, 1] from 0 to 255, and lists of the real examples
        only: 'label', 'defect_type', 'filename', 'has_mask'. Rows beyond their length are filler.
    """
    batch = []
    for example in examples:
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
