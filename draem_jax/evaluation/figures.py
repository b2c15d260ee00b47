"""The charts that people see: scores, ROC and precision-recall, the training, and the metrics over checkpoints."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from draem_jax.evaluation import charts, metrics, results
from draem_jax.evaluation.charts import Axis, Chart
from draem_jax.evaluation.metrics import UndefinedMetric

_MAX_POINTS = 400  # of a training curve: the chart has no room for more, and they make the page heavy


def histogram(scores: np.ndarray, labels: np.ndarray, axis: Axis, mark: float) -> Chart:
    """The image scores of normal and of defective images, with a line at the threshold `mark`."""
    counts = f'{int((labels == 0).sum())} normal and {int((labels == 1).sum())} defective images'
    return charts.mirrored_histogram(
        'Image scores',
        ('normal', scores[labels == 0]),
        ('defective', scores[labels == 1]),
        axis,
        description=f'Histogram of the image scores of {counts}; normal ones upwards, defective ones downwards',
        mark=mark,
    )


def score_curves(values: Mapping[str, Any], scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The curves of the image scores: {'roc', 'precision_recall'}, or {'reason'} where there are none.

    Args:
        values: {name: value} for `results.METRICS`.
        scores: [N] image scores.
        labels: [N], 1 on defective images and 0 on normal ones.
    """
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
        description=f'ROC curve of the image scores; area {values["image_auroc"]:.4f}',
        marker=True,
    )
    # Average precision is the area under steps: each precision holds from the recall before it to its own.
    recall = np.repeat([0, *points['tpr']], 2)[1:-1]
    precision = np.repeat(points['precision'], 2)
    precision_recall = charts.line_chart(
        'Precision and recall',
        [('precision', recall, precision)],
        Axis(0.0, 1.0, label='defects found (recall)'),
        Axis(0.0, 1.0, label='precision'),
        description=f'Precision-recall curve of the image scores; area {values["image_ap"]:.4f}',
        marker=True,
    )
    return {'roc': roc, 'precision_recall': precision_recall}


def training_charts(log: Sequence[Mapping[str, Any]], step: int) -> list[Chart]:
    """Losses, validation and learning rate over the steps, as far as they were logged.

    Args:
        log: from `run_directory.read_training_log`.
        step: of the evaluated checkpoint, where a vertical line stands.
    """
    names = list(dict.fromkeys(name for line in log for name in line))
    losses = [name for name in ('loss', 'l2', 'ssim', 'msgms', 'focal', 'mask_l1') if name in names]
    validation = [name for name in names if name.startswith('validation/')]
    shown = []
    for title, chosen, kind in (
        ('Training losses', losses, 'log'),
        ('Validation, simulated defects', validation, 'share'),
        ('Learning rate', ['learning_rate'] if 'learning_rate' in names else [], 'log'),
    ):
        lines = []
        for name in chosen:
            points = _thinned([(line['step'], line[name]) for line in log if name in line])
            lines.append((metric_name(name.removeprefix('validation/')), *points))
        all_values = np.concatenate([[], *(values for _, _, values in lines)])
        finite = all_values[np.isfinite(all_values)]
        if kind == 'share':
            y_axis = Axis(0.0, 1.0)
        elif (finite > 0).any():
            low, high = finite[finite > 0].min(), finite.max()
            y_axis = Axis(float(low / 1.2), float(high * 1.2), 'log')
        else:
            continue
        if finite.size:
            all_steps = [line['step'] for line in log]
            description = f'{title} from step {min(all_steps)} to {max(all_steps)}'
            x_axis = _step_axis([0, *all_steps])
            mark = step if step <= x_axis.high else None
            shown.append(charts.line_chart(title, lines, x_axis, y_axis, description=description, mark=mark))
    return shown


def _thinned(points: Sequence[tuple[int, float | None]]) -> tuple[np.ndarray, np.ndarray]:
    """At most `_MAX_POINTS` steps and values that stand for the given ones, each the mean of neighbours."""
    steps = np.array([step for step, _ in points], np.float64)
    values = _numbers(value for _, value in points)
    parts = min(len(points), _MAX_POINTS)
    means = [
        (part.mean(), value.mean())
        for part, value in zip(*(np.array_split(a, parts) for a in (steps, values)), strict=True)
    ]
    return np.array([step for step, _ in means]), np.array([value for _, value in means])


def _step_axis(steps: Sequence[int]) -> Axis:
    low, high = min(steps, default=0), max(steps, default=1)
    return Axis(float(low), float(high if high > low else low + 1), label='step')


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    """Values as float64, with NaN for None."""
    return np.array([float('nan') if value is None else value for value in values], np.float64)


def metrics_over_steps(lines: Sequence[Mapping[str, Any]]) -> Chart:
    """The metrics of several checkpoints over their steps; each line holds 'step' and `results.METRICS`."""
    steps = [line['step'] for line in lines]
    names = [name for name in results.METRICS if any(line[name] is not None for line in lines)]
    return charts.line_chart(
        'Metrics over checkpoints; the last one is the result',
        [(metric_name(name), steps, _numbers(line[name] for line in lines)) for name in names],
        _step_axis(steps),
        Axis(0.0, 1.0),
    )


def metric_name(name: str) -> str:
    """A metric's name as people write it: 'image AUROC' for 'image_auroc'."""
    capitals = {'auroc': 'AUROC', 'ap': 'AP', 'aupro': 'AUPRO', 'f1': 'F1', 'ssim': 'SSIM', 'l2': 'L2'}
    return ' '.join(capitals.get(word, word) for word in name.split('_')).replace('F1 max', 'F1-max')
