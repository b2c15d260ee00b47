import colorsys
import itertools

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
import scipy.ndimage
import tensorflow as tf

from data.synthesis import operations


def photograph(height=45, width=60, seed=0):
    """Smooth colours with noise: skewed histograms, every channel different, both ends of the range present."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-60, 300, (5, 6, 3)) * [1.0, 0.7, 0.4] + [0, 40, 10]
    smooth = scipy.ndimage.zoom(coarse, (height / 5, width / 6, 1), order=1)
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


IMAGES = {
    'photograph': photograph(),
    'noise': np.random.default_rng(1).integers(0, 256, (33, 47, 3), np.uint8),
    'dark': photograph(seed=2) // 4,
    'one colour': np.full((32, 32, 3), (12, 200, 255), np.uint8),
    'two colours': np.where(np.arange(1024).reshape(32, 32, 1) % 7 > 0, (10, 20, 30), (200, 20, 31)).astype(np.uint8),
}


@pytest.fixture(params=list(IMAGES))
def image(request):
    return IMAGES[request.param]


def pillow(function, image, *arguments):
    return np.asarray(function(PIL.Image.fromarray(image), *arguments))


@pytest.mark.parametrize('bits', range(1, 9))
def test_posterize_is_pillows(image, bits):
    np.testing.assert_array_equal(operations.posterize(image, bits), pillow(PIL.ImageOps.posterize, image, bits))


@pytest.mark.parametrize('threshold', [32, 100, 127])
def test_solarize_is_pillows(image, threshold):
    np.testing.assert_array_equal(
        operations.solarize(image, threshold), pillow(PIL.ImageOps.solarize, image, threshold)
    )


def test_invert_is_pillows(image):
    np.testing.assert_array_equal(operations.invert(image), pillow(PIL.ImageOps.invert, image))


@pytest.mark.parametrize('cutoff', [0, 1, 7, 20])
def test_autocontrast_is_pillows(image, cutoff):
    np.testing.assert_array_equal(
        operations.autocontrast(image, cutoff), pillow(PIL.ImageOps.autocontrast, image, cutoff)
    )


def test_equalize_is_pillows(image):
    np.testing.assert_array_equal(operations.equalize(image), pillow(PIL.ImageOps.equalize, image))


@pytest.mark.parametrize('factor', [0.0, 0.3, 1.0, 1.7, 2.0])
def test_sharpness_is_pillows(image, factor):
    expected = np.asarray(PIL.ImageEnhance.Sharpness(PIL.Image.fromarray(image)).enhance(factor))
    np.testing.assert_array_equal(operations.sharpness(image, factor), expected)


def test_gamma_contrast_is_a_power_per_channel(image):
    gamma = np.array([0.5, 1.0, 1.9])
    expected = 255.0 * (image / 255.0) ** gamma
    assert_nearest(operations.gamma_contrast(image, gamma.astype(np.float32)), expected)


@pytest.mark.parametrize('offset_first', [False, True])
@pytest.mark.parametrize(('scale', 'offset'), [(0.8, 30.0), (1.2, -30.0), (1.2, 30.0), (1.0, 0.0)])
def test_brightness_moves_the_luma_alone(image, scale, offset, offset_first):
    luma = image @ [0.299, 0.587, 0.114]
    steps = [lambda v: v + offset, lambda v: v * scale]
    changed = luma
    for step in steps if offset_first else reversed(steps):
        changed = np.clip(step(changed), 0, 255)
    expected = np.clip(image + (changed - luma)[..., None], 0, 255)
    assert_nearest(operations.brightness(image, scale, offset, offset_first), expected)


@pytest.mark.parametrize(('turns', 'shift'), [(0.19, 0.19), (-0.19, -0.19), (0.1, -0.15), (0.0, 0.0)])
def test_hue_and_saturation_move_in_hsv(image, turns, shift):
    def moved(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255.0))
        return colorsys.hsv_to_rgb((hue + turns) % 1.0, np.clip(saturation + shift, 0, 1), value)

    expected = 255.0 * np.apply_along_axis(moved, -1, image)
    assert_nearest(operations.hue_saturation(image, turns, shift), expected)


@pytest.mark.parametrize('degrees', [-90.0, -33.0, 0.0, 45.0, 90.0])
def test_rotation_is_bilinear_about_the_centre_with_black_outside(degrees):
    image = photograph(40, 57)
    expected = scipy.ndimage.rotate(
        image.astype(np.float64), degrees, order=1, reshape=False, mode='grid-constant', cval=0.0
    )
    np.testing.assert_allclose(operations.rotate(image.astype(np.float32), degrees), expected, atol=0.02)
    assert_nearest(operations.rotate(image, degrees), expected, tolerance=0.52)


def test_rotation_of_a_square_by_a_quarter_turn_moves_every_pixel():
    image = photograph(48, 48)
    np.testing.assert_array_equal(operations.rotate(image, 90.0), np.rot90(image))


def test_every_operation_keeps_type_and_shape_at_both_ends_of_its_range(image):
    for (name, operation), u in itertools.product(operations.OPERATIONS.items(), (0.0, 0.49, 0.9999999)):
        changed = operation(tf.constant(image), tf.fill([3], u))
        assert (changed.dtype, changed.shape) == (tf.uint8, image.shape), name


def test_strengths_are_those_of_the_published_code():
    image = tf.constant(IMAGES['photograph'])

    def at(name, *u):
        return operations.OPERATIONS[name](image, tf.constant([*u, 0.0, 0.0, 0.0][:3]))

    highest = 1.0 - 2.0**-23
    for expected, changed in [
        (operations.gamma_contrast(image, np.float32([0.5, 1.25, 2.0])), at('gamma_contrast', 0.0, 0.5, highest)),
        (operations.brightness(image, 0.8, 30.0, True), at('brightness', 0.0, highest, 0.4)),
        (operations.brightness(image, 1.2, -30.0, False), at('brightness', highest, 0.0, 0.6)),
        (operations.sharpness(image, 0.0), at('sharpness', 0.0)),
        (operations.sharpness(image, 1.5), at('sharpness', 0.75)),
        (operations.hue_saturation(image, -50 / 255, 0.0), at('hue_saturation', 0.0, 0.5)),
        (operations.hue_saturation(image, 0.0, 25 / 255), at('hue_saturation', 0.5, 0.75)),
        (operations.solarize(image, 32), at('solarize', 0.1, 0.0)),
        (operations.solarize(image, 128), at('solarize', 0.1, highest)),
        (image, at('solarize', 0.5, 0.0)),
        (operations.posterize(image, 1), at('posterize', 0.0)),
        (image, at('posterize', highest)),
        (operations.autocontrast(image, 0), at('autocontrast', 0.0)),
        (operations.autocontrast(image, 20), at('autocontrast', highest)),
        (operations.rotate(image, -45.0), at('rotate', 0.0)),
        (image, at('rotate', 0.5)),
    ]:
        np.testing.assert_array_equal(changed, expected)


ORDERS = [[0, 1, 2], [9, 3, 7], [5, 8, 0], [2, 9, 1], [7, 6, 4], [3, 0, 5], [8, 3, 2]]


@pytest.mark.parametrize('order', ORDERS)
def test_operations_are_applied_one_after_the_other(order):
    image = IMAGES['photograph']
    names = tuple(operations.OPERATIONS)
    numbers = np.random.default_rng(sum(order)).uniform(size=(3, 3)).astype(np.float32)
    expected = tf.constant(image)
    for choice, u in zip(order, numbers, strict=True):
        expected = operations.OPERATIONS[names[choice]](expected, tf.constant(u))
    changed = operations.augment(tf.constant(image), names, tf.constant(order), tf.constant(numbers))
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize('order', [*ORDERS, []])
@pytest.mark.parametrize('count', [0, 1, 700])
def test_pixels_at_points_are_those_of_the_whole_image(order, count):
    rng = np.random.default_rng(len(order))
    image = tf.constant(IMAGES['photograph'])
    points = np.sort(rng.choice(45 * 60, count, replace=False))
    arguments = (
        image,
        tuple(operations.OPERATIONS),
        tf.constant(order, tf.int32),
        tf.constant(rng.uniform(size=(len(order), 3)), tf.float32),
    )
    whole = tf.reshape(operations.augment(*arguments), [-1, 3]).numpy()
    np.testing.assert_array_equal(operations.augment(*arguments, points=points), whole[points])


def assert_nearest(pixels, expected, tolerance=0.501):
    """The pixels are the exact values, rounded to uint8; the tolerance admits either neighbour of a tie."""
    assert pixels.dtype == tf.uint8
    np.testing.assert_allclose(pixels.numpy().astype(np.float64), expected, rtol=0, atol=tolerance)
