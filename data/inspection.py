"""Reads a data set through, as training and evaluation will, and collects what is wrong instead of stopping at it.

An error stops a run or falsifies its numbers: a file that cannot be read, a mask of another size than its image, the
same picture in training and test, or labelled both normal and defective. A warning stops nothing, but the owner of the
data should know: the same picture twice in one split, a defective image with an empty mask or none, nothing to test on.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data import prepared
from data.sets.in_place import NORMAL, InPlaceBuilder, Record
from draem_jax import images
from draem_jax.errors import UserError
from draem_jax.threads import core_count

# The severity of a finding.
ERROR = 'error'
WARNING = 'warning'

# Kinds of findings.
NO_TEST = 'nothing to test on'
NO_NORMAL_TEST = 'no normal test images'

_DARK = 2**13  # 16-bit values below an eighth of their range leave 32 of 256 grey levels.


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: `ERROR` or `WARNING`.
        kind: what it has in common with others, such as 'unreadable file'.
        text: one line that names the files.
    """

    severity: str
    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What a data set holds, and what is wrong with it.

    Attributes:
        counts: {(split, defect type): (images, masks)}; a normal image needs no mask and counts none.
        sizes: {(height, width): number of readable images}.
        findings: list of `Finding`, errors first.
    """

    counts: dict[tuple[str, str], tuple[int, int]]
    sizes: dict[tuple[int, int], int]
    findings: list[Finding]

    def number(self, severity: str) -> int:
        """How many findings are errors, or warnings."""
        return sum(finding.severity == severity for finding in self.findings)


@dataclasses.dataclass(frozen=True)
class _Example:
    """What is kept of an example; `size` and `digest` are None where its image was not or cannot be read."""

    split: str
    defect_type: str
    filename: str
    has_drawn_mask: bool
    size: tuple[int, int] | None
    digest: str | None
    highest: int | None = None  # the largest value of a 16-bit image
    findings: tuple[Finding, ...] = ()


def check(builder: tfds.core.DatasetBuilder, *, size: tuple[int, int] | None = None, bit_depth: int = 0) -> Report:
    """Reads all splits of a data set, with a progress bar.

    Args:
        builder: has the features of `data.sets.in_place`, and is prepared if it has to be.
        size: (height, width) that images will be resized to: masks that vanish there are found. None: not looked for.
        bit_depth: as in `images.read_image`.
    """
    examples = []
    total = sum(split.num_examples for split in builder.info.splits.values())
    with tqdm(total=total, desc='Checking', unit='image', leave=False, disable=None) as progress:
        for split in builder.info.splits:
            for example in _examine_split(builder, split, size, bit_depth):
                examples.append(example)
                progress.update()
    findings = [finding for example in examples for finding in example.findings]
    findings += [*_find_copies(examples), *_find_gaps(examples)]
    if not bit_depth:
        findings += _find_dark(examples)
    if isinstance(builder, InPlaceBuilder) and builder.LISTS_ALL_FILES:
        findings += _find_unused(builder)
    counts: dict[tuple[str, str], tuple[int, int]] = collections.defaultdict(lambda: (0, 0))
    for example in examples:
        number, masks = counts[example.split, example.defect_type]
        counts[example.split, example.defect_type] = (number + 1, masks + example.has_drawn_mask)
    return Report(
        counts=dict(counts),
        sizes=dict(collections.Counter(example.size for example in examples if example.size)),
        findings=sorted(findings, key=lambda finding: finding.severity != ERROR),
    )


def check_without_reading(builder: tfds.core.DatasetBuilder) -> list[Finding]:
    """What a data set lacks as a whole, which can be said without opening a file."""
    if not isinstance(builder, InPlaceBuilder):
        return []
    return list(
        _find_gaps(
            [
                _Example(split, record.defect_type, record.filename, record.mask is not None, None, None)
                for split in builder.info.splits
                for record in builder.records(split)
            ]
        )
    )


def _examine_split(
    builder: tfds.core.DatasetBuilder, split: str, target: tuple[int, int] | None, bit_depth: int
) -> Iterator[_Example]:
    if isinstance(builder, InPlaceBuilder):
        pool = concurrent.futures.ThreadPoolExecutor(core_count())
        try:
            yield from pool.map(lambda record: _examine_files(record, split, target, bit_depth), builder.records(split))
        finally:
            pool.shutdown(cancel_futures=True)
        return
    for example in prepared.read(builder, split):
        # A builder of ours drew or prepared this one: TFDS wrote its files, and its masks fit.
        is_defective = bool(example['label'])
        yield _Example(
            split=split,
            defect_type=example['defect_type'].decode(),
            filename=example['filename'].decode(),
            has_drawn_mask=is_defective and bool(example.get('has_mask', True)),
            size=example['image'].shape[:2],
            digest=_digest(example['image']),
        )


def _examine_files(record: Record, split: str, target: tuple[int, int] | None, bit_depth: int) -> _Example:
    """Decodes the files of a record."""
    findings: list[Finding] = []
    size = digest = highest = None
    try:
        pixels = images.decode(record.image)
        image = images.to_rgb(pixels, bit_depth=bit_depth, path=record.image)
        size, digest = image.shape[:2], _digest(pixels)
        highest = int(pixels.max()) if pixels.dtype == np.uint16 else None
    except UserError as error:
        findings.append(Finding(ERROR, 'unreadable file', str(error)))
    if record.mask is not None:
        findings += _examine_mask(record, record.mask, size, target)
    has_mask = record.mask is not None
    return _Example(split, record.defect_type, record.filename, has_mask, size, digest, highest, tuple(findings))


def _examine_mask(
    record: Record, path: str, size: tuple[int, int] | None, target: tuple[int, int] | None
) -> Iterator[Finding]:
    try:
        mask, remarks = images.examine_mask(path, **dataclasses.asdict(record.mask_reading))
    except UserError as error:
        yield Finding(ERROR, 'unreadable file', str(error))
        return
    if size is not None and mask.shape != size:
        yield Finding(
            ERROR,
            'mask of another size',
            f"Mask '{path}' is {format_size(mask.shape)}, its image '{record.image}' {format_size(size)}.",
        )
    for kind, remark in remarks.items():
        yield Finding(WARNING, kind, f"Mask '{path}' {remark}")
    if not mask.any():
        yield Finding(WARNING, 'empty mask', f"Mask '{path}' is empty, but its image is '{record.defect_type}'.")
    elif target is not None and not (images.resize(mask, target) > 127.5).any():
        text = f"The defect of '{path}' has no pixel left at {format_size(target)}: all of its image counts as normal."
        yield Finding(WARNING, 'mask that vanishes', text)


def _digest(image: np.ndarray) -> str:
    """A hash of the pixels and the shape: the same for one picture in two file formats."""
    return hashlib.sha256(f'{image.shape}'.encode() + image.tobytes()).hexdigest()


def _find_copies(examples: Sequence[_Example]) -> Iterator[Finding]:
    """Findings about examples whose pixels are the same."""
    by_digest = collections.defaultdict(list)
    for example in examples:
        if example.digest is not None:
            by_digest[example.digest].append(example)
    for copies in by_digest.values():
        for one, other in itertools.pairwise(copies):
            text = f"'{one.filename}' ({one.split}) and '{other.filename}' ({other.split}) are the same picture"
            if (one.split == 'test') != (other.split == 'test'):
                yield Finding(ERROR, 'in training and test', f'{text}.')
            elif (one.defect_type == NORMAL) != (other.defect_type == NORMAL):
                types = f"'{one.defect_type}' and '{other.defect_type}'"
                yield Finding(ERROR, 'normal and defective', f'{text}, labelled {types}.')
            else:
                yield Finding(WARNING, 'twice in a split', f'{text}.')


def _find_gaps(examples: Sequence[_Example]) -> Iterator[Finding]:
    """Findings about what a data set lacks as a whole."""
    test = [example for example in examples if example.split == 'test']
    types = sorted({example.defect_type for example in test})
    if not any(example.split == 'train' for example in examples):
        yield Finding(ERROR, 'nothing to train on', 'There are no training images.')
    if not test:
        yield Finding(WARNING, NO_TEST, 'There are no test images, so there is nothing to measure.')
    elif NORMAL not in types:
        text = 'There are no normal test images, so no AUROC, unless --config.dataset.test_fraction holds some out.'
        yield Finding(WARNING, NO_NORMAL_TEST, text)
    elif types == [NORMAL]:
        yield Finding(WARNING, 'nothing to tell apart', 'There are no defective test images, so no AUROC either.')
    for defect_type in types:
        has_masks = any(example.has_drawn_mask for example in test if example.defect_type == defect_type)
        if defect_type != NORMAL and not has_masks:
            text = f"'{defect_type}' has no masks: it counts for images, not for pixels."
            yield Finding(WARNING, 'no masks', text)


def _find_dark(examples: Sequence[_Example]) -> Iterator[Finding]:
    """A finding if the 16-bit images use a small part of their range, as those of cameras with fewer bits do."""
    values = [example.highest for example in examples if example.highest is not None]
    if values and max(values) < _DARK:
        bits = next(bits for bits in (10, 12, 14) if max(values) < 2**bits)
        text = (
            f'The {len(values)} images of 16 bits have values up to {max(values)} of 65535, which leaves '
            f'{max(values) // 257 + 1} of 256 grey levels. If they hold {bits} bits, --config.dataset.bit_depth={bits} '
            'says so.'
        )
        yield Finding(WARNING, 'dark 16-bit images', text)


def _find_unused(builder: InPlaceBuilder) -> Iterator[Finding]:
    """Findings about images below the root that nobody reads, one for each folder."""
    root = str(builder.data_dir)
    used = {path for split in builder.info.splits for record in builder.records(split) for path in _files(record)}
    by_folder = collections.defaultdict(list)
    for path in images.list_files(root):
        if path not in used and (images.is_image(path) or images.is_other_image(path)):
            by_folder[os.path.dirname(path), images.is_image(path)].append(path)
    for (folder, is_readable), paths in by_folder.items():
        some = f"{len(paths)} in '{folder}', such as '{os.path.basename(paths[0])}',"
        if is_readable:
            yield Finding(WARNING, 'images not used', f'{some} belong to no split and to no image.')
        else:
            yield Finding(WARNING, 'format not read', f'{some} are passed over. Save them as PNG.')


def _files(record: Record) -> list[str]:
    return [record.image] if record.mask is None else [record.image, record.mask]


def format_size(size: tuple[int, ...]) -> str:
    """(height, width) as text: width x height."""
    return f'{size[1]} x {size[0]}'
