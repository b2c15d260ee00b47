"""Figures: curves on paper that are those of scikit-learn, and the training as far as it was logged."""

import json
import re

import numpy as np
import pytest
from report_samples import make_results, make_rows
from sklearn import metrics as sklearn_metrics

from draem_jax import run_directory
from draem_jax.evaluation import figures


def points(chart):
    """The points of the first line of a chart, both axes from 0 to 1."""
    plot = chart['plot']
    pairs = np.array(re.findall(r'[ML]([\d.]+) ([\d.]+)', chart['lines'][0]['path']), float)
    return (pairs[:, 0] - plot['left']) / plot['width'], 1 - (pairs[:, 1] - plot['top']) / plot['height']


def score_curves(rows):
    scores, labels = (np.array([row[key] for row in rows]) for key in ('score', 'label'))
    return figures.score_curves(make_results(rows)['metrics'], scores, labels), scores, labels


def test_the_roc_curve_on_paper_is_that_of_scikit_learn():
    curves, scores, labels = score_curves(make_rows())
    x, y = points(curves['roc'])
    false_positives, true_positives, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(x, false_positives, atol=2e-4)
    np.testing.assert_allclose(y, true_positives, atol=3e-4)
    assert np.trapezoid(y, x) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-3)


def test_the_area_under_the_precision_curve_on_paper_is_average_precision():
    curves, scores, labels = score_curves(make_rows())
    x, y = points(curves['precision_recall'])
    # Steps: upright lines add nothing, the others are level.
    area = np.trapezoid(y, x)
    assert area == pytest.approx(sklearn_metrics.average_precision_score(labels, scores), abs=1e-3)


def test_training_curves_pass_over_what_a_crash_cut_short(tmp_path):
    lines = [{'step': step, 'loss': 1 / step, 'learning_rate': 1e-4} for step in range(1, 1001)]
    lines[500]['loss'] = None
    text = ''.join(json.dumps(line) + '\n' for line in lines) + '[]\n7\n{"loss": 1}\n{"step": 30, "lo'
    (tmp_path / 'metrics.jsonl').write_text(text)
    log = run_directory.read_training_log(tmp_path)
    assert log == lines
    losses, rate = figures.training_charts(log, 30)
    assert (losses['title'], rate['title']) == ('Training losses', 'Learning rate')
    assert len(re.findall('[ML]', losses['lines'][0]['path'])) <= 400
    assert run_directory.read_training_log(tmp_path / 'nowhere') == []
