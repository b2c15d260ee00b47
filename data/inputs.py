"""Everything a training reads, by the names of the config's section `dataset`: normal images and textures."""

import dataclasses
import os
from typing import Any

from data import inspection, streaming
from data.banks import Joined, check_memory, gigabytes
from data.normals import load_normals
from data.sets.builders import make_builders
from data.textures import texture_loader


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a training reads.

    Attributes:
        normals: bank of normal images to train on, uint8 [N, H, W, 3] (`data.banks`).
        held_out: bank of normal images kept apart to validate with; empty where none are.
        test: bank of normal images kept apart to test on; empty where the data set has test images.
        held_out_names: {category: {'validation': file names, 'test': file names}}.
        textures: bank of textures, or banks.COLOUR, or banks.SELF.
        cache: one of `data.banks.CACHES`.
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
    builders = make_builders(name, category, root, options)
    if len(builders) > 1:
        test_fraction = 0.0  # Of several categories each has to have test images of its own.
    # A mistake in the textures should show before a data set is drawn, which takes longest.
    make_textures, count = texture_loader(texture_source, os.path.expanduser(texture_root), texture_count, size, keep)
    for builder in builders.values():
        streaming.prepare(builder)
    if cache == 'memory':
        numbers = [streaming.count_examples(builder, 'train') for builder in builders.values()]
        check_memory([(number, *size, 3) for number in (*numbers, count)], cache_limit_gb)
    textures = make_textures()
    parts = [
        load_normals(
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
    findings = [finding for builder in builders.values() for finding in inspection.check_list(builder)]
    warnings = dict.fromkeys(
        finding.text for finding in findings if not (len(test) and finding.kind == inspection.NO_TEST)
    )
    return Inputs(normals, held_out, test, held_out_names, textures, cache, tuple(warnings))
