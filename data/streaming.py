"""From a builder to examples: decoded, resized, in order and, for testing, in batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data import prepared
from data.sets.in_place import Example, InPlaceBuilder, Record, read
from draem_jax import images
from draem_jax.errors import UserError
from draem_jax.threads import map_ahead


def count_examples(builder: tfds.core.DatasetBuilder, split: str) -> int:
    """The number of examples of a split; 0 where the data set has no such split."""
    return builder.info.splits[split].num_examples if split in builder.info.splits else 0


def read_split(
    builder: tfds.core.DatasetBuilder,
    split: str,
    size: tuple[int, int],
    *,
    antialias: bool = False,
    bit_depth: int = 0,
) -> Iterator[Example]:
    """Yields the examples of a split, in order, decoded ahead by as many threads as there are cores.

    Args:
        builder: a TFDS builder with the features of `data.sets.in_place`.
        split: 'train' or 'test'.
        size: (height, width).
        antialias: as in `images.resize`.
        bit_depth: as in `images.read_image`, for files that are read in place.

    Yields:
        Dicts as `data.sets.in_place.read` returns them.

    Raises:
        UserError: a file cannot be read.
    """
    if isinstance(builder, InPlaceBuilder):
        yield from read_records(builder.records(split), size, antialias=antialias, bit_depth=bit_depth)
        return
    for example in prepared.read(builder, split):
        yield {
            'image': images.resize(example['image'], size, antialias=antialias),
            'mask': images.resize(example['mask'][..., 0], size)[..., None],
            'label': int(example['label']),
            'defect_type': example['defect_type'].decode(),
            'filename': example['filename'].decode(),
            'has_mask': bool(example.get('has_mask', True)),
        }


def read_records(
    records: Iterable[Record], size: tuple[int, int], *, antialias: bool = False, bit_depth: int = 0
) -> Iterator[Example]:
    """As `read_split`, of records."""
    return map_ahead(lambda record: read(record, size, antialias, bit_depth), records)


def readable_indices(
    files: Sequence[Any], decode: Callable[[Any], np.ndarray], what: str, *, target: np.ndarray | None = None
) -> list[int]:
    """The indices of those files that can be decoded; the others are named and counted on the screen.

    Args:
        files: whatever `decode` takes.
        decode: raises a UserError for a file that cannot be read.
        what: text before the progress bar.
        target: [N, ...], where the image of each file that can be decoded is put; None for nowhere.

    Raises:
        UserError: none of them can be.
    """

    def find_error(index: int) -> str | None:
        try:
            image = decode(files[index])
        except UserError as error:
            return str(error)
        if target is not None:
            target[index] = image
        return None

    errors = list(tqdm(map_ahead(find_error, range(len(files))), what, len(files), leave=False, disable=None))
    kept = [index for index, error in enumerate(errors) if error is None]
    for error in filter(None, errors):
        tqdm.write(f'Passed over: {error}')
    if not kept:
        raise UserError(f'Of {len(files)} files none can be read; the first: {errors[0]}')
    if len(kept) < len(files):
        tqdm.write(f'{len(files) - len(kept)} of {len(files)} files were passed over.')
    return kept


def padded_batches(examples: Iterable[Example], batch_size: int) -> Iterator[dict[str, Any]]:
    """Examples in batches of one size; the last one is filled up.

    Args:
        examples: from `read_split`.
        batch_size: B.

    Yields:
        Dict of 'image' uint8 [B, H, W, 3], 'mask' uint8 [B, H, W, 1] from 0 to 255, and lists of the real examples
        only: 'label', 'defect_type', 'filename', 'has_mask'. Rows beyond their length are filler.
    """
    batch: list[Example] = []
    for example in examples:
        batch.append(example)
        if len(batch) == batch_size:
            yield _collate(batch, batch_size)
            batch = []
    if batch:
        yield _collate(batch, batch_size)


def _collate(examples: list[Example], batch_size: int) -> dict[str, Any]:
    fields: dict[str, Any] = {name: [example[name] for example in examples] for name in examples[0]}
    filler = batch_size - len(examples)
    for name in ('image', 'mask'):
        fields[name] = np.stack(fields[name] + [np.zeros_like(fields[name][0])] * filler)
    return fields
