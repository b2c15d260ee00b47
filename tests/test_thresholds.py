"""Thresholds from normals: against order statistics of SciPy, by simulation, and by counting."""

import math

import numpy as np
import pytest
from scipy import stats

from draem_jax.detection import thresholds

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ('number', 'target', 'above'),
    [(19, 0.05, 1), (20, 0.05, 1), (39, 0.05, 2), (99, 0.01, 1), (199, 0.01, 2), (99, 0.07, 7), (1000, 0.1, 100)],
)
def test_the_interval_is_that_of_the_beta_distribution_of_the_order_statistic(number, target, above):
    scores = RANDOM.uniform(0, 1, number).astype(np.float32)
    result = thresholds.image_threshold(scores, target)
    rate = stats.beta(above, number + 1 - above)
    assert result['expected_fpr'] == pytest.approx(rate.mean())
    assert result['expected_fpr'] <= target + 1e-12
    np.testing.assert_allclose(result['interval'], rate.interval(0.95), rtol=1e-9)
    assert (result['enough_normals'], result['note']) == (True, None)
    # One score fewer than allowed reaches it: the score at the order statistic itself stays below.
    assert (scores >= result['threshold']).sum() == above - 1


def test_the_rate_of_new_normals_is_inside_the_interval_as_often_as_it_says():
    rates = []
    for _ in range(2000):
        threshold = thresholds.image_threshold(RANDOM.uniform(0, 1, 76).astype(np.float32), 0.05)['threshold']
        rates.append(1 - threshold)  # Exactly this part of uniform scores reaches it.
    low, high = thresholds.image_threshold(np.linspace(0, 1, 76), 0.05)['interval']
    inside = np.mean((np.array(rates) >= low) & (np.array(rates) <= high))
    assert inside == pytest.approx(0.95, abs=0.02)
    assert np.mean(rates) == pytest.approx(math.floor(0.05 * 77) / 77, abs=0.002)


@pytest.mark.parametrize(('target', 'needed'), [(0.05, 19), (0.01, 99), (0.1, 9), (0.001, 999), (0.3, 3), (0.5, 1)])
def test_the_number_of_normals_that_a_rate_needs_is_the_first_that_is_enough(target, needed):
    assert thresholds.normals_needed(target) == needed
    assert thresholds.image_threshold(np.arange(needed), target)['enough_normals']
    if needed > 1:
        assert not thresholds.image_threshold(np.arange(needed - 1), target)['enough_normals']


def test_too_few_normals_are_said_to_be_too_few():
    result = thresholds.image_threshold([0.2, 0.1, 0.4], 0.05)
    assert result['threshold'] > np.float32(0.4)
    assert result['threshold'] == pytest.approx(0.4)
    assert result['expected_fpr'] == 0.25
    np.testing.assert_allclose(result['interval'], stats.beta(1, 3).interval(0.95))
    assert not result['enough_normals']
    assert '3 normal images are too few' in result['note']
    assert 'at least 19' in result['note']


def test_ties_never_raise_the_rate_above_the_target():
    scores = np.repeat([0.0, 0.5, 0.9], [60, 30, 9]).astype(np.float32)
    for target in (0.01, 0.05, 0.2, 0.5):
        assert (scores >= thresholds.image_threshold(scores, target)['threshold']).mean() <= target


def test_pixels_are_counted_at_each_level():
    values = RANDOM.uniform(0, 1, (16, 16)).astype(np.float32)
    values[0, :6] = [0, 1, thresholds.LEVELS[0], thresholds.LEVELS[70], thresholds.LEVELS[70], 0.5]
    counts = thresholds.counts_above(values)
    for level in range(0, len(thresholds.LEVELS), 7):
        assert counts[level] == (values >= thresholds.LEVELS[level]).sum()
    assert counts[-1] == 0


def measured(maps):
    return [thresholds.counts_above(values) for values in maps], [values.size for values in maps]


def test_the_pixel_threshold_is_the_quantile_of_all_pixels():
    maps = RANDOM.beta(0.5, 8, (30, 40, 40)).astype(np.float32)
    result = thresholds.pixel_threshold(*measured(maps), 0.01)
    rate = (maps.astype(np.float64) >= result['threshold']).mean()
    assert rate == result['expected_fpr'] <= 0.01
    assert result['threshold'] == pytest.approx(np.quantile(maps, 0.99), rel=0.01)
    assert result['interval'][0] <= rate <= result['interval'][1]


def test_the_pixel_interval_of_one_pixel_images_is_that_of_images():
    values = RANDOM.uniform(0, 1, 400).astype(np.float32)
    result = thresholds.pixel_threshold(*measured(values[:, None, None]), 0.1, resamples=4000)
    np.testing.assert_allclose(result['interval'], stats.beta(40, 361).interval(0.95), rtol=0.1)


def test_pixels_that_are_copies_of_each_other_say_no_more_than_one():
    values = RANDOM.uniform(0, 1, (60, 1, 1)).astype(np.float32)
    one = thresholds.pixel_threshold(*measured(values), 0.1)
    many = thresholds.pixel_threshold(*measured(np.tile(values, (1, 8, 8))), 0.1)
    assert one == many


def test_a_map_that_is_one_everywhere_gets_a_threshold_that_no_pixel_reaches():
    result = thresholds.pixel_threshold(*measured(np.ones((3, 4, 4), np.float32)), 0.01)
    assert result['threshold'] > 1
    assert result['expected_fpr'] == 0


def test_few_normals_are_said_to_be_few_for_pixels_too():
    assert '3 normal images are too few' in thresholds.pixel_threshold(*measured(np.ones((3, 4, 4))), 0.01)['note']
    alone = thresholds.pixel_threshold(*measured(np.ones((1, 4, 4))), 0.01)
    assert (alone['interval'], alone['enough_normals']) == (None, False)
