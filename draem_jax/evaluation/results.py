"""The results of an evaluation (`summary.summarise`) as files and as text for a terminal.

    write_results(folder, results, rows)    results.json, results.csv, scores.csv
    print(table(results))

A metric that has no value is None, and `notes` says why; a results file never holds NaN.
"""

import collections
import csv
import io
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from draem_jax import run_directory
from draem_jax.evaluation.summary import FULL_MASK_METRICS, full_mask
from draem_jax.terminal import align, printable

METRICS = ('image_auroc', 'image_ap', 'image_f1_max', 'pixel_auroc', 'pixel_ap', 'pixel_f1_max', 'aupro')
ALL_METRICS = (*METRICS, *map(full_mask, FULL_MASK_METRICS))
_SCORE_COLUMNS = ('filename', 'defect_type', 'label', 'score')

Results = dict[str, Any]  # what results.json holds


class ImageRow(TypedDict):
    """One test image: what scores.csv and the report tell of it."""

    filename: str
    defect_type: str
    label: int  # 1 where it is defective, 0 where it is normal
    score: float
    has_mask: bool  # whether its ground truth is known


def write_results(folder: str | os.PathLike[str], results: Results, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes results.json, results.csv and scores.csv; each appears whole or not at all.

    Args:
        folder: made if it is missing.
        results: what `summary.summarise` returns, with anything plain added (step, dataset, versions).
        rows: one `ImageRow` for each image; the file holds all of it but `has_mask`.

    Raises:
        ValueError: where a number in the results is NaN or infinite, which JSON does not know.
    """
    folder = pathlib.Path(folder)
    text = json.dumps(results, indent=2, allow_nan=False, default=_plain)
    write_csv(folder / 'results.csv', [all_metrics(results)])
    write_csv(folder / 'scores.csv', [{name: row[name] for name in _SCORE_COLUMNS} for row in rows], _SCORE_COLUMNS)
    # Written last, because its presence says that the evaluation is done.
    run_directory.write_text(folder / 'results.json', text + '\n')


def over_categories(by_category: Mapping[str, Results]) -> Results:
    """The results of one model on several categories: the mean of each metric over them.

    Args:
        by_category: {category: what results.json of the category holds}.

    Returns:
        dict of 'step', 'dataset', 'options', 'training_speed', 'versions' (those of every category), 'metrics' and
        'metrics_full_mask' (means), 'masks' (sums), 'per_category' ({category: `all_metrics`}) and 'notes': a mean is
        None where a category lacks the metric, and the note says which.
    """
    first = next(iter(by_category.values()))
    per_category = {category: all_metrics(each) for category, each in by_category.items()}
    values, notes = {}, {}
    for name in ALL_METRICS:
        lacking = [category for category, each in per_category.items() if each[name] is None]
        values[name] = None if lacking else float(np.mean([each[name] for each in per_category.values()]))
        if lacking:
            notes[name] = f'there is none of {", ".join(lacking)}'
    masks = collections.Counter[str]()
    for each in by_category.values():
        masks.update(each.get('masks', {}))
    return {
        'step': first['step'],
        'dataset': {**first['dataset'], 'category': ','.join(by_category)},
        'options': first['options'],
        'training_speed': first.get('training_speed', {}),
        'masks': dict(masks),
        'metrics': {name: values[name] for name in METRICS},
        'metrics_full_mask': {name: values[full_mask(name)] for name in FULL_MASK_METRICS},
        'per_category': per_category,
        'notes': notes,
        'versions': first['versions'],
    }


def write_over_categories(folder: str | os.PathLike[str], together: Results) -> None:
    """Writes results.json, and results.csv with a line for each category and one for the mean."""
    folder = pathlib.Path(folder)
    rows = [{'category': category, **values} for category, values in together['per_category'].items()]
    write_csv(folder / 'results.csv', [*rows, {'category': 'mean', **all_metrics(together)}])
    run_directory.write_json(folder / 'results.json', together)


def category_table(together: Results) -> str:
    """The results of `over_categories` as aligned text for a terminal, in percent."""
    rows = [*together['per_category'].items(), ('mean', together['metrics'])]
    text = align([('', *METRICS), *((name, *_percentages(values)) for name, values in rows)])
    return '\n'.join([*text, *remarks(together)])


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
    text += remarks(results)
    text += [f'no {", ".join(names)}: {reason}' for reason, names in missing_metrics(results).items()]
    return '\n'.join(text)


def all_metrics(results: Results) -> dict[str, float | None]:
    """{name: value} for `ALL_METRICS`; None also for those that a results.json of an older version does not hold."""
    is_full = results.get('options', {}).get('mask_rule') == 'full'
    of_full_masks = results.get('metrics_full_mask') or (results['metrics'] if is_full else {})
    return {**results['metrics'], **{full_mask(name): of_full_masks.get(name) for name in FULL_MASK_METRICS}}


def remarks(results: Results) -> list[str]:
    """What there is to say of the masks, in sentences: the metrics by the authors' rule, and masks without pixels."""
    is_full = results.get('options', {}).get('mask_rule') == 'full'
    auroc, ap = (all_metrics(results)[full_mask(name)] for name in FULL_MASK_METRICS)
    masks = {'count': 0, 'empty': 0, 'empty_full_mask': 0, **results.get('masks', {})}
    text = []
    if not is_full and auroc is not None:
        text.append(
            f"pixel AUROC {_percent(auroc)} and pixel AP {_percent(ap)} by the authors' mask rule (full: only pixels "
            'at the full value are defective), which published numbers compare with'
        )
    if masks['empty_full_mask']:
        also = '' if is_full else f' ({masks["empty_full_mask"]} by the rule full)'
        text.append(
            f'{masks["empty"]}{also} of {masks["count"]} masks of defective images have no defective pixel at this '
            'size, so all pixels of these images count as normal: the defects are too small for this image_size, or '
            'the masks are empty'
        )
    return text


def missing_metrics(results: Results) -> dict[str, list[str]]:
    """Which metrics over all images have no value: {reason: their names}.

    Those of a single defect type are left out: its row shows dashes. So are those by the authors' mask rule where the
    chosen rule has none either.
    """
    missing: dict[str, list[str]] = {}
    told = {(full_mask(name), reason) for name, reason in results['notes'].items()}
    for name, reason in results['notes'].items():
        if '/' not in name and (name, reason) not in told:
            missing.setdefault(reason, []).append(name)
    return missing


def _plain(value: object) -> object:
    """NumPy's numbers and arrays as Python's own, for json.dumps, which does not know them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f'{type(value).__name__} is not plain data: {value!r}')


def _percentages(values: Mapping[str, Any]) -> list[str]:
    return [_percent(values[name]) for name in METRICS]


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{100 * value:.1f}'
