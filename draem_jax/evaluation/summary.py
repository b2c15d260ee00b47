"""Turns image scores and the ranking of pixels into the numbers of an evaluation.

    with PixelRanking() as pixels:
        pixels.add(anomaly_map, mask, group=pixel_group(label, defect_type))    for each image with a mask
        results = summarise(scores, labels, defect_types, pixels=pixels)

A metric that has no value is None, and `notes` says why.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from draem_jax.evaluation import metrics
from draem_jax.evaluation.metrics import UndefinedMetric
from draem_jax.evaluation.pixel_ranking import MaskCounts, PixelRanking

FULL_MASK_METRICS = ('pixel_auroc', 'pixel_ap')  # those that are given by the authors' mask rule, 'full', as well
# The selections of all pixels; those of a defect type are named by `pixel_group`.
_EVERYTHING = 'all'
_CORES = 'all, full masks'

_Summary = dict[str, float] | UndefinedMetric  # what `PixelRanking.summaries` gives of a selection


def summarise(
    scores: ArrayLike,
    labels: ArrayLike,
    defect_types: Sequence[str],
    *,
    pixels: PixelRanking | None = None,
    max_fpr: float = 0.3,
) -> dict[str, Any]:
    """The metrics of a test set, over all of it and of each defect type against all normals.

    Args:
        scores: [N] image scores.
        labels: [N], 1 on defective images and 0 on normal ones.
        defect_types: N strings; those of normal images are not looked at.
        pixels: the maps of all images that have a ground-truth mask, in groups named by `pixel_group`, with what is
            defective by the authors' rule as the cores of the masks; None where no image has a mask.
        max_fpr: the false-positive rate up to which AUPRO integrates.

    Returns:
        dict of plain numbers, strings and None:
            counts: {'normal', 'defective', 'by_type': {type: images}};
            masks: of the defective images {'count', 'empty', 'empty_full_mask'}: how many have a mask, and how many
                of these masks have no defective pixel, by the chosen rule and by the authors';
            metrics: {name: value} for `results.METRICS`;
            metrics_full_mask: {name: value} for `FULL_MASK_METRICS`, by the authors' rule;
            per_defect_type: {type: {'count' and `results.METRICS`}};
            threshold: {'image', 'pixel', 'note'}, where F1 is highest on these very images;
            at_threshold: {'image_tpr', 'image_tnr', 'image_accuracy'} of the image threshold;
            notes: {'image_auroc', 'pixel_ap_full_mask' or 'scratch/image_auroc': the reason for each None}.
    """
    scores = np.asarray(scores, np.float64)
    defective = np.asarray(labels) != 0
    types = np.where(defective, np.asarray(defect_types, dtype=object), '')
    if not scores.shape == defective.shape == types.shape or scores.ndim != 1:
        shapes = f'{scores.shape}, {defective.shape}, {types.shape}'
        raise ValueError(f'Expected N scores, labels and types, found {shapes}.')
    names = sorted(set(types[defective]))
    pixel_summaries = _pixel_summaries(pixels, names, max_fpr)

    notes: dict[str, str] = {}
    values, thresholds = _metrics(scores, defective, pixel_summaries[_EVERYTHING], notes, prefix='')
    core_names = {full_mask('pixel_auroc'): 'auroc', full_mask('pixel_ap'): 'average_precision'}
    of_cores = _named(pixel_summaries[_CORES], core_names, notes, prefix='')
    per_defect_type = {}
    for name in names:
        chosen = ~defective | (types == name)
        of_pixels = pixel_summaries[pixel_group(True, name)]
        of_type, _ = _metrics(scores[chosen], defective[chosen], of_pixels, notes, prefix=f'{name}/')
        per_defect_type[name] = {'count': int((types == name).sum()), **of_type}
    at_threshold: dict[str, float | None] = dict.fromkeys(('image_tpr', 'image_tnr', 'image_accuracy'))
    if thresholds['image'] is not None:
        rates = metrics.rates(scores, defective, thresholds['image'])
        at_threshold = {f'image_{name}': value for name, value in rates.items()}
    return {
        'counts': {
            'normal': int((~defective).sum()),
            'defective': int(defective.sum()),
            'by_type': {name: row['count'] for name, row in per_defect_type.items()},
        },
        'masks': _count_masks(pixels),
        'metrics': values,
        'metrics_full_mask': {name: of_cores[full_mask(name)] for name in FULL_MASK_METRICS},
        'per_defect_type': per_defect_type,
        'threshold': {**thresholds, 'note': 'F1-max of the test set'},
        'at_threshold': at_threshold,
        'notes': notes,
    }


def full_mask(name: str) -> str:
    """What notes and tables call one of `FULL_MASK_METRICS`."""
    return f'{name}_full_mask'


def pixel_group(label: int, defect_type: str) -> str:
    """The group under which the pixels of an image are added to a `PixelRanking` for `summarise`."""
    return f'defective/{defect_type}' if label else 'normal'


def _metrics(
    scores: np.ndarray, defective: np.ndarray, of_pixels: _Summary, notes: dict[str, str], prefix: str
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """`results.METRICS` of one selection of images, and its thresholds; the reason for each None goes to `notes`."""
    of_images: _Summary
    try:
        if defective.all() or not defective.any():
            raise UndefinedMetric(f'there are no {"normal" if defective.any() else "defective"} images')
        of_images = metrics.summary(scores, defective)
    except UndefinedMetric as reason:
        of_images = reason
    values: dict[str, float | None] = {}
    thresholds: dict[str, float | None] = {}
    for level, summary in (('image', of_images), ('pixel', of_pixels)):
        names = {f'{level}_auroc': 'auroc', f'{level}_ap': 'average_precision', f'{level}_f1_max': 'f1_max'}
        if level == 'pixel':
            names['aupro'] = 'aupro'
        values |= _named(summary, names, notes, prefix)
        thresholds[level] = None if isinstance(summary, UndefinedMetric) else summary['threshold']
    return values, thresholds


def _named(summary: _Summary, names: Mapping[str, str], notes: dict[str, str], prefix: str) -> dict[str, float | None]:
    """The entries of a summary under other names, {name: key}; all None where there is none, and why in `notes`."""
    if isinstance(summary, UndefinedMetric):
        notes |= {prefix + name: str(summary) for name in names}
        return dict.fromkeys(names)
    return {name: summary[key] for name, key in names.items()}


def _pixel_summaries(pixels: PixelRanking | None, names: Sequence[str], max_fpr: float) -> dict[str, _Summary]:
    """The pixel metrics of `_EVERYTHING`, `_CORES`, and the `pixel_group` of each defect type against all normals."""
    selections = {pixel_group(True, name): ['normal', pixel_group(True, name)] for name in names}
    no_masks = UndefinedMetric('there are no ground-truth masks')
    if pixels is None or not pixels.groups:
        return dict.fromkeys([_EVERYTHING, _CORES, *selections], no_masks)
    selections[_EVERYTHING] = pixels.groups
    summaries = pixels.summaries(selections, max_fpr=max_fpr, of_cores={_CORES: pixels.groups})
    with_masks = set(pixels.groups) - {'normal'}
    for selection, groups in {**selections, _CORES: pixels.groups}.items():
        if names and not with_masks & set(groups):
            summaries[selection] = no_masks
    return summaries


def _count_masks(pixels: PixelRanking | None) -> dict[str, int]:
    of_groups = [] if pixels is None else [masks for group, masks in pixels.masks.items() if group != 'normal']
    count, empty, without_core = map(sum, zip(MaskCounts(), *of_groups, strict=True))
    return {'count': count, 'empty': empty, 'empty_full_mask': without_core}
