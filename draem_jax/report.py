"""The page on which an evaluation is looked at: <workdir>/evaluation/<step>/report/index.html.

    write_report(folder, results, rows, training_log=read_training_log(workdir))

One HTML file with its script and style in it, and a folder of pictures beside it. It works from a disk, reaches no
network (its own content policy forbids it), and holds names of files and defect types as text, whatever is in them.
"""

import base64
import hashlib
import importlib.resources
import json
import math
import pathlib

import jinja2
import markupsafe
import numpy as np

from draem_jax import charts, evaluation, metrics, pictures, results, runs
from draem_jax.charts import Axis
from draem_jax.metrics import UndefinedMetric

PICTURE_FOLDER = 'pictures'
_CARD_PANELS = ('input', 'reconstruction', 'overlay', 'ground truth')
_MAX_POINTS = 400  # of a training curve: more than the chart has room for only make the page heavy
_TITLES = {
    'image_auroc': 'AUROC',
    'image_ap': 'AP',
    'image_f1_max': 'F1-max',
    'pixel_auroc': 'AUROC',
    'pixel_ap': 'AP',
    'pixel_f1_max': 'F1-max',
    'aupro': 'AUPRO',
}


def write_report(
    folder,
    results,
    rows,
    *,
    run_name='',
    training_log=(),
    calibrated_threshold=None,
    last_step=None,
    picture_shape=(256, 256),
):
    """Writes index.html; the pictures are expected in the folder `PICTURE_FOLDER` beside it.

    Args:
        folder: where to; must exist.
        results: what results.json holds.
        rows: one dict for each image, from `evaluation.run`.
        run_name: that people know the run by.
        training_log: from `read_training_log`.
        calibrated_threshold: of the image score, found without test images; None where there is none.
        last_step: the step at which the training ended; None while it has not.
        picture_shape: (height, width) of one panel of the pictures.
    """
    runs.write_text(
        pathlib.Path(folder) / 'index.html',
        render(
            results,
            rows,
            run_name=run_name,
            training_log=training_log,
            calibrated_threshold=calibrated_threshold,
            last_step=last_step,
            picture_shape=picture_shape,
        ),
    )


def render(results, rows, *, run_name, training_log, calibrated_threshold, last_step, picture_shape):
    """The page as text; the arguments are those of `write_report`."""
    scores = np.array([row['score'] for row in rows], np.float64)
    labels = np.array([row['label'] for row in rows])
    axis = charts.score_axis(scores, 'image score')
    presets = threshold_presets(results, scores, labels, calibrated_threshold)
    data = {
        'images': [
            [_shown(row['filename']), _shown(row['defect_type']), row['label'], _finite(row['score']), row['has_mask']]
            for row in rows
        ],
        'presets': presets,
        'axis': {'kind': axis.kind, 'low': axis.low, 'high': axis.high},
        'panels': pictures.STRIP_PANELS,
        'cardPanels': [pictures.STRIP_PANELS.index(name) for name in _CARD_PANELS],
        'pictureFolder': PICTURE_FOLDER,
        'height': picture_shape[0],
        'width': picture_shape[1],
    }
    missing = {}
    for name, reason in results['notes'].items():
        if '/' not in name:  # Those of a single type are dashes in its row.
            missing.setdefault(reason, []).append(_metric_name(name))
    style, script = _asset('report.css'), _asset('report.js')
    return (
        _environment()
        .get_template('report.html')
        .render(
            results=results,
            titles=_TITLES,
            missing=missing,
            run_name=_shown(run_name),
            heading=heading(results),
            last_step=last_step,
            presets=presets,
            histogram=_histogram(scores, labels, axis, presets),
            curves=_score_curves(results, scores, labels),
            training=_training_charts(training_log, results['step']),
            per_defect_type=[(_shown(name), row) for name, row in results['per_defect_type'].items()],
            defect_types=sorted({_shown(row['defect_type']) for row in rows}),
            not_finite=int((~np.isfinite(scores)).sum()),
            first_picture=f'{PICTURE_FOLDER}/{evaluation.picture_file(0)}',
            data=data,
            style=markupsafe.Markup(style),
            script=markupsafe.Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )


def heading(results):
    """What was evaluated, in a few words: 'mvtec_ad, screw'."""
    dataset = results['dataset']
    return _shown(', '.join(filter(None, (dataset['name'], dataset['category']))))


def threshold_presets(results, scores, labels, calibrated_threshold=None):
    """The thresholds that the page offers; the first one is where its slider starts.

    Args:
        results: what results.json holds.
        scores: [N] image scores.
        labels: [N], 1 on defective images and 0 on normal ones.
        calibrated_threshold: found without test images, or None.

    Returns:
        List of {'value', 'name', 'explanation'}; never empty.
    """
    presets = []
    if calibrated_threshold is not None:
        text = 'set beforehand on normal images (calibration.json), not on the results shown here'
        presets.append({'value': float(calibrated_threshold), 'name': 'calibrated', 'explanation': text})
    best = results['threshold']['image']
    if best is not None:
        text = 'F1-max of the test set: the threshold that is best on these very images, so it flatters'
        presets.append({'value': float(best), 'name': 'F1-max of the test set', 'explanation': text})
    if not presets:
        finite = scores[np.isfinite(scores)]
        if not finite.size:
            return [{'value': 0.5, 'name': 'one half', 'explanation': 'one half, for no image has a score'}]
        only_defects = bool(labels.all())
        value = finite.min() if only_defects else finite.max()
        name = 'lowest score' if only_defects else 'highest score'
        text = f'the {name} of all images: neither is there a calibrated threshold, nor an F1-max of the test set'
        presets.append({'value': float(value), 'name': name, 'explanation': text})
    return presets


def read_training_log(workdir):
    """The lines of metrics.jsonl as dicts; without those that a crash cut short; none where there is no such file."""
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    lines = []
    if path.is_file():
        for text in path.read_text(encoding='utf-8', errors='replace').splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get('step'), int):
                lines.append(line)
    return lines


