"""Each loss against float64 NumPy written straight from its formula."""

import jax
import numpy as np
import pytest
from reference_losses import reference_focal, reference_l2, reference_ssim

from draem_jax.model import losses

RANDOM = np.random.default_rng(0)
RECONSTRUCTION = RANDOM.uniform(-0.2, 1.2, (2, 24, 20, 3)).astype(np.float32)
IMAGE = RANDOM.uniform(0, 1, (2, 24, 20, 3)).astype(np.float32)
LOGITS = RANDOM.normal(0, 3, (2, 24, 20, 2)).astype(np.float32)
MASK = RANDOM.integers(0, 2, (2, 24, 20, 1)).astype(np.float32)


def test_l2_is_the_mean_squared_error():
    np.testing.assert_allclose(losses.l2_loss(RECONSTRUCTION, IMAGE), reference_l2(RECONSTRUCTION, IMAGE), rtol=1e-6)


@pytest.mark.parametrize('dynamic_range', [1.0, 2.0])
def test_ssim_agrees_with_scipy(dynamic_range):
    ours = losses.ssim_loss(RECONSTRUCTION, IMAGE, dynamic_range=dynamic_range)
    np.testing.assert_allclose(ours, reference_ssim(RECONSTRUCTION, IMAGE, dynamic_range), rtol=2e-6)


def test_ssim_of_nearly_equal_images_keeps_its_precision():
    near = IMAGE + np.float32(0.03) * RANDOM.normal(size=IMAGE.shape).astype(np.float32)
    np.testing.assert_allclose(losses.ssim_loss(near, IMAGE), reference_ssim(near, IMAGE), rtol=1e-3)


def test_ssim_of_an_image_with_itself_loses_nothing():
    np.testing.assert_allclose(losses.ssim_loss(IMAGE, IMAGE), 0, atol=1e-6)


@pytest.mark.parametrize('gamma', [0.0, 1.5, 2.0])
def test_focal_agrees_with_its_formula(gamma):
    ours = losses.focal_loss(LOGITS, MASK, gamma=gamma)
    np.testing.assert_allclose(ours, reference_focal(LOGITS, MASK, gamma), rtol=2e-6)


def test_focal_stays_finite_with_its_gradient_for_certain_predictions():
    logits = np.array([[200.0, -200.0], [-200.0, 200.0]], np.float32).reshape(1, 1, 2, 2)
    mask = np.array([0.0, 0.0], np.float32).reshape(1, 1, 2, 1)  # one right, one wrong
    value, gradient = jax.value_and_grad(losses.focal_loss)(logits, mask)
    np.testing.assert_allclose(value, 400 / 2)
    assert np.isfinite(gradient).all()


def test_the_authors_range_switches_below_minus_a_half_and_above_128():
    for lowest, highest, expected in ((0, 1, 1), (-0.4, 1, 1), (-0.6, 1, 2), (0, 129, 255), (-0.6, 129, 256)):
        assert float(losses.authors_dynamic_range(lowest, highest)) == expected


def test_the_total_is_the_weighted_sum_of_the_named_parts():
    total, parts = losses.draem_loss(RECONSTRUCTION, LOGITS, IMAGE, MASK, l2=0.5, ssim=2.0, focal=3.0)
    expected = {
        'l2': reference_l2(RECONSTRUCTION, IMAGE),
        'ssim': reference_ssim(RECONSTRUCTION, IMAGE),
        'focal': reference_focal(LOGITS, MASK),
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name], value, rtol=2e-6)
    np.testing.assert_allclose(total, 0.5 * expected['l2'] + 2 * expected['ssim'] + 3 * expected['focal'], rtol=2e-6)
