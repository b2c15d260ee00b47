"""The layers against plain formulas, and their gradients against what XLA derives from its own operations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from draem_jax import devices
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


@pytest.fixture(params=['cpu', 'accelerator'])
def platform(request, monkeypatch):
    """Runs a test with the code of a CPU and with that of accelerators, both on the CPU."""
    monkeypatch.setattr(devices, 'on_cpu', lambda: request.param == 'cpu')


USUAL = {'window_strides': (1, 1), 'padding': 'SAME', 'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}


@pytest.mark.usefixtures('platform')
@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize(
    'other',
    [
        {},
        {'window_strides': (2, 2)},
        {'window_strides': (1, 2)},
        {'padding': 'VALID'},
        {'padding': ((0, 0), (2, 1))},
        {'lhs_dilation': (2, 2), 'padding': ((1, 1), (1, 1))},
        {'rhs_dilation': (1, 2)},
        {'feature_group_count': 2},
        {'dimension_numbers': ('NWHC', 'HWIO', 'NHWC')},
    ],
)
def test_convolution_is_that_of_lax(size, other):
    image = RANDOM.normal(size=(2, 6, 8, 4)).astype(np.float32)
    kernel = RANDOM.normal(size=(size, size, 4 // other.get('feature_group_count', 1), 6)).astype(np.float32)
    expected = lax.conv_general_dilated(image, kernel, **USUAL | other)
    np.testing.assert_allclose(layers.convolve(image, kernel, **USUAL | other), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures('platform')
def test_convolution_of_flax_keeps_its_strides():
    layer = nn.Conv(3, (3, 3), strides=2, conv_general_dilated=layers.convolve)
    out, _ = layer.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 2)))
    assert out.shape == (1, 4, 4, 3)


@pytest.mark.parametrize('channels', [3, 6, 8])
def test_missing_channels_of_bfloat16_change_neither_result_nor_gradients(channels, monkeypatch):
    monkeypatch.setattr(devices, 'on_cpu', lambda: False)
    image = RANDOM.integers(-8, 8, (2, 6, 8, channels)).astype(jnp.bfloat16)  # Sums of products of these are exact.
    kernel = RANDOM.integers(-1, 2, (3, 3, channels, 5)).astype(jnp.bfloat16)
    ours, theirs = (
        jax.vjp(lambda x, k, f=function: f(x, k, **USUAL), image, kernel)
        for function in (layers.convolve, lax.conv_general_dilated)
    )
    [program] = [
        equation
        for equation in jax.make_jaxpr(functools.partial(layers.convolve, **USUAL))(image, kernel).eqns
        if equation.primitive.name == 'conv_general_dilated'
    ]
    assert [operand.aval.shape[axis] for operand, axis in zip(program.invars, (3, 2), strict=True)] == [8, 8]
    np.testing.assert_array_equal(ours[0], theirs[0])
    gradient = RANDOM.integers(-1, 2, ours[0].shape).astype(jnp.bfloat16)
    for a, b in zip(ours[1](gradient), theirs[1](gradient), strict=True):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('features', [2, 3])
def test_convolution_to_float32_multiplies_bfloat16_and_adds_float32(features):
    image = RANDOM.normal(size=(2, 6, 8, 16)).astype(jnp.bfloat16)
    kernel = RANDOM.normal(size=(3, 3, 16, features)).astype(np.float32)
    gradient = RANDOM.normal(size=(2, 6, 8, features)).astype(np.float32)
    out, pull = jax.vjp(layers.convolve_to_float32, image, kernel)
    image_gradient, kernel_gradient = pull(jnp.asarray(gradient))
    assert [a.dtype for a in (out, image_gradient, kernel_gradient)] == [jnp.float32, jnp.bfloat16, jnp.float32]

    with jax.enable_x64(True):
        image, kernel, gradient = (
            np.asarray(a).astype(jnp.bfloat16).astype(np.float64) for a in (image, kernel, gradient)
        )
        exact, pull = jax.vjp(lambda x, k: lax.conv_general_dilated(x, k, **USUAL), image, kernel)
        exact_image_gradient, exact_kernel_gradient = map(np.asarray, pull(gradient))
    np.testing.assert_allclose(out, exact, atol=1e-5)
    np.testing.assert_allclose(kernel_gradient, exact_kernel_gradient, atol=1e-5)
    rounding = 2.0**-8 * abs(exact_image_gradient) + 1e-5
    assert (abs(np.asarray(image_gradient, np.float64) - exact_image_gradient) <= rounding).all()


def normalise_on_devices(image, count):
    """The mean and the variance of each channel, from `normalise` with the images spread over `count` devices."""

    def statistics(image):
        channels = jnp.ones(image.shape[-1])
        return layers.normalise(image, channels, channels, 1e-5, False, 'devices')[1:]

    parts = image.reshape(count, -1, *image.shape[1:])
    return jax.pmap(statistics, axis_name='devices', out_axes=None)(parts)


def exact_statistics(image):
    return (getattr(image.astype(np.float64), name)(axis=(0, 1, 2)) for name in ('mean', 'var'))


@pytest.mark.usefixtures('platform')
@pytest.mark.parametrize('count', [1, 4])
def test_variance_survives_a_large_mean(count):
    means, deviations = np.array([0, 1, 1e3, -1e4, 1, 3e5]), np.array([1, 1, 1, 1, 1e-4, 100])
    image = RANDOM.normal(means, deviations, (8, 16, 16, 6)).astype(np.float32)
    mean, var = normalise_on_devices(image, count)
    exact_mean, exact_var = exact_statistics(image)
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(var, exact_var, rtol=1e-4)  # E[x^2] - E[x]^2 is wrong by 6 here, and more.


@pytest.mark.parametrize('count', [1, 4])
def test_statistics_of_a_constant_channel_are_exact_on_accelerators(count, monkeypatch):
    monkeypatch.setattr(devices, 'on_cpu', lambda: False)
    image = np.broadcast_to(np.array([0, 0.1, -1e4, 1e30], np.float32), (4, 8, 8, 4))
    mean, var = normalise_on_devices(image, count)
    np.testing.assert_array_equal(mean, image[0, 0, 0])
    np.testing.assert_array_equal(var, np.zeros(4))


@pytest.mark.usefixtures('platform')
def test_variance_holds_where_the_middle_pixel_is_far_from_all_others():
    image = RANDOM.normal(1, 1, (2, 32, 32, 3)).astype(np.float32)
    image[0, 16, 16] = [30, -300, 1e6]
    mean, var = normalise_on_devices(image, 1)
    exact_mean, exact_var = exact_statistics(image)
    far = abs(image[0, 16, 16] - exact_mean) / np.sqrt(exact_var)
    assert far.max() > 45  # The square of this distance is never more than the number of pixels, here 2,048.
    assert (abs(var / exact_var - 1) <= 2.0**-23 * (1 + 2 * far**2)).all()
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-4)


def test_rounding_makes_no_variance_negative_on_accelerators(monkeypatch):
    monkeypatch.setattr(devices, 'on_cpu', lambda: False)
    # In two sums over four million equal pixels rounding is larger than the variance that the middle pixel causes.
    random = np.random.default_rng(0)
    image = np.broadcast_to(random.normal(0, 3, 8), (1, 2048, 2048, 8)).astype(np.float32)
    image[0, 1024, 1024] = random.normal(0, 1000, 8)
    _, var = normalise_on_devices(image, 1)
    assert (var >= 0).all()


@pytest.mark.usefixtures('platform')
def test_statistics_of_devices_with_different_images_are_those_of_all_images():
    image = RANDOM.normal(size=(8, 8, 8, 3)).astype(np.float32)
    image += np.repeat([-5000, 0, 0.5, 20], 2).reshape(8, 1, 1, 1).astype(np.float32)
    mean, var = normalise_on_devices(image, 4)
    exact_mean, exact_var = exact_statistics(image)
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-6)
    np.testing.assert_allclose(var, exact_var, rtol=1e-6)


def test_upsampling_keeps_bfloat16():
    assert layers.upsample2x(jnp.ones((1, 4, 4, 2), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.usefixtures('platform')
@pytest.mark.parametrize('size', [(2, 2), (6, 10)])
def test_a_reflected_convolution_is_that_of_the_mirrored_image_and_so_is_its_gradient(size):
    image = RANDOM.normal(size=(2, *size, 3)).astype(np.float32)
    kernel = RANDOM.normal(size=(3, 3, 3, 4)).astype(np.float32)

    def by_padding(image, kernel):
        padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect')
        return lax.conv_general_dilated(padded, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

    weight = RANDOM.normal(size=(2, *size, 4)).astype(np.float32)
    results = []
    for convolve in (layers.convolve_reflected, by_padding):
        loss = lambda image, kernel, convolve=convolve: (convolve(image, kernel) * weight).sum()  # noqa: E731
        results.append([convolve(image, kernel), *jax.grad(loss, (0, 1))(image, kernel)])
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