def write_curve(workdir):
    """Writes evaluation/curve.csv and curve.svg: the metrics of every evaluated checkpoint over its step.

    Args:
        workdir: directory of the run; whatever evaluations lie in it are taken.

    Returns:
        The folder that holds the two files.
    """
    folder = runs.evaluation_folder(workdir, 0).parent
    found = []
    for path in folder.glob('*/results.json'):
        if path.parent.name.isdigit():
            found.append(json.loads(path.read_text(encoding='utf-8')))
    found.sort(key=lambda result: result['step'])
    lines = [{'step': result['step'], **result['metrics']} for result in found]
    results.write_csv(folder / 'curve.csv', lines, columns=('step', *results.METRICS))
    steps = [line['step'] for line in lines]
    names = [name for name in results.METRICS if any(line[name] is not None for line in lines)]
    chart = charts.line_chart(
        'Metrics over checkpoints; the last one is the result',
        [(_metric_name(name), steps, _numbers(line[name] for line in lines)) for name in names],
        _step_axis(steps),
        Axis(0.0, 1.0),
    )
    template = _environment().get_template('charts.svg')
    style = markupsafe.Markup(_asset('curve.css'))
    runs.write_text(folder / 'curve.svg', str(template.module.chart(chart, standalone=style)).strip() + '\n')
    return folder


def _histogram(scores, labels, axis, presets):
    counts = f'{int((labels == 0).sum())} normal and {int((labels == 1).sum())} defective images'
    return charts.mirrored_histogram(
        'Image scores',
        ('normal', scores[labels == 0]),
        ('defective', scores[labels == 1]),
        axis,
        description=f'Histogram of the image scores of {counts}; normal ones upwards, defective ones downwards',
        mark=presets[0]['value'],
    )


