"""Scores and maps against NumPy and SciPy."""

import numpy as np
import pytest
from scipy import ndimage, special

from draem_jax import devices, evaluation, inference

RANDOM = np.random.default_rng(0)


def test_anomaly_map_is_the_softmax_of_the_second_logit():
    logits = RANDOM.normal(0, 5, (2, 4, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(inference.anomaly_map(logits), special.softmax(logits, axis=-1)[..., 1], rtol=1e-5)


@pytest.mark.parametrize('window', [1, 5, 21])
def test_image_score_is_the_highest_mean_with_zeros_outside(window):
    maps = RANDOM.uniform(0, 1, (3, 24, 40)).astype(np.float32)
    expected = [ndimage.uniform_filter(m.astype(np.float64), window, mode='constant').max() for m in maps]
    np.testing.assert_allclose(inference.image_score(maps, window), expected, rtol=1e-5)


def test_half_and_full_mask_rules_differ_on_the_rim_only():
    masks = np.array([0, 1, 127, 128, 254, 255], np.uint8)
    assert evaluation.defective_pixels(masks, 'half').tolist() == [0, 0, 0, 1, 1, 1]
    assert evaluation.defective_pixels(masks, 'full').tolist() == [0, 0, 0, 0, 0, 1]


def test_every_image_counts_exactly_once_whatever_the_filler():
    images = RANDOM.integers(0, 256, (10, 4, 4, 3), np.uint8)

    def batches():
        for start in (0, 8):
            real = images[start : start + 8]
            filler = np.zeros((8 - len(real), 4, 4, 3), np.uint8)
            yield {
                'image': np.concatenate([real, filler]),
                'mask': np.zeros((8, 4, 4, 1), np.uint8),
                'label': [0] * len(real),
                'has_mask': [True] * len(real),
                'defect_type': ['good'] * len(real),
                'filename': [f'{start + k}.png' for k in range(len(real))],
            }

    def predict(variables, batch):
        assert batch.shape[:2] == (devices.count(), 8 // devices.count())
        return {
            'score': batch.mean(axis=(2, 3, 4)).astype(np.float32),
            'map': batch[..., 0].astype(np.float32),
            'reconstruction': batch,
        }

    tested = evaluation.run(predict, None, batches())
    assert tested['filename'] == [f'{k}.png' for k in range(10)]
    np.testing.assert_allclose(tested['score'], images.mean(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(tested['reconstruction'], images)
