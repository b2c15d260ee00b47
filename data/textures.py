"""What anomalies are made of, by the config's `dataset.texture_source`:

folder        the images of a folder, however nested
dtd           TFDS's copy of the Describable Textures Dataset
procedural    drawn by the project (`data.drawn_textures`)
colour        one plain colour for each example
self          patches of other normal images
"""

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data import prepared
from data.banks import Bank, FileImages, Selection, make_bank
from data.drawn_textures import draw_textures
from data.streaming import readable_indices
from draem_jax import images
from draem_jax.errors import UserError
from draem_jax.storage import stamp
from draem_jax.threads import map_ahead

PROCEDURAL_TEXTURES = 512  # where no number is given
_DTD_ARCHIVE = 'dtd-r1.0.1.tar.gz'
_DTD_TEXTURES = 5640

_Item = TypeVar('_Item')


def texture_loader(
    source: str,
    root: str,
    limit: int,
    size: tuple[int, int],
    *,
    skip_unreadable: bool = False,
    cache: str = 'memory',
    cache_folder: str = '',
) -> tuple[Callable[[], Bank | str], int]:
    """Checks that a source has textures, and leaves decoding or drawing them for later.

    Args:
        source: one of the five above.
        root: for 'folder' the folder of the textures, for 'dtd' the TFDS data folder ('' for TFDS's own).
        limit: how many textures at most, or to draw; 0 for all, or for `PROCEDURAL_TEXTURES`.
        size: (height, width).
        skip_unreadable, cache, cache_folder: as for `load_textures`.

    Returns:
        (a function that makes the textures, how many they will be). The function returns a bank of uint8 [H, W, 3]
        (`data.banks`); for 'colour' and 'self' it returns that word.

    Raises:
        UserError: the textures are not there.
    """
    if source == 'folder':
        try:
            count = len(take_evenly(images.list_images(root), limit))
        except UserError as error:
            raise UserError(f'{error} It is where --config.dataset.texture_root looks for textures.') from error
        load = functools.partial(
            load_textures,
            root,
            size,
            limit=limit,
            skip_unreadable=skip_unreadable,
            cache=cache,
            cache_folder=cache_folder,
        )
        return load, count
    if source == 'dtd':
        builder = dtd_builder(root)
        return functools.partial(_load_dtd, builder, size, limit, cache, cache_folder), limit or _DTD_TEXTURES
    if source == 'procedural':
        count = limit or PROCEDURAL_TEXTURES
        return functools.partial(draw_textures, count, size, seed=0), count
    return lambda: source, 0


def load_textures(
    folder: str,
    size: tuple[int, int],
    *,
    limit: int = 0,
    skip_unreadable: bool = False,
    cache: str = 'memory',
    cache_folder: str = '',
) -> Bank:
    """The texture images of a folder, however nested.

    Args:
        folder: path.
        size: (height, width) that each is resized to, whatever its shape, as the authors do.
        limit: how many at most, spread evenly over the sorted list; 0 for all.
        skip_unreadable: pass over files that cannot be read, and name them.
        cache: one of `data.banks.CACHES`.
        cache_folder: where 'disk' keeps its file; '' for `data.banks.default_cache_folder()`.

    Returns:
        A bank of T images uint8 [H, W, 3] (`data.banks`).

    Raises:
        UserError: no folder, no images in it, or one that cannot be read.
    """
    paths = take_evenly(images.list_images(folder), limit)

    def decode(path: str) -> np.ndarray:
        return images.resize(images.read_image(path), size)

    if skip_unreadable:
        # What is kept in memory is decoded once, to look at it and to have it.
        decoded = np.empty((len(paths), *size, 3), np.uint8) if cache == 'memory' else None
        kept = readable_indices(paths, decode, 'Checking textures', target=decoded)
        if decoded is not None:
            return Selection(decoded, np.array(kept))
        paths = [paths[index] for index in kept]

    def decode_all() -> Iterable[np.ndarray]:
        return tqdm(map_ahead(decode, paths), 'Reading textures', len(paths), leave=False, disable=None)

    return make_bank(
        decode_all,
        (len(paths), *size, 3),
        cache=cache,
        cache_folder=cache_folder,
        identify=lambda: ['textures', [stamp(path) for path in paths]],
        on_demand=FileImages(paths, decode, size),
    )


def dtd_builder(root: str) -> tfds.core.DatasetBuilder:
    """TFDS's builder of the Describable Textures Dataset, prepared.

    Args:
        root: the TFDS data folder that holds it, '' for TFDS's own. Where it is not prepared, its archive must lie in
            `<root>/downloads/manual/`: nothing is downloaded here.

    Raises:
        UserError: neither is there, or the archive is damaged.
    """
    builder = prepared.open_builder('dtd', root)
    folder = pathlib.Path(builder.data_dir).parents[1]
    archive = folder / 'downloads' / 'manual' / _DTD_ARCHIVE
    if not builder.is_prepared():
        if not archive.is_file():
            raise UserError(
                f"No textures: TFDS has not prepared 'dtd' in '{folder}', and there is no "
                f"'{archive}' to prepare it from. Put it there, or unpack it anywhere and pass "
                '--config.dataset.texture_source=folder --config.dataset.texture_root=.../dtd/images.'
            )
        try:
            builder.download_and_prepare()
        except tfds.core.download.download_manager.NonMatchingChecksumError as error:
            raise UserError(f"'{archive}' is not the archive that TFDS knows: download it again.") from error
    return builder


def _load_dtd(
    builder: tfds.core.DatasetBuilder, size: tuple[int, int], limit: int, cache: str, cache_folder: str
) -> Bank:
    """As `load_textures`, from all three splits of DTD, as the authors use it."""
    if cache == 'none':
        raise UserError(
            '--config.dataset.cache=none reads images where they lie, and the textures of texture_source=dtd are kept '
            'by TFDS. Expected memory or disk, or texture_source=folder.'
        )
    splits = sorted(builder.info.splits)
    count = sum(builder.info.splits[split].num_examples for split in splits)
    wanted = take_evenly(range(count), limit)

    def decode_all() -> Iterator[np.ndarray]:
        chosen, position = set(wanted), 0
        with tqdm(total=len(wanted), desc='Reading textures', leave=False, disable=None) as progress:
            for split in splits:
                for example in prepared.read(builder, split):
                    if position in chosen:
                        progress.update()
                        yield images.resize(np.ascontiguousarray(example['image']), size)
                    position += 1

    return make_bank(
        decode_all,
        (len(wanted), *size, 3),
        cache=cache,
        cache_folder=cache_folder,
        identify=lambda: ['dtd', limit, [stamp(file) for file in prepared.files_of(builder)]],
    )


def take_evenly(items: Sequence[_Item], limit: int) -> Sequence[_Item]:
    """At most `limit` of the items, spread evenly over all of them; 0 for all."""
    if not 0 < limit < len(items):
        return items
    return [items[index] for index in np.linspace(0, len(items) - 1, limit).round().astype(int)]
