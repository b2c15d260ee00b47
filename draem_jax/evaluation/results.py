"""Turns scores and maps into the results of an evaluation, and writes its files.

    with PixelRanking() as pixels:
        pixels.add(anomaly_map, mask, group=pixel_group(label, defect_type))    for each image with a mask
        results = summarise(scores, labels, defect_types, pixels=pixels)
    write_results(folder, results, rows)    results.json, results.csv, scores.csv
    print(table(results))

A metric that has no value is None, and `notes` says why; a results file never holds NaN.
"""

import csv
import io
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from draem_jax import run_directory
from draem_jax.evaluation import metrics
from draem_jax.evaluation.metrics import UndefinedMetric
from draem_jax.evaluation.pixel_ranking import PixelRanking
from draem_jax.terminal import align, printable

METRICS = ('image_auroc', 'image_ap', 'image_f1_max', 'pixel_auroc', 'pixel_ap', 'pixel_f1_max', 'aupro')
_SCORE_COLUMNS = ('filename', 'defect_type', 'label', 'score')
_EVERYTHING = 'all'  # the selection of all pixels; those of a defect type are named by `pixel_group`

Results = dict[str, Any]  # what results.json holds


class ImageRow(TypedDict):
    """One test image: what scores.csv and the report tell of it."""

    filename: str
    defect_type: str
    label: int  # 1 where it is defective, 0 where it is normal
    score: float
    has_mask: bool  # whether its ground truth is known


def summarise(
    scores: ArrayLike,
    labels: ArrayLike,
    defect_types: Sequence[str],
    *,
    pixels: PixelRanking | None = None,
    max_fpr: float = 0.3,
) -> Results:
    """The metrics of a test set, over all of it and of each defect type against all normals.

    Args:
        scores: [N] image scores.
        labels: [N], 1 on defective images and 0 on normal ones.
        defect_types: N strings; those of normal images are not looked at.
        pixels: the maps of all images that have a ground-truth mask, in groups named by `pixel_group`; None where no
            image has one.
        max_fpr: the false-positive rate up to which AUPRO integrates.

    Returns:
        dict of plain numbers, strings and None:
            counts: {'normal', 'defective', 'by_type': {type: images}};
            metrics: {name: value} for `METRICS`;
            per_defect_type: {type: {'count' and `METRICS`}};
            threshold: {'image', 'pixel', 'note'}, where F1 is highest on these very images;
            at_threshold: {'image_tpr', 'image_tnr', 'image_accuracy'} of the image threshold;
            notes: {'image_auroc' or 'scratch/image_auroc': the reason for each None}.
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
        'metrics': values,
        'per_defect_type': per_defect_type,
        'threshold': {**thresholds, 'note': 'F1-max of the test set'},
        'at_threshold': at_threshold,
        'notes': notes,
    }


def pixel_group(label: int, defect_type: str) -> str:
    """The group under which the pixels of an image are added to a `PixelRanking` for `summarise`."""
    return f'defective/{defect_type}' if label else 'normal'


def write_results(folder: str | os.PathLike[str], results: Results, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes results.json, results.csv and scores.csv; each appears whole or not at all.

    Args:
        folder: made if it is missing.
        results: what `summarise` returns, with anything plain added (step, dataset, versions).
        rows: one `ImageRow` for each image; the file holds all of it but `has_mask`.

    Raises:
        ValueError: where a number in the results is NaN or infinite, which JSON does not know.
    """
    folder = pathlib.Path(folder)
    text = json.dumps(results, indent=2, allow_nan=False, default=_plain)
    write_csv(folder / 'results.csv', [results['metrics']])
    write_csv(folder / 'scores.csv', [{name: row[name] for name in _SCORE_COLUMNS} for row in rows], _SCORE_COLUMNS)
    # Written last, because its presence says that the evaluation is done.
    run_directory.write_text(folder / 'results.json', text + '\n')


def over_categories(by_category: Mapping[str, Results]) -> Results:
    """The results of one model on several categories: the mean of each metric over them.

    Args:
        by_category: {category: what results.json of the category holds}.

    Returns:
        dict of 'step', 'dataset', 'options', 'training_speed', 'versions' (those of every category), 'metrics' (means),
        'per_category' ({category: metrics}) and 'notes': a mean is None where a category lacks the metric, and the
        note says which.
    """
    first = next(iter(by_category.values()))
    values, notes = {}, {}
    for name in METRICS:
        lacking = [category for category, each in by_category.items() if each['metrics'][name] is None]
        numbers = [each['metrics'][name] for each in by_category.values()]
        values[name] = None if lacking else float(np.mean(numbers))
        if lacking:
            notes[name] = f'there is none of {", ".join(lacking)}'
    return {
        'step': first['step'],
        'dataset': {**first['dataset'], 'category': ','.join(by_category)},
        'options': first['options'],
        'training_speed': first.get('training_speed', {}),
        'metrics': values,
        'per_category': {category: each['metrics'] for category, each in by_category.items()},
        'notes': notes,
        'versions': first['versions'],
    }


