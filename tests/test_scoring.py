"""Scores and maps against NumPy and SciPy."""

import functools

import jax
import numpy as np
import pytest
from scipy import ndimage, special

from draem_jax.detection import tiling
from draem_jax.model import networks, scoring

RANDOM = np.random.default_rng(0)


def test_segmentation_map_is_the_softmax_of_the_second_logit():
    logits = RANDOM.normal(0, 5, (2, 4, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(scoring.segmentation_map(logits), special.softmax(logits, axis=-1)[..., 1], rtol=1e-5)


@pytest.mark.parametrize('window', [1, 5, 21])
def test_image_score_is_the_highest_mean_with_zeros_outside(window):
    maps = RANDOM.uniform(0, 1, (3, 24, 40)).astype(np.float32)
    expected = [ndimage.uniform_filter(m.astype(np.float64), window, mode='constant').max() for m in maps]
    np.testing.assert_allclose(scoring.image_score(maps, window), expected, rtol=1e-5)


@pytest.mark.parametrize(('window', 'top', 'count'), [(1, 0.01, 10), (5, 0.01, 10), (3, 1e-6, 1), (1, 1.0, 960)])
def test_image_score_may_be_the_mean_of_the_highest_local_means(window, top, count):
    maps = RANDOM.uniform(0, 1, (3, 24, 40)).astype(np.float32)
    means = [np.sort(ndimage.uniform_filter(m.astype(np.float64), window, mode='constant').ravel()) for m in maps]
    np.testing.assert_allclose(scoring.image_score(maps, window, top), [m[-count:].mean() for m in means], rtol=1e-5)
    for anomaly_map, expected in zip(maps, means, strict=True):
        np.testing.assert_allclose(tiling.highest_mean(anomaly_map, window, count), expected[-count:].mean(), rtol=1e-5)


@pytest.mark.parametrize('kind', [networks.SSIM, networks.MSGMS])
def test_a_perfect_reconstruction_has_no_anomaly_and_a_changed_spot_has_one_where_it_is(kind):
    images = RANDOM.uniform(0, 1, (1, 32, 32, 3)).astype(np.float32)
    dissimilarity_map = jax.jit(functools.partial(scoring.dissimilarity_map, kind=kind))
    np.testing.assert_allclose(dissimilarity_map(images, images), 0, atol=1e-3)
    changed = images.copy()
    changed[:, 4:10, 20:26] = 1 - changed[:, 4:10, 20:26]
    maps = np.asarray(dissimilarity_map(changed, images))[0]
    assert (maps >= 0).all()
    assert (maps <= 1).all()
    row, column = np.unravel_index(maps.argmax(), maps.shape)
    assert 3 <= row <= 10
    assert 19 <= column <= 26
