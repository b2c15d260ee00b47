"""Each loss against float64 NumPy written straight from its formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_losses import reference_focal, reference_l2, reference_ssim
from scipy import special

from draem_jax.model import losses
from draem_jax.model.similarity import edge_similarities

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


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
@pytest.mark.parametrize('gamma', [0, 0.0, 0.5, 0.9, 1.0, 1.5, 2.0, 5.0])
def test_focal_has_the_gradient_of_its_formula_however_sure_the_network_is(gamma, dtype):
    lead = np.arange(-100, 101, dtype=np.float64)  # bfloat16 holds each of these
    logits = np.stack([-lead / 2, lead / 2], -1).astype(dtype).reshape(1, 1, -1, 2)
    value, gradient = jax.value_and_grad(losses.focal_loss)(logits, np.ones((1, 1, lead.size, 1)), gamma=gamma)
    p, rest, cost = special.expit(lead), special.expit(-lead), np.logaddexp(0, -lead)
    expected = -(gamma * rest**gamma * p * cost + rest ** (gamma + 1))
    assert float(value) == pytest.approx((rest**gamma * cost).mean(), rel=1e-6)
    tolerance = {'rtol': 1e-5, 'atol': 3e-6} if dtype == np.float32 else {'rtol': 2**-8, 'atol': 1e-5}
    found = lead.size * np.asarray(gradient, np.float64)[0, 0]
    np.testing.assert_allclose(found[:, 1], expected, **tolerance)
    np.testing.assert_allclose(found[:, 0], -expected, **tolerance)


@pytest.mark.parametrize('gamma', [1.0, 2.0])
def test_focal_is_bit_for_bit_the_power_of_the_softmax_as_released(gamma):
    def as_released(logits, mask):
        log_probability = jax.nn.log_softmax(logits)
        log_p = jnp.where(mask[..., 0] > 0.5, log_probability[..., 1], log_probability[..., 0])
        return -jnp.mean((-jnp.expm1(log_p)) ** gamma * log_p)

    ours = jax.jit(jax.value_and_grad(functools.partial(losses.focal_loss, gamma=gamma)))(LOGITS, MASK)
    expected = jax.jit(jax.value_and_grad(as_released))(LOGITS, MASK)
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


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


def test_mask_l1_is_the_mean_distance_of_map_and_mask():
    expected = np.abs(special.softmax(LOGITS.astype(np.float64), axis=-1)[..., 1] - MASK[..., 0]).mean()
    np.testing.assert_allclose(losses.mask_l1_loss(LOGITS, MASK), expected, rtol=1e-6)


def test_parts_of_the_loss_that_are_switched_on_are_added_with_their_weights():
    weights = {'l2': 1.0, 'ssim': 2.0, 'msgms': 3.0, 'focal': 4.0, 'mask_l1': 5.0}
    arrays = [array[:, :, :16] for array in (RECONSTRUCTION, LOGITS, IMAGE, MASK)]  # Sides are multiples of 8.
    total, parts = jax.jit(functools.partial(losses.draem_loss, **weights))(*arrays)
    assert parts.keys() == weights.keys()
    np.testing.assert_allclose(total, sum(weights[name] * parts[name] for name in weights), rtol=1e-6)


def test_a_network_alone_has_its_own_parts_of_the_loss_alone():
    reconstruction, logits, image, mask = (array[:, :, :16] for array in (RECONSTRUCTION, LOGITS, IMAGE, MASK))
    loss = jax.jit(functools.partial(losses.draem_loss, msgms=1.0, mask_l1=1.0))
    _, parts = loss(None, logits, image, mask)
    assert parts.keys() == {'focal', 'mask_l1'}
    _, parts = loss(reconstruction, None, image, mask)
    assert parts.keys() == {'l2', 'ssim', 'msgms'}
    one_minus_means = 1 - np.mean([part.mean() for part in edge_similarities(reconstruction, image)])
    np.testing.assert_allclose(parts['msgms'], one_minus_means, rtol=1e-5)
