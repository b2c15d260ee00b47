"""The normal training images as banks, parted into those to train on, to validate with, and to test on."""

import functools

import numpy as np
from tqdm import tqdm

from data.banks import FileImages, Selection, in_memory, on_disk
from data.sets.in_place import InPlaceBuilder, read
from data.streaming import count_examples, prepared_files, read_split, readable_indices
from draem_jax.errors import UserError
from draem_jax.storage import stamp
from draem_jax.threads import map_ahead


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
        builder: a TFDS builder with the features of `data.sets.in_place`.
        size: (height, width).
        antialias: as in `images.resize`.
        validation_fraction: part of the images kept apart, the same ones for every seed of training.
        test_fraction: likewise for the test, where the data set has no test images.
        skip_unreadable: pass over files that cannot be read, and name them.
        cache: one of `data.banks.CACHES`.
        cache_folder: where 'disk' keeps its file; '' for `data.banks.default_cache_folder()`.
        pinned: the names that an earlier call returned, which this one keeps to whatever the fractions; images that
            have come since are trained on.

    Returns:
        (training, validation, test images, names): three banks of uint8 [H, W, 3] (`data.banks`), the second empty at
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
            records = [records[index] for index in readable_indices(records, decode, 'Checking images')]
        count, files = len(records), [record.image for record in records]
        decoded = functools.partial(map_ahead, decode, records)
    else:
        count, files = count_examples(builder, 'train'), prepared_files(builder)
        decoded = functools.partial(_images, builder, size, antialias)
    all_names = [record.filename for record in records] if is_in_place else [f'train/{index}' for index in range(count)]
    if pinned is None:
        training, validation, test = split_indices(count, validation_fraction, test_fraction)
    else:
        training, validation, test = split_by_names(all_names, pinned)

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


def split_indices(count, validation_fraction, test_fraction):
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


def split_by_names(names, pinned):
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
