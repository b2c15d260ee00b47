"""The layers against plain formulas, and their gradients against what XLA derives from its own operations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from draem_jax.model import layers

RANDOM = np.random.default_rng(0)


def bilinear_align_corners(image, axis):
    """NumPy in float64: the n outputs' corners lie on the inputs' corners, values between them on straight lines."""
    n = image.shape[axis]
    positions = np.linspace(0, n - 1, 2 * n)
    return np.apply_along_axis(lambda line: np.interp(positions, np.arange(n), line), axis, image.astype(np.float64))


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (8, 5)])
def test_upsampling_interpolates_linearly_between_aligned_corners(size):
    image = RANDOM.normal(size=(2, *size, 3)).astype(np.float32)
    expected = bilinear_align_corners(bilinear_align_corners(image, 1), 2)
    np.testing.assert_allclose(layers.upsample2x(image), expected, atol=1e-6)


def test_max_pooling_equals_the_window_maximum():
    image = RANDOM.normal(size=(2, 6, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(layers.max_pool2x2(image), nn.max_pool(image, (2, 2), strides=(2, 2)))


def test_max_pooling_gives_the_whole_gradient_to_the_first_maximum():
    cells = np.array([[1, 1, 0, 1], [0, 2, 2, 2], [3, 3, 3, 3], [0, 1, 2, 3]], np.float32)  # in reading order
    expected = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float32)
    gradient = jax.grad(lambda x: layers.max_pool2x2(x).sum())(cells.reshape(4, 2, 2, 1))
    np.testing.assert_array_equal(np.asarray(gradient).reshape(4, 4), expected)


def test_max_pooling_gradient_goes_back_to_where_the_values_came_from():
    image = RANDOM.permutation(2 * 4 * 6 * 3).reshape(2, 4, 6, 3).astype(np.float32)  # no ties
    weight = RANDOM.normal(size=(2, 2, 3, 3)).astype(np.float32)
    ours = jax.grad(lambda x: (layers.max_pool2x2(x) * weight).sum())(image)
    theirs = jax.grad(lambda x: (nn.max_pool(x, (2, 2), strides=(2, 2)) * weight).sum())(image)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('size', [1, 3])
def test_convolution_is_that_of_lax(size):
    image = RANDOM.normal(size=(2, 6, 8, 4)).astype(np.float32)
    kernel = RANDOM.normal(size=(size, size, 4, 5)).astype(np.float32)
    settings = {'window_strides': (1, 1), 'padding': 'SAME', 'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}
    expected = lax.conv_general_dilated(image, kernel, **settings)
    np.testing.assert_allclose(layers.convolve(image, kernel, **settings), expected, rtol=1e-4, atol=1e-5)


def test_upsampling_keeps_bfloat16():
    assert layers.upsample2x(jnp.ones((1, 4, 4, 2), jnp.bfloat16)).dtype == jnp.bfloat16
