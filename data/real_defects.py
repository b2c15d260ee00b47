"""Real defects with their masks, to paste into normal images: where a plant has kept some, they beat simulated ones."""

import filecmp
import os
from collections.abc import Iterable

import numpy as np
import tensorflow_datasets as tfds

from data.sets.builders import make_builder
from data.sets.in_place import InPlaceBuilder, Record, read
from draem_jax.errors import UserError
from draem_jax.threads import map_ahead


def load_real_defects(
    root: str,
    size: tuple[int, int],
    tests: Iterable[tfds.core.DatasetBuilder],
    *,
    antialias: bool = False,
    bit_depth: int = 0,
) -> np.ndarray:
    """The defective images of a folder and their masks.

    Args:
        root: a data set that the builder `folder` reads; its good images are not used.
        size: (height, width).
        tests: the data sets of the run, whose test images must not be among them.
        antialias: as in `images.resize`.
        bit_depth: as in `images.read_image`.

    Returns:
        uint8 [K, H, W, 4]: RGB, and the mask from 0 to 255; without those whose mask is empty at this size.

    Raises:
        UserError: there are none, one of them is a test image too, or a file cannot be read.
    """
    try:
        builder = make_builder('folder', root=root)
        assert isinstance(builder, InPlaceBuilder)
        records = [record for record in builder.records('test') if record.label == 1 and record.mask is not None]
    except UserError as error:
        raise UserError(f'{error} It is where --config.dataset.defect_root looks for defects.') from error
    if not records:
        raise UserError(
            f"No defects with masks in '{root}', which --config.dataset.defect_root names. Expected test/<kind>/ and "
            'ground_truth/<kind>/ below it.'
        )
    _check_apart_from(tests, records)
    defects = np.empty((len(records), *size, 4), np.uint8)
    for target, example in zip(
        defects, map_ahead(lambda record: read(record, size, antialias, bit_depth), records), strict=True
    ):
        target[..., :3], target[..., 3:] = example['image'], example['mask']
    visible = (defects[..., 3] > 127).any(axis=(1, 2))
    if not visible.any():
        raise UserError(
            f"No mask of the {len(records)} defects in '{root}' has a pixel left at {size[1]} x {size[0]} pixels. "
            'Pass a larger --config.dataset.image_size.'
        )
    return defects[visible]


def _check_apart_from(tests: Iterable[tfds.core.DatasetBuilder], records: Iterable[Record]) -> None:
    """Raises UserError if a defect to train on is a test image: the same file, or one of the same content."""
    test_files = [
        record.image
        for builder in tests
        if isinstance(builder, InPlaceBuilder)
        for record in builder.records('test')
        if record.label == 1
    ]
    by_size: dict[int, list[str]] = {}
    for path in test_files:
        by_size.setdefault(os.path.getsize(path), []).append(path)
    for record in records:
        for path in by_size.get(os.path.getsize(record.image), []):
            if filecmp.cmp(path, record.image, shallow=False):
                raise UserError(
                    f"'{record.image}' is a test image too: '{path}'. Results on images that were trained on say "
                    'nothing. Take it out of --config.dataset.defect_root.'
                )
