"""Metrics against scikit-learn, a naive loop over thresholds, and counting by hand."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sklearn_metrics
from tiny_maps import naive_aupro, random_maps

from draem_jax.evaluation import metrics


def best_f1(scores, labels):
    """F1-max by trying every score as a threshold."""
    return max(sklearn_metrics.f1_score(labels, scores >= threshold) for threshold in np.unique(scores))


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(data=strategies.data())
def test_metrics_equal_scikit_learn_on_any_scores(data):
    size = data.draw(strategies.integers(2, 60))
    element = data.draw(
        strategies.sampled_from([strategies.integers(-3, 3).map(float), strategies.floats(-1e6, 1e6, width=32)])
    )
    scores = data.draw(arrays.arrays(np.float32, size, elements=element))
    labels = data.draw(arrays.arrays(np.uint8, size, elements=strategies.integers(0, 1)))
    hypothesis.assume(0 < labels.sum() < size)

    result = metrics.summary(scores, labels)

    assert result['auroc'] == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)
    expected = sklearn_metrics.average_precision_score(labels, scores)
    assert result['average_precision'] == pytest.approx(expected, abs=1e-12)
    assert result['f1_max'] == pytest.approx(best_f1(scores, labels), abs=1e-12)
    decision = scores >= result['threshold']
    assert sklearn_metrics.f1_score(labels, decision) == pytest.approx(result['f1_max'], abs=1e-12)


def test_many_scores_in_several_chunks_equal_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.random(400_000) < 0.9
    scores = np.round(generator.normal(size=labels.size) + labels, 3).astype(np.float32)
    assert labels.sum() > 2 * metrics.CHUNK_SIZE
    result = metrics.summary(scores, labels)
    assert result['auroc'] == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)
    expected = sklearn_metrics.average_precision_score(labels, scores)
    assert result['average_precision'] == pytest.approx(expected, abs=1e-12)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores)
    expected = np.max(2 * precision * recall / (precision + recall))
    assert result['f1_max'] == pytest.approx(expected, abs=1e-12)


def test_metrics_counted_by_hand():
    scores = [0.9, 0.8, 0.8, 0.3, 0.1]
    labels = [1, 0, 1, 0, 0]
    result = metrics.summary(scores, labels)
    # The positives win five of six pairs and tie one.
    assert result['auroc'] == pytest.approx(5.5 / 6, abs=1e-15)
    # The first positive stands at precision 1, the tied one at 2 of 3.
    assert result['average_precision'] == pytest.approx((1 + 2 / 3) / 2, abs=1e-15)
    assert (result['f1_max'], result['threshold']) == (0.8, 0.8)


def test_equal_scores_are_a_coin_toss():
    result = metrics.summary(np.full(10, 0.25), np.arange(10) < 3)
    assert result['auroc'] == 0.5
    assert result['average_precision'] == pytest.approx(0.3, abs=1e-15)


def test_threshold_is_the_highest_of_equals():
    # F1 is 2/3 at 0.9 (one of two found) and at 0.1 (both found, two false).
    result = metrics.summary([0.9, 0.5, 0.4, 0.1], [1, 0, 0, 1])
    assert (result['f1_max'], result['threshold']) == (pytest.approx(2 / 3), 0.9)


def test_threshold_decides_alike_in_float32_and_in_python():
    scores = np.array([0.1, 0.7, 0.3], np.float32)
    threshold = metrics.summary(scores, [0, 1, 0])['threshold']
    assert (scores >= threshold).tolist() == [False, True, False]
    assert float(scores[1]) >= threshold


@pytest.mark.parametrize('scores', [[0.5, np.nan], [np.inf, 0.5], [0.5, -np.inf]])
def test_scores_that_are_not_finite_give_no_number(scores):
    with pytest.raises(metrics.UndefinedMetric, match='not finite'):
        metrics.summary(scores, [0, 1])


@pytest.mark.parametrize(('labels', 'missing'), [([0, 0], 'positives'), ([1, 1], 'negatives')])
@pytest.mark.parametrize('metric', [metrics.summary, lambda scores, labels: metrics.rates(scores, labels, 0.5)])
def test_one_class_alone_gives_no_number(metric, labels, missing):
    with pytest.raises(metrics.UndefinedMetric, match=missing):
        metric([0.1, 0.9], labels)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match='one shape'):
        metrics.summary([0.1, 0.2, 0.3], [0, 1])


def test_arguments_are_left_as_they_were():
    scores, labels = np.array([0.9, 0.1, 0.5]), np.array([0, 1, 1])
    metrics.summary(scores, labels)
    np.testing.assert_array_equal(scores, [0.9, 0.1, 0.5])


def test_rates_count_scores_at_the_threshold_as_positive():
    result = metrics.rates([0.2, 0.5, 0.5, 0.7, 0.1], [0, 0, 1, 1, 1], 0.5)
    assert result == {'tpr': 2 / 3, 'tnr': 1 / 2, 'accuracy': 3 / 5}


@pytest.mark.parametrize('max_fpr', [0.05, 0.3, 1.0])
@pytest.mark.parametrize('levels', [4, 20, 10**6])
def test_aupro_equals_a_loop_over_all_thresholds(max_fpr, levels):
    maps, masks = random_maps(levels, levels=levels)
    expected = naive_aupro(maps, masks, max_fpr)
    assert metrics.aupro(maps, masks, max_fpr=max_fpr) == pytest.approx(expected, abs=1e-12)


def test_aupro_of_one_region_up_to_one_is_auroc():
    generator = np.random.default_rng(3)
    masks = np.zeros((2, 16, 16), np.uint8)
    masks[1, 4:9, 3:12] = 1
    maps = np.round(generator.random(masks.shape), 1)
    auroc = metrics.summary(maps, masks)['auroc']
    assert metrics.aupro(maps, masks, max_fpr=1.0) == pytest.approx(auroc, abs=1e-12)


def test_aupro_weighs_small_regions_like_large_ones():
    masks = np.zeros((1, 20, 20), np.uint8)
    masks[0, :10, :10] = 1
    masks[0, 15, 15] = 1
    maps = np.zeros(masks.shape)
    maps[0, 15, 15] = 1.0  # found first
    maps[0, 10:15, 10:15] = 0.5  # false, far less than 30 % of the normal pixels
    false = 25 / 299
    # Overlap 1/2 up to there, then the tie of everything else: a ramp from 1/2 to 1 at rate 1, cut at 0.3.
    end = 0.5 + 0.5 * (0.3 - false) / (1 - false)
    expected = (0.5 * false + (0.5 + end) / 2 * (0.3 - false)) / 0.3
    assert metrics.aupro(maps, masks) == pytest.approx(expected, abs=1e-14)


def test_diagonal_neighbours_are_one_region():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    assert metrics.region_sizes(mask).tolist() == [2, 2, 2, 2, 1]


def test_curves_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    scores = np.round(generator.random(200) + 0.3 * labels, 2)
    curves = metrics.curves(scores, labels)
    fpr, tpr, thresholds = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    for name, expected in (('fpr', fpr), ('tpr', tpr), ('thresholds', thresholds)):
        np.testing.assert_allclose(curves[name], expected[1:], atol=1e-12)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(curves['precision'], precision[-2::-1], atol=1e-12)
    np.testing.assert_allclose(curves['tpr'], recall[-2::-1], atol=1e-12)
