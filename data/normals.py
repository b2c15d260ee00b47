"""The normal training images as banks: those to train on, to validate with, and to test on."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data import prepared
from data.banks import Bank, FileImages, Selection, make_bank
from data.sets.in_place import InPlaceBuilder, Record, read
from data.streaming import count_examples, read_split, readable_indices
from draem_jax.errors import UserError
from draem_jax.storage import stamp
from draem_jax.threads import map_ahead

SplitNames = Mapping[str, Sequence[str]]  # {'validation': file names, 'test': file names}


def load_normals(
    builder: tfds.core.DatasetBuilder,
    size: tuple[int, int],
    *,
    antialias: bool = False,
    bit_depth: int = 0,
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    skip_unreadable: bool = False,
    cache: str = 'memory',
    cache_folder: str = '',
    pinned: SplitNames | None = None,
) -> tuple[Bank, Bank, Bank, dict[str, list[str]]]:
    """The normal training images, split in three: to train on, to validate with, and to test on.

    Args:
        builder: has the features of `data.sets.in_place`.
        size: (height, width).
        antialias: as in `images.resize`.
        bit_depth: as in `images.read_image`.
        validation_fraction: share of the images kept apart, the same ones for every seed of training.
        test_fraction: likewise for the test, where the data set has no normal test images.
        skip_unreadable: pass over files that cannot be read, and name them.
        cache: one of `data.banks.CACHES`.
        cache_folder: where 'disk' keeps its file; '' for `data.banks.default_cache_folder()`.
        pinned: the names that an earlier call returned. The same images are kept apart again, whatever the fractions;
            images that were added since are trained on.

    Returns:
        (training, validation, test images, names): three banks of uint8 [H, W, 3] (`data.banks`), the second empty at
        fraction 0, the third also where the data set has normal test images; and {'validation': file names, 'test':
        file names}.

    Raises:
        UserError: no image is left for one of the three, or a file cannot be read.
    """
    if has_normal_test(builder):
        test_fraction = 0.0
    if isinstance(builder, InPlaceBuilder):
        names, load = _open_in_place(builder, size, antialias, bit_depth, skip_unreadable, cache, cache_folder)
    else:
        names, load = _open_prepared(builder, size, antialias, cache, cache_folder)
    if pinned is None:
        training, validation, test = split_indices(len(names), validation_fraction, test_fraction)
    else:
        training, validation, test = split_by_names(names, pinned)
    bank = load()  # Only now, because it takes longest.
    kept_apart = {'validation': [names[index] for index in validation], 'test': [names[index] for index in test]}
    return Selection(bank, training), Selection(bank, validation), Selection(bank, test), kept_apart


def has_normal_test(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether there are normal images to test on, as far as that shows without reading any."""
    if not count_examples(builder, 'test'):
        return False
    return not isinstance(builder, InPlaceBuilder) or any(record.label == 0 for record in builder.records('test'))


def _open_in_place(
    builder: InPlaceBuilder,
    size: tuple[int, int],
    antialias: bool,
    bit_depth: int,
    skip_unreadable: bool,
    cache: str,
    cache_folder: str,
) -> tuple[list[str], Callable[[], Bank]]:
    """(the names of the training images, a function that loads them) of files that are read where they lie."""
    records = builder.records('train')

    def decode(record: Record) -> np.ndarray:
        return read(record, size, antialias, bit_depth)['image']

    if skip_unreadable:
        # What is kept in memory is decoded once, to look at it and to have it.
        decoded = np.empty((len(records), *size, 3), np.uint8) if cache == 'memory' else None
        kept = readable_indices(records, decode, 'Checking images', target=decoded)
        records = [records[index] for index in kept]
        if decoded is not None:
            return [record.filename for record in records], lambda: Selection(decoded, np.array(kept))

    def load() -> Bank:
        return make_bank(
            lambda: _with_progress(map_ahead(decode, records), len(records)),
            (len(records), *size, 3),
            cache=cache,
            cache_folder=cache_folder,
            identify=lambda: [
                *_identify(builder, antialias, [record.image for record in records]),
                *([bit_depth] if bit_depth else []),
            ],
            on_demand=FileImages(records, decode, size),
        )

    return [record.filename for record in records], load


def _open_prepared(
    builder: tfds.core.DatasetBuilder, size: tuple[int, int], antialias: bool, cache: str, cache_folder: str
) -> tuple[list[str], Callable[[], Bank]]:
    """As `_open_in_place`, of a data set that TFDS has prepared; an image is named by its place in the split."""
    if cache == 'none':
        raise UserError(
            f"--config.dataset.cache=none reads images where they lie, and '{builder.name}' is kept by TFDS. "
            'Expected memory or disk.'
        )
    count = count_examples(builder, 'train')

    def decode_all() -> Iterator[np.ndarray]:
        examples = read_split(builder, 'train', size, antialias=antialias)
        return _with_progress((example['image'] for example in examples), count)

    def load() -> Bank:
        return make_bank(
            decode_all,
            (count, *size, 3),
            cache=cache,
            cache_folder=cache_folder,
            identify=lambda: _identify(builder, antialias, prepared.files_of(builder)),
        )

    return [f'train/{index}' for index in range(count)], load


def _with_progress(images: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    return iter(tqdm(images, 'Reading images', count, unit='image', leave=False, disable=None))


def _identify(builder: tfds.core.DatasetBuilder, antialias: bool, files: Sequence[str]) -> list:
    """What tells these images, decoded, from all others: see `banks.on_disk`."""
    return [builder.info.full_name, bool(antialias), [stamp(file) for file in files]]


def split_indices(
    count: int, validation_fraction: float, test_fraction: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of `count` images are for training, validation and test: three sorted arrays of indices.

    Raises:
        UserError: one that should have images gets none.
    """
    validation_count, test_count = round(validation_fraction * count), round(test_fraction * count)
    training_count = max(count - validation_count - test_count, 0)
    if (
        not training_count
        or (validation_fraction > 0 and not validation_count)
        or (test_fraction > 0 and not test_count)
    ):
        also = f' and test_fraction={test_fraction}' if test_fraction else ''
        raise UserError(
            f'--config.dataset.validation_fraction={validation_fraction}{also} of {count} images leaves '
            f'{training_count} for training, {validation_count} for validation and {test_count} for the test; '
            'each needs at least one, or a fraction of 0.'
        )
    shuffled = np.random.default_rng(0).permutation(count)
    validation, test, training = np.split(shuffled, [validation_count, validation_count + test_count])
    return np.sort(training), np.sort(validation), np.sort(test)


def split_by_names(names: Sequence[str], pinned: SplitNames) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `split_indices`, with the images of validation and test given by name.

    Args:
        names: the file names of all images.
        pinned: {'validation': names, 'test': names}.

    Raises:
        UserError: an image that the run validates or is tested with is gone.
    """
    place = {name: index for index, name in enumerate(names)}

    def find(purpose: str) -> np.ndarray:
        gone = [name for name in pinned[purpose] if name not in place]
        if gone:
            raise UserError(
                f'{len(gone)} of the {len(pinned[purpose])} images that this run keeps for the {purpose} cannot be '
                f"found, as '{gone[0]}'. Put them back, or start a new run."
            )
        return np.sort(np.array([place[name] for name in pinned[purpose]], int))

    validation, test = find('validation'), find('test')
    training = np.setdiff1d(np.arange(len(names)), np.concatenate([validation, test]))
    if not len(training):
        raise UserError(f'Of {len(names)} images none is left for training beside those kept for validation and test.')
    return training, validation, test
