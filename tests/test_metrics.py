"""Metrics against scikit-learn, a naive loop over thresholds, and counting by hand."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sklearn_metrics

from draem_jax.evaluation import metrics, pixel_ranking


def best_f1(scores, labels):
    """F1-max by trying every score as a threshold."""
    return max(sklearn_metrics.f1_score(labels, scores >= threshold) for threshold in np.unique(scores))


def naive_aupro(maps, masks, max_fpr):
    """The curve point by point, its regions found by flooding."""
    regions = []
    for image, mask in enumerate(masks):
        left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
        while left:
            region, border = [], [left.pop()]
            while border:
                y, x = border.pop()
                region.append((image, y, x))
                near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
                left -= near
                border.extend(near)
            regions.append(maps[tuple(np.transpose(region))])
    normal = maps[masks == 0]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        rates.append(np.mean(normal >= threshold))
        overlaps.append(np.mean([np.mean(region >= threshold) for region in regions]))
    area = 0.0
    for left, right, low, high in zip(rates, rates[1:], overlaps, overlaps[1:], strict=False):
        if right > max_fpr:
            if left < max_fpr:
                high = low + (high - low) * (max_fpr - left) / (right - left)
                area += (max_fpr - left) * (low + high) / 2
            break
        area += (right - left) * (low + high) / 2
    return area / max_fpr


def random_maps(seed, *, count=6, size=12, levels=20):
    """Maps with ties and blotchy masks; some images have no defect."""
    generator = np.random.default_rng(seed)
    masks = (generator.random((count, size, size)) < 0.15).astype(np.uint8)
    masks[: count // 3] = 0
    maps = generator.random((count, size, size)) + 0.3 * masks
    return (np.round(maps * levels) / levels).astype(np.float32), masks


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
    # Of six pairs the positive wins five and ties one.
    assert metrics.auroc(scores, labels) == pytest.approx(5.5 / 6, abs=1e-15)
    # The first positive stands at precision 1, the tied one at 2 of 3.
    assert metrics.average_precision(scores, labels) == pytest.approx((1 + 2 / 3) / 2, abs=1e-15)
    assert metrics.f1_max(scores, labels) == (0.8, 0.8)


def test_equal_scores_are_a_coin_toss():
    assert metrics.auroc(np.full(10, 0.25), np.arange(10) < 3) == 0.5
    assert metrics.average_precision(np.full(10, 0.25), np.arange(10) < 3) == pytest.approx(0.3, abs=1e-15)


def test_threshold_is_the_highest_of_equals():
    # F1 is 2/3 at 0.9 (one of two found) and at 0.1 (both found, two false).
    assert metrics.f1_max([0.9, 0.5, 0.4, 0.1], [1, 0, 0, 1]) == (pytest.approx(2 / 3), 0.9)


def test_threshold_decides_alike_in_float32_and_in_python():
    scores = np.array([0.1, 0.7, 0.3], np.float32)
    _, threshold = metrics.f1_max(scores, [0, 1, 0])
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
        metrics.auroc([0.1, 0.2, 0.3], [0, 1])


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
    assert metrics.aupro(maps, masks, max_fpr=1.0) == pytest.approx(metrics.auroc(maps, masks), abs=1e-12)


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


@pytest.mark.parametrize('block_size', [16, 700, 1 << 22])
def test_pixel_ranking_equals_the_metrics_of_its_pixels(block_size):
    maps, masks = random_maps(7, count=9, size=20, levels=10**6)
    maps[::2] = np.round(maps[::2], 1)
    maps[:, :5] = 0.0  # one heavy tie, larger than a block
    groups = ['good', 'good', 'good', 'dent', 'scratch', 'dent', 'dent', 'scratch', 'scratch']
    selections = {'all': ['good', 'dent', 'scratch'], 'dent': ['good', 'dent']}
    with pixel_ranking.PixelRanking(block_size=block_size) as pixels:
        for arguments in zip(maps, masks, groups, strict=True):
            pixels.add(*arguments)
        results = pixels.summaries(selections, max_fpr=0.2)
    for name, selected in selections.items():
        chosen = np.isin(groups, selected)
        expected = metrics.summary(maps[chosen], masks[chosen])
        expected['aupro'] = naive_aupro(maps[chosen], masks[chosen], 0.2)
        assert results[name] == pytest.approx(expected, abs=1e-12)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(seed=strategies.integers(0, 10**6), levels=strategies.integers(1, 50))
def test_pixel_ranking_is_exact_whatever_the_ties(seed, levels):
    maps, masks = random_maps(seed, count=4, size=8, levels=levels)
    hypothesis.assume(masks.any())
    with pixel_ranking.PixelRanking(block_size=37) as pixels:
        for anomaly_map, mask in zip(maps, masks, strict=True):
            pixels.add(anomaly_map, mask)
        result = pixels.summaries({'all': ['']}, max_fpr=0.3)['all']
    assert result['auroc'] == pytest.approx(sklearn_metrics.roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert result['aupro'] == pytest.approx(naive_aupro(maps, masks, 0.3), abs=1e-12)
    assert result == pytest.approx(metrics.summary(maps, masks) | {'aupro': result['aupro']}, abs=1e-12)


def test_pixel_ranking_names_what_is_missing():
    with pixel_ranking.PixelRanking() as pixels:
        pixels.add(np.zeros((4, 4)), np.zeros((4, 4)), group='good')
        pixels.add(np.full((4, 4), np.nan), np.eye(4), group='dent')
        results = pixels.summaries({'good': ['good'], 'dent': ['good', 'dent'], 'none': []})
    assert 'no defective pixels' in str(results['good'])
    assert 'not finite' in str(results['dent'])
    assert isinstance(results['none'], metrics.UndefinedMetric)


def test_curves_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    scores = np.round(generator.random(200) + 0.3 * labels, 2)
    found = metrics.curves(scores, labels)
    fpr, tpr, thresholds = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    for name, expected in (('fpr', fpr), ('tpr', tpr), ('thresholds', thresholds)):
        np.testing.assert_allclose(found[name], expected[1:], atol=1e-12)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(found['precision'], precision[-2::-1], atol=1e-12)
    np.testing.assert_allclose(found['tpr'], recall[-2::-1], atol=1e-12)