def write_over_categories(folder: str | os.PathLike[str], together: Results) -> None:
    """Writes results.json, and results.csv with a line for each category and one for the mean."""
    folder = pathlib.Path(folder)
    rows = [{'category': category, **values} for category, values in together['per_category'].items()]
    write_csv(folder / 'results.csv', [*rows, {'category': 'mean', **together['metrics']}])
    run_directory.write_json(folder / 'results.json', together)


def category_table(together: Results) -> str:
    """The results of `over_categories` as aligned text for a terminal, in percent."""
    rows = [*together['per_category'].items(), ('mean', together['metrics'])]
    return '\n'.join(align([('', *METRICS), *((name, *_percentages(values)) for name, values in rows)]))


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, object]], columns: Iterable[str] = ()) -> None:
    """Writes rows as CSV; the file appears whole or not at all.

    The given columns come first, then all others in the order they appear; None is an empty cell.
    """
    file = io.StringIO(newline='')
    all_columns = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    writer = csv.DictWriter(file, all_columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    run_directory.write_text(path, file.getvalue())


def table(results: Results) -> str:
    """The results as aligned text for a terminal: metrics in percent, over all and per defect type.

    Returns:
        Lines joined by newlines, without one at the end.
    """
    counts = results['counts']
    rows = [('all', counts['defective'], results['metrics'])]
    rows += [(name, row['count'], row) for name, row in results['per_defect_type'].items()]
    cells = [
        ('', '', 'image', '', '', 'pixel', '', '', ''),
        ('', 'defects', 'AUROC', 'AP', 'F1-max', 'AUROC', 'AP', 'F1-max', 'AUPRO'),
        *((printable(name), str(count), *_percentages(values)) for name, count, values in rows),
    ]
    text = [*align(cells, wide_before=(2, 5)), '']
    text.append(f'{counts["normal"]} normal and {counts["defective"]} defective images; metrics in percent')
    threshold = results['threshold']
    if threshold['image'] is not None:
        pixel = '' if threshold['pixel'] is None else f', pixel {threshold["pixel"]:.6g}'
        text.append(f'threshold: image {threshold["image"]:.6g}{pixel} ({threshold["note"]})')
        rates = results['at_threshold']
        text.append(
            f'at this threshold: {_percent(rates["image_tpr"])} of the defective and {_percent(rates["image_tnr"])} of '
            f'the normal images are right, {_percent(rates["image_accuracy"])} of all'
        )
    text += [f'no {", ".join(names)}: {reason}' for reason, names in missing_metrics(results).items()]
    return '\n'.join(text)


def missing_metrics(results: Results) -> dict[str, list[str]]:
    """Which metrics over all images have no value: {reason: their names}.

    Those of a single defect type are left out: its row shows dashes.
    """
    missing: dict[str, list[str]] = {}
    for name, reason in results['notes'].items():
        if '/' not in name:
            missing.setdefault(reason, []).append(name)
    return missing


def _metrics(
    scores: np.ndarray,
    defective: np.ndarray,
    of_pixels: dict[str, float] | UndefinedMetric,
    notes: dict[str, str],
    prefix: str,
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """`METRICS` of one selection of images, and its thresholds; the reason for each None goes to `notes`."""
    of_images: dict[str, float] | UndefinedMetric
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
        if isinstance(summary, UndefinedMetric):
            thresholds[level] = None
            values |= dict.fromkeys(names)
            notes |= {prefix + name: str(summary) for name in names}
        else:
            thresholds[level] = summary['threshold']
            values |= {name: summary[key] for name, key in names.items()}
    return values, thresholds


def _pixel_summaries(
    pixels: PixelRanking | None, names: Sequence[str], max_fpr: float
) -> dict[str, dict[str, float] | UndefinedMetric]:
    """The pixel metrics of `_EVERYTHING`, and of the `pixel_group` of each defect type against all normals."""
    selections = {pixel_group(True, name): ['normal', pixel_group(True, name)] for name in names}
    no_masks = UndefinedMetric('there are no ground-truth masks')
    if pixels is None or not pixels.groups:
        return dict.fromkeys([_EVERYTHING, *selections], no_masks)
    selections[_EVERYTHING] = pixels.groups
    summaries = pixels.summaries(selections, max_fpr=max_fpr)
    with_masks = set(pixels.groups) - {'normal'}
    for selection, groups in selections.items():
        if names and not with_masks & set(groups):
            summaries[selection] = no_masks
    return summaries


def _plain(value: object) -> object:
    """NumPy's numbers and arrays as Python's own, for json.dumps, which does not know them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f'{type(value).__name__} is not plain data: {value!r}')


def _percentages(values: Mapping[str, Any]) -> list[str]:
    return [_percent(values[name]) for name in METRICS]


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{100 * value:.1f}'