def _score_curves(results, scores, labels):
    """The ROC and the precision-recall chart, or the reason why there are none."""
    try:
        if labels.all() or not labels.any():
            raise UndefinedMetric(f'there are no {"normal" if labels.any() else "defective"} images')
        points = metrics.curves(scores, labels)
    except UndefinedMetric as reason:
        return {'reason': str(reason)}
    roc = charts.line_chart(
        'ROC',
        [('ROC', [0, *points['fpr']], [0, *points['tpr']])],
        Axis(0.0, 1.0, label='normal images called defective (FPR)'),
        Axis(0.0, 1.0, label='defects found (TPR)'),
        description=f'ROC curve of the image scores; area {results["metrics"]["image_auroc"]:.4f}',
        marker=True,
    )
    # Steps, for average precision is the area under steps: each precision holds back to the recall before.
    recall = np.repeat([0, *points['tpr']], 2)[1:-1]
    precision = np.repeat(points['precision'], 2)
    precision_recall = charts.line_chart(
        'Precision and recall',
        [('precision', recall, precision)],
        Axis(0.0, 1.0, label='defects found (recall)'),
        Axis(0.0, 1.0, label='precision'),
        description=f'Precision-recall curve of the image scores; area {results["metrics"]["image_ap"]:.4f}',
        marker=True,
    )
    return {'roc': roc, 'precision_recall': precision_recall}


def _training_charts(log, step):
    """Losses, validation and learning rate over the steps; only those that were logged."""
    names = list(dict.fromkeys(name for line in log for name in line))
    losses = [name for name in ('loss', 'l2', 'ssim', 'focal') if name in names]
    validation = [name for name in names if name.startswith('validation/')]
    found = []
    for title, chosen, kind in (
        ('Training losses', losses, 'log'),
        ('Validation, simulated defects', validation, 'share'),
        ('Learning rate', ['learning_rate'] if 'learning_rate' in names else [], 'log'),
    ):
        lines = []
        for name in chosen:
            steps, values = _thinned([(line['step'], line[name]) for line in log if name in line])
            lines.append((_metric_name(name.removeprefix('validation/')), steps, values))
        values = np.concatenate([[], *(values for _, _, values in lines)])
        values = values[np.isfinite(values)]
        if kind == 'share':
            y_axis = Axis(0.0, 1.0)
        elif (values > 0).any():
            low, high = values[values > 0].min(), values.max()
            y_axis = Axis(float(low / 1.2), float(high * 1.2), 'log')
        else:
            continue
        if values.size:
            all_steps = [line['step'] for line in log]
            description = f'{title} from step {min(all_steps)} to {max(all_steps)}'
            x_axis = _step_axis([0, *all_steps])
            mark = step if step <= x_axis.high else None
            found.append(charts.line_chart(title, lines, x_axis, y_axis, description=description, mark=mark))
    return found


def _thinned(points):
    """At most `_MAX_POINTS` of (step, value or None), each the mean of its neighbours: (steps, values)."""
    steps = np.array([step for step, _ in points], np.float64)
    values = _numbers(value for _, value in points)
    parts = min(len(points), _MAX_POINTS)
    means = [
        (part.mean(), value.mean())
        for part, value in zip(*(np.array_split(a, parts) for a in (steps, values)), strict=True)
    ]
    return np.array([step for step, _ in means]), np.array([value for _, value in means])


def _step_axis(steps):
    low, high = min(steps, default=0), max(steps, default=1)
    return Axis(float(low), float(high if high > low else low + 1), label='step')


def _numbers(values):
    return np.array([float('nan') if value is None else value for value in values], np.float64)


def _finite(value):
    return value if math.isfinite(value) else None


def _shown(name):
    """A name from a file system as text that can be encoded; bytes that are no UTF-8 become '?'."""
    return name.encode('utf-8', 'replace').decode('utf-8')


def _metric_name(name):
    """'image_auroc' as people write it: 'image AUROC'."""
    capitals = {'auroc': 'AUROC', 'ap': 'AP', 'aupro': 'AUPRO', 'f1': 'F1', 'ssim': 'SSIM', 'l2': 'L2'}
    return ' '.join(capitals.get(word, word) for word in name.split('_')).replace('F1 max', 'F1-max')


def _environment():
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('draem_jax', 'templates'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['percent'] = lambda value: '-' if value is None else f'{100 * value:.1f}'
    return environment


def _asset(name):
    return importlib.resources.files('draem_jax').joinpath('templates', name).read_text(encoding='utf-8')


def _hash(text):
    """What a content security policy calls an inline script or style by."""
    digest = hashlib.sha256(text.encode('utf-8')).digest()
    return f'sha256-{base64.b64encode(digest).decode()}'
