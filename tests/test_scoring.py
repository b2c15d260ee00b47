"""Scores and maps against NumPy and SciPy."""

import numpy as np
import pytest
from scipy import ndimage, special

from draem_jax.model import scoring

RANDOM = np.random.default_rng(0)


def test_segmentation_map_is_the_softmax_of_the_second_logit():
    logits = RANDOM.normal(0, 5, (2, 4, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(scoring.segmentation_map(logits), special.softmax(logits, axis=-1)[..., 1], rtol=1e-5)


@pytest.mark.parametrize('window', [1, 5, 21])
def test_image_score_is_the_highest_mean_with_zeros_outside(window):
    maps = RANDOM.uniform(0, 1, (3, 24, 40)).astype(np.float32)
    expected = [ndimage.uniform_filter(m.astype(np.float64), window, mode='constant').max() for m in maps]
    np.testing.assert_allclose(scoring.image_score(maps, window), expected, rtol=1e-5)
