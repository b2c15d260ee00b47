"""From scores and maps to the results of an evaluation, and to its files.

    results = summarise(scores, labels, defect_types, maps, masks, has_mask)
    write_results(folder, results, rows)    results.json, results.csv, scores.csv
    print(table(results))

A metric that has no value is None, and `notes` says why; a results file never holds NaN.
"""

import csv
import io
import json
import pathlib

import numpy as np

from draem_jax import run_directory
from draem_jax.evaluation import metrics, pixel_ranking
from draem_jax.evaluation.metrics import UndefinedMetric

METRICS = ('image_auroc', 'image_ap', 'image_f1_max', 'pixel_auroc', 'pixel_ap', 'pixel_f1_max', 'aupro')


def summarise(scores, labels, defect_types, maps=None, masks=None, has_mask=None, *, pixels=None, max_fpr=0.3):
    """The metrics of a test set, over all of it and of each defect type against all normals.

    Pixel metrics take the images that have a ground-truth mask. Their maps are given at once (`maps`, `masks`,
    `has_mask`), or were added one by one to `pixels`, whose memory does not grow with the test set.

    Args:
        scores: [N] image scores.
        labels: [N], 1 on defective images and 0 on normal ones.
        defect_types: N strings; those of normal images are not looked at.
        maps: float32 [N, H, W] anomaly maps, or None.
        masks: [N, H, W], nonzero on defects, or None.
        has_mask: bool [N], False where the mask is unknown; None where all are known.
        pixels: `PixelRanking` instead of maps, its groups named by `pixel_group`.
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
    labels = np.asarray(labels) != 0
    types = np.where(labels, np.asarray(defect_types, dtype=object), '')
    if not scores.shape == labels.shape == types.shape or scores.ndim != 1:
        raise ValueError(f'Expected N scores, labels and types, found {scores.shape}, {labels.shape}, {types.shape}.')
    names = sorted(set(types[labels]))
    everything = _pixel_summaries(labels, types, names, maps, masks, has_mask, pixels, max_fpr)

    notes = {}
    values, thresholds = _metrics(scores, labels, everything[None], notes, prefix='')
    per_defect_type = {}
    for name in names:
        chosen = ~labels | (types == name)
        found, _ = _metrics(scores[chosen], labels[chosen], everything[name], notes, prefix=f'{name}/')
        per_defect_type[name] = {'count': int((types == name).sum()), **found}
    at_threshold = dict.fromkeys(('image_tpr', 'image_tnr', 'image_accuracy'))
    if thresholds['image'] is not None:
        rates = metrics.rates(scores, labels, thresholds['image'])
        at_threshold = {f'image_{name}': value for name, value in rates.items()}
    return {
        'counts': {
            'normal': int((~labels).sum()),
            'defective': int(labels.sum()),
            'by_type': {name: row['count'] for name, row in per_defect_type.items()},
        },
        'metrics': values,
        'per_defect_type': per_defect_type,
        'threshold': {**thresholds, 'note': 'F1-max of the test set'},
        'at_threshold': at_threshold,
        'notes': notes,
    }


def pixel_group(label, defect_type):
    """The group under which the pixels of an image are added to a `PixelRanking` for `summarise`."""
    return f'defective/{defect_type}' if label else 'normal'


def write_results(folder, results, rows):
    """Writes results.json, results.csv and scores.csv; each appears whole or not at all.

    Args:
        folder: made if it is missing.
        results: what `summarise` returns, with anything plain added (step, dataset, versions).
        rows: one dict per image with the keys filename, defect_type, label and score, and any others.

    Raises:
        ValueError: where a number in the results is NaN or infinite, which JSON does not know.
    """
    folder = pathlib.Path(folder)
    text = json.dumps(results, indent=2, allow_nan=False, default=_plain)
    write_csv(folder / 'results.csv', [results['metrics']])
    write_csv(folder / 'scores.csv', rows, columns=('filename', 'defect_type', 'label', 'score'))
    # Last: where it is, the evaluation is done.
    run_directory.write_text(folder / 'results.json', text + '\n')


def over_categories(found):
    """The results of one model on several categories: the mean of each metric over them.

    Args:
        found: {category: what results.json of the category holds}.

    Returns:
        dict of 'step', 'dataset', 'options', 'versions' as of each, 'metrics' (the means), 'per_category'
        ({category: metrics}) and 'notes': a mean is None where a category lacks the metric, and the note says which.
    """
    first = next(iter(found.values()))
    values, notes = {}, {}
    for name in METRICS:
        lacking = [category for category, each in found.items() if each['metrics'][name] is None]
        numbers = [each['metrics'][name] for each in found.values()]
        values[name] = None if lacking else float(np.mean(numbers))
        if lacking:
            notes[name] = f'there is none of {", ".join(lacking)}'
    return {
        'step': first['step'],
        'dataset': {**first['dataset'], 'category': ','.join(found)},
        'options': first['options'],
        'metrics': values,
        'per_category': {category: each['metrics'] for category, each in found.items()},
        'notes': notes,
        'versions': first['versions'],
    }


def write_over_categories(folder, together):
    """Writes results.json and results.csv, a line for each category and one for the mean; from `over_categories`."""
    folder = pathlib.Path(folder)
    rows = [{'category': category, **values} for category, values in together['per_category'].items()]
    write_csv(folder / 'results.csv', [*rows, {'category': 'mean', **together['metrics']}])
    run_directory.write_json(folder / 'results.json', together)


def category_table(together):
    """The results of `over_categories` as aligned text for a terminal, in percent."""
    heads = ('', *METRICS)
    rows = [*together['per_category'].items(), ('mean', together['metrics'])]
    lines = [heads, *((name, *(_percent(values[metric]) for metric in METRICS)) for name, values in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def write_csv(path, rows, columns=()):
    """Writes rows, a list of dicts, as CSV, whole or not at all.

    The given columns come first, then all others in the order they appear; None is an empty cell.
    """
    columns = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    file = io.StringIO(newline='')
    writer = csv.DictWriter(file, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    run_directory.write_text(path, file.getvalue())


def table(results):
    """The results as aligned text for a terminal: metrics in percent, over all and per defect type.

    Returns:
        Lines joined by newlines, without one at the end.
    """
    counts = results['counts']
    heads = ('', 'defects', 'AUROC', 'AP', 'F1-max', 'AUROC', 'AP', 'F1-max', 'AUPRO')
    rows = [('all', counts['defective'], results['metrics'])]
    rows += [(name, row['count'], row) for name, row in results['per_defect_type'].items()]
    lines = [
        [_printable(name), str(count), *(_percent(row[metric]) for metric in METRICS)] for name, count, row in rows
    ]
    widths = [max(len(line[column]) for line in (heads, *lines)) for column in range(len(heads))]

    def joined(cells):
        cells = [
            cells[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
        ]
        # A wider gap sets images and pixels apart.
        return '   '.join(('  '.join(cells[:2]), '  '.join(cells[2:5]), '  '.join(cells[5:])))

    left, image = widths[0] + widths[1] + 2, sum(widths[2:5]) + 4
    text = [' ' * left + '   ' + 'image'.ljust(image) + '   pixel', joined(heads), *map(joined, lines), '']
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
    reasons = {}
    for name, reason in results['notes'].items():
        if '/' not in name:
            reasons.setdefault(reason, []).append(name)
    text += [f'no {", ".join(names)}: {reason}' for reason, names in reasons.items()]
    return '\n'.join(text)


def _metrics(scores, labels, pixels, notes, prefix):
    """`METRICS` of one selection of images, and its thresholds; reasons for what is missing go to `notes`.

    Args:
        pixels: the dict of a `PixelRanking`, or the `UndefinedMetric` that stands for it.
    """
    try:
        if labels.all() or not labels.any():
            raise UndefinedMetric(f'there are no {"normal" if labels.any() else "defective"} images')
        image = metrics.summary(scores, labels)
    except UndefinedMetric as reason:
        image = reason
    values, thresholds = {}, {}
    for level, found in (('image', image), ('pixel', pixels)):
        names = {f'{level}_auroc': 'auroc', f'{level}_ap': 'average_precision', f'{level}_f1_max': 'f1_max'}
        if level == 'pixel':
            names['aupro'] = 'aupro'
        missing = isinstance(found, UndefinedMetric)
        thresholds[level] = None if missing else found['threshold']
        for name, key in names.items():
            values[name] = None if missing else found[key]
            if missing:
                notes[prefix + name] = str(found)
    return values, thresholds


def _pixel_summaries(labels, types, names, maps, masks, has_mask, pixels, max_fpr):
    """{None: over all, and each type: against all normals} -> dict of metrics or `UndefinedMetric`."""
    if pixels is None and (maps is None or masks is None):
        return dict.fromkeys([None, *names], UndefinedMetric('there are no ground-truth masks'))
    if pixels is None:
        known = np.ones(labels.shape, bool) if has_mask is None else np.asarray(has_mask) != 0
        with pixel_ranking.PixelRanking() as pixels:
            for index in np.flatnonzero(known):
                pixels.add(maps[index], masks[index], group=pixel_group(labels[index], types[index]))
            return _pixel_summaries(labels, types, names, None, None, None, pixels, max_fpr)
    if not pixels.groups:
        return dict.fromkeys([None, *names], UndefinedMetric('there are no ground-truth masks'))
    selections = {None: pixels.groups, **{name: ['normal', pixel_group(True, name)] for name in names}}
    found = pixels.summaries(selections, max_fpr=max_fpr)
    for name, groups in selections.items():
        if labels.any() and not set(groups) & set(pixels.groups) - {'normal'}:
            found[name] = UndefinedMetric('there are no ground-truth masks')
    return found


def _plain(value):
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f'{type(value).__name__} is not plain data: {value!r}')


def _percent(value):
    return '-' if value is None else f'{100 * value:.1f}'


def _printable(name):
    return ''.join(character if character.isprintable() else '?' for character in name)
