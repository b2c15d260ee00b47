"""Everything a training reads, by the names of the config's section `dataset`: normal images and textures."""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from tqdm import tqdm

import data
from data import checking, procedural, reading
from data.bank import Joined
from data.cache import check_memory, gigabytes, in_memory, on_disk
from draem_jax import images
from draem_jax.errors import UserError
from draem_jax.files import stamp

PROCEDURAL_TEXTURES = 512  # where no number is given
_DTD_ARCHIVE = 'dtd-r1.0.1.tar.gz'


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a training reads.

    Attributes:
        normals: bank of normal images to train on, uint8 [N, H, W, 3] (`data.bank`).
        held_out: bank of normal images kept apart to validate with; empty where none are.
        test: bank of normal images kept apart to test on; empty where the data set has test images.
        held_out_names: {category: {'validation': file names, 'test': file names}}.
        textures: bank of textures, or synthesis.COLOUR, or synthesis.SELF.
        cache: one of `data.cache.CACHES`.
        warnings: sentences about what the data set lacks.
    """

    normals: Any
    held_out: Any
    test: Any
    held_out_names: dict
    textures: Any
    cache: str
    warnings: tuple = ()

    def __str__(self):
        """One line: how many there are, and what they take."""
        if isinstance(self.textures, str):
            textures = {'colour': 'plain colours', 'self': 'patches of the normal images'}[self.textures]
            shapes = []
        else:
            textures = f'{len(self.textures)} textures'
            shapes = [self.textures.shape]
        shapes += [self.normals.shape, self.held_out.shape, self.test.shape]
        size = sum(map(gigabytes, shapes))
        kept = {'memory': f'{size:.2f} GB in memory', 'disk': f'{size:.2f} GB on disk', 'none': 'decoded as needed'}
        height, width = self.normals.shape[1:3]
        return (
            f'{len(self.normals)} normal images of {height} x {width}, {len(self.held_out)} held out'
            f'{f", {len(self.test)} kept for the test" if len(self.test) else ""}; {textures}; {kept[self.cache]}.'
        )


def load(
    *,
    name,
    category,
    root,
    options,
    image_size,
    antialias,
    validation_fraction,
    test_fraction,
    skip_unreadable,
    texture_source,
    texture_root,
    texture_count,
    cache,
    cache_folder,
    cache_limit_gb,
    pinned=None,
):
    """Reads what configs/default.py describes under `dataset`.

    Args:
        pinned: the `held_out_names` of an earlier call: the same images are kept out again, and no others.

    Returns:
        `Inputs`.

    Raises:
        UserError: something is missing, cannot be read, or needs more memory than allowed.
    """
    size = tuple(image_size)
    keep = {'skip_unreadable': skip_unreadable, 'cache': cache, 'cache_folder': os.path.expanduser(cache_folder)}
    builders = data.make_builders(name, category, root, options)
    if len(builders) > 1:
        test_fraction = 0.0  # Of several categories each has to have test images of its own.
    # A mistake in the textures should show before a data set is drawn, which takes longest.
    make_textures, count = _texture_loader(texture_source, os.path.expanduser(texture_root), texture_count, size, keep)
    for builder in builders.values():
        reading.prepare(builder)
    if cache == 'memory':
        numbers = [reading.count_examples(builder, 'train') for builder in builders.values()]
        check_memory([(number, *size, 3) for number in (*numbers, count)], cache_limit_gb)
    textures = make_textures()
    parts = [
        reading.load_normals(
            builder,
            size,
            antialias=antialias,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            pinned=None if pinned is None else pinned.get(one, {'validation': [], 'test': []}),
            **keep,
        )
        for one, builder in builders.items()
    ]
    *banks, names = zip(*parts, strict=True)
    normals, held_out, test = (each[0] if len(each) == 1 else Joined(each) for each in banks)
    held_out_names = dict(zip(builders, names, strict=True))
    findings = [finding for builder in builders.values() for finding in checking.check_list(builder)]
    warnings = dict.fromkeys(
        finding.text for finding in findings if not (len(test) and finding.kind == checking.NO_TEST)
    )
    return Inputs(normals, held_out, test, held_out_names, textures, cache, tuple(warnings))


def _texture_loader(source, root, limit, size, keep):
    """(a function without arguments that makes the textures, how many they will be)."""
    if source == 'folder':
        try:
            count = len(reading.spread(images.list_images(root), limit))
        except UserError as error:
            raise UserError(f'{error} It is where --config.dataset.texture_root looks for textures.') from error
        return lambda: reading.load_textures(root, size, limit=limit, **keep), count
    if source == 'dtd':
        builder = dtd_builder(root)
        return lambda: _load_dtd(builder, size, limit, keep['cache'], keep['cache_folder']), limit or 5640
    if source == 'procedural':
        count = limit or PROCEDURAL_TEXTURES
        return lambda: procedural.draw_textures(count, size, seed=0), count
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
    """All three splits of DTD, as the authors use it; a bank as from `reading.load_textures`."""
    if cache == 'none':
        raise UserError(
            '--config.dataset.cache=none reads images where they lie, and the textures of texture_source=dtd are kept '
            'by TFDS. Expected memory or disk, or texture_source=folder.'
        )
    splits = sorted(builder.info.splits)
    count = sum(builder.info.splits[split].num_examples for split in splits)
    wanted = reading.spread(range(count), limit)

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
    files = reading.files_of(builder)
    return on_disk(decode_all, shape, identity=['dtd', limit, [stamp(file) for file in files]], folder=cache_folder)
