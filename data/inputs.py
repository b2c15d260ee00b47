"""Everything a training reads, by the names of the config's section `dataset`: normal images and textures."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data import inspection, prepared, streaming
from data.banks import Bank, Joined, check_memory, gigabytes
from data.normals import SplitNames, load_normals
from data.real_defects import load_real_defects
from data.sets.builders import make_builders
from data.sets.in_place import InPlaceBuilder
from data.textures import texture_loader
from draem_jax import images

HeldOutNames = Mapping[str, SplitNames]  # by category


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a training reads.

    Attributes:
        normals: bank of normal images to train on, uint8 [N, H, W, 3] (`data.banks`).
        held_out: bank of normal images kept apart to validate with; empty where none are.
        test: bank of normal images kept apart to test on; empty where the data set has normal test images.
        held_out_names: {category: {'validation': file names, 'test': file names}}.
        textures: bank of textures, or banks.COLOUR, or banks.SELF.
        cache: one of `data.banks.CACHES`.
        real_defects: bank of defects to paste, uint8 [K, H, W, 4], RGB and mask; None where there are none.
        warnings: sentences about what the data set lacks.
    """

    normals: Bank
    held_out: Bank
    test: Bank
    held_out_names: HeldOutNames
    textures: Bank | str
    cache: str
    real_defects: Bank | None = None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line: how many there are, and what they take."""
        if isinstance(self.textures, str):
            textures = {'colour': 'plain colours', 'self': 'patches of the normal images'}[self.textures]
            shapes = []
        else:
            textures = f'{len(self.textures)} textures'
            shapes = [self.textures.shape]
        if self.real_defects is not None:
            textures += f'; {len(self.real_defects)} real defects'
            shapes.append(self.real_defects.shape)
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
    name: str,
    category: str,
    root: str,
    options: str,
    image_size: Sequence[int],
    antialias: bool,
    bit_depth: int,
    validation_fraction: float,
    test_fraction: float,
    skip_unreadable: bool,
    texture_source: str,
    texture_root: str,
    texture_count: int,
    defect_root: str,
    cache: str,
    cache_folder: str,
    cache_limit_gb: float,
    pinned: HeldOutNames | None = None,
    before_reading: Callable[[Sequence[str]], None] | None = None,
) -> Inputs:
    """Reads what configs/default.py describes under `dataset`.

    Args:
        pinned: the `held_out_names` of an earlier call: the same images are kept out again, and no others.
        before_reading: called with the names of all normal images and textures before the first is decoded.

    Raises:
        UserError: something is missing, cannot be read, or needs more memory than allowed.
    """
    height, width = image_size
    size = (height, width)
    texture_root, defect_root, cache_folder = map(os.path.expanduser, (texture_root, defect_root, cache_folder))
    keep: dict[str, Any] = {'skip_unreadable': skip_unreadable, 'cache': cache, 'cache_folder': cache_folder}
    builders = make_builders(name, category, root, options)
    # A mistake in the textures should show before a data set is drawn, which takes longest.
    make_textures, texture_count = texture_loader(texture_source, texture_root, texture_count, size, **keep)
    for builder in builders.values():
        prepared.prepare(builder)
    if cache == 'memory':
        counts = [streaming.count_examples(builder, 'train') for builder in builders.values()]
        check_memory([(count, *size, 3) for count in (*counts, texture_count)], cache_limit_gb)
    if before_reading is not None:
        before_reading(_list_names(builders, texture_source, texture_root, defect_root))
    textures = make_textures()
    defects = None
    if defect_root:
        defects = load_real_defects(defect_root, size, builders.values(), antialias=antialias, bit_depth=bit_depth)
    parts = [
        load_normals(
            builder,
            size,
            antialias=antialias,
            bit_depth=bit_depth,
            validation_fraction=validation_fraction,
            # Each of several categories has to have test images of its own.
            test_fraction=test_fraction if len(builders) == 1 else 0.0,
            pinned=None if pinned is None else pinned.get(one, {'validation': [], 'test': []}),
            **keep,
        )
        for one, builder in builders.items()
    ]
    normals, held_out, test = (_join(banks) for banks in zip(*[part[:3] for part in parts], strict=True))
    names = {one: part[3] for one, part in zip(builders, parts, strict=True)}
    warnings = _find_warnings(builders.values(), len(test))
    return Inputs(normals, held_out, test, names, textures, cache, defects, warnings)


def _list_names(
    builders: Mapping[str, tfds.core.DatasetBuilder], texture_source: str, texture_root: str, defect_root: str
) -> list[str]:
    """The files of normal images as their data sets name them; those of textures and defects below their folders."""
    names = []
    for one, builder in builders.items():
        if isinstance(builder, InPlaceBuilder):
            names += [f'{one}/{record.filename}' for record in builder.records('train')]
        else:  # TFDS keeps them in files of its own.
            names += [f'{one}/{index}' for index in range(streaming.count_examples(builder, 'train'))]
    if defect_root:
        names += [path.removeprefix(defect_root) for path in images.list_images(defect_root)]
    if texture_source == 'folder':
        names += [path.removeprefix(texture_root) for path in images.list_images(texture_root)]
    return names


def _join(banks: Sequence[Bank]) -> Bank:
    return banks[0] if len(banks) == 1 else Joined(banks)


def _find_warnings(builders: Iterable[tfds.core.DatasetBuilder], held_out: int) -> tuple[str, ...]:
    """What the data sets lack, each sentence once.

    Args:
        builders: of the data sets.
        held_out: how many normal images are kept apart to test on.
    """
    texts = []
    for builder in builders:
        for finding in inspection.check_without_reading(builder):
            if not held_out or finding.kind not in (inspection.NO_TEST, inspection.NO_NORMAL_TEST):
                texts.append(finding.text)
            elif finding.kind == inspection.NO_NORMAL_TEST:
                texts.append(f'There are no normal test images: {held_out} of the good ones are held out for the test.')
    return tuple(dict.fromkeys(texts))
