"""What anomalies are made of, by the config's `dataset.texture_source`: five sources.

folder        the images of a folder, however nested
dtd           TFDS's copy of the Describable Textures Dataset
procedural    drawn by the project (`data.drawn_textures`)
colour        one plain colour for each example
self          patches of other normal images
"""

import pathlib

import numpy as np
from tqdm import tqdm

from data.banks import FileImages, in_memory, on_disk
from data.drawn_textures import draw_textures
from data.streaming import prepared_files, readable_indices
from draem_jax import images
from draem_jax.errors import UserError
from draem_jax.storage import stamp
from draem_jax.threads import map_ahead

PROCEDURAL_TEXTURES = 512  # where no number is given
_DTD_ARCHIVE = 'dtd-r1.0.1.tar.gz'


def texture_loader(source, root, limit, size, keep):
    """(a function without arguments that makes the textures, how many they will be)."""
    if source == 'folder':
        try:
            count = len(take_evenly(images.list_images(root), limit))
        except UserError as error:
            raise UserError(f'{error} It is where --config.dataset.texture_root looks for ') from error
        return lambda: load_textures(root, size, limit=limit, **keep), count
    if source == 'dtd':
        builder = dtd_builder(root)
        return lambda: _load_dtd(builder, size, limit, keep['cache'], keep['cache_folder']), limit or 5640
    if source == 'procedural':
        count = limit or PROCEDURAL_TEXTURES
        return lambda: draw_textures(count, size, seed=0), count
    return lambda: source, 0


def dtd_builder(root):
    """TFDS's builder of the Describable Textures Dataset, prepared.

    Args:
        root: the TFDS data folder that holds it, '' for TFDS's own. Where it is not prepared, its archive must lie in
            `<root>/downloads/manual/`: nothing is downloaded here.

    Raises:
        UserError: neither is there, or the archive is damaged.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder('dtd', data_dir=root or None)
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


def _load_dtd(builder, size, limit, cache, cache_folder):
    """All three splits of DTD, as the authors use it; a bank as from `textures.load_textures`."""
    if cache == 'none':
        raise UserError(
            '--config.dataset.cache=none reads images where they lie, and the textures of texture_source=dtd are kept '
            'by TFDS. Expected memory or disk, or texture_source=folder.'
        )
    splits = sorted(builder.info.splits)
    count = sum(builder.info.splits[split].num_examples for split in splits)
    wanted = take_evenly(range(count), limit)

    def decode_all():
        chosen, position = set(wanted), 0
        bar = tqdm(total=len(wanted), desc='Reading textures', leave=False, disable=None)
        for split in splits:
            for example in builder.as_dataset(split=split, shuffle_files=False).as_numpy_iterator():
                if position in chosen:
                    bar.update()
                    yield images.resize(np.ascontiguousarray(example['image']), size)
                position += 1
        bar.close()

    shape = (len(wanted), *size, 3)
    if cache == 'memory':
        return in_memory(decode_all(), shape)
    files = prepared_files(builder)
    return on_disk(decode_all, shape, identity=['dtd', limit, [stamp(file) for file in files]], folder=cache_folder)


def load_textures(folder, size, *, limit=0, skip_unreadable=False, cache='memory', cache_folder=''):
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

    def decode(path):
        return images.resize(images.read_image(path), size)

    if skip_unreadable:
        paths = [paths[index] for index in readable_indices(paths, decode, 'Checking textures')]

    def decode_all():
        return tqdm(map_ahead(decode, paths), 'Reading textures', len(paths), leave=False, disable=None)

    if cache == 'none':
        return FileImages(paths, decode, size)
    if cache == 'disk':
        identity = ['textures', [stamp(path) for path in paths]]
        return on_disk(decode_all, (len(paths), *size, 3), identity=identity, folder=cache_folder)
    return in_memory(decode_all(), (len(paths), *size, 3))


def take_evenly(items, limit):
    """At most `limit` of the items, spread evenly over all of them; 0 for all."""
    if not 0 < limit < len(items):
        return items
    return [items[index] for index in np.linspace(0, len(items) - 1, limit).round().astype(int)]
