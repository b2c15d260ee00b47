"""Operations that change the look of an anomaly texture.

All operations have one contract: they take RGB in uint8 and return RGB in uint8 of the same shape. Every one is a
deterministic function; OPERATIONS maps each name to the operation with its strength made from three uniform numbers.

Pixelwise operations take pixels of any shape [..., 3]. Those in `WHOLE_IMAGE_OPERATIONS` look at neighbours or at the
histogram and take [H, W, 3].

References:
    Zavrtanik et al., DRAEM, ICCV 2021: three operations per texture, after RandAugment; strengths from the authors'
    released code (imgaug). Where Pillow's ImageOps or ImageEnhance has the operation, the result is Pillow's.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import tensorflow as tf

from data.synthesis.draws import Number, between

# ITU-R 601 luma of RGB, the Y of YCbCr, as a matrix that writes it to all three channels at once.
LUMA = [[0.299] * 3, [0.587] * 3, [0.114] * 3]


def gamma_contrast(pixels: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
    """Raises every channel, as a value in [0, 1], to its own exponent.

    Args:
        pixels: uint8 [..., 3].
        gamma: float32 [3], exponent of each channel; below 1 brightens.

    Returns:
        uint8 [..., 3].
    """
    level = tf.range(256, dtype=tf.float32) / 255.0
    return _look_up(pixels, _to_uint8(255.0 * level ** gamma[:, None]))


def brightness(pixels: tf.Tensor, scale: Number, offset: Number, offset_first: bool | tf.Tensor) -> tf.Tensor:
    """Scales the luma and shifts it, in either order, clipped to [0, 255] after each; chroma stays.

    The authors change the lightness of a colour space drawn from six; this is always the Y of YCbCr (and YUV).

    Args:
        pixels: uint8 [..., 3].
        scale: factor of the luma.
        offset: in levels of 255.
        offset_first: whether the offset comes before the scale.

    Returns:
        uint8 [..., 3].
    """
    pixels = tf.cast(pixels, tf.float32)
    luma = tf.reshape(tf.reshape(pixels, [-1, 3]) @ tf.constant(LUMA), tf.shape(pixels))
    first_scale, last_scale = tf.where(offset_first, 1.0, scale), tf.where(offset_first, scale, 1.0)
    first_offset, last_offset = tf.where(offset_first, offset, 0.0), tf.where(offset_first, 0.0, offset)
    changed = tf.clip_by_value(luma * first_scale + first_offset, 0.0, 255.0)
    changed = tf.clip_by_value(changed * last_scale + last_offset, 0.0, 255.0)
    return _to_uint8(pixels + (changed - luma))


def hue_saturation(pixels: tf.Tensor, hue_turns: Number, saturation_shift: Number) -> tf.Tensor:
    """Turns the hue and shifts the saturation of HSV; grey counts as an unsaturated red.

    Args:
        pixels: uint8 [..., 3].
        hue_turns: 1 is the full circle.
        saturation_shift: added to a saturation within [0, 1], to which the sum is clipped.

    Returns:
        uint8 [..., 3].
    """
    hsv = tf.image.rgb_to_hsv(tf.cast(pixels, tf.float32) / 255.0)
    hsv += tf.stack([hue_turns, saturation_shift, 0.0])
    hsv -= tf.floor(hsv) * [1.0, 0.0, 0.0]  # only the hue is a circle
    return _to_uint8(255.0 * tf.image.hsv_to_rgb(tf.clip_by_value(hsv, 0.0, 1.0)))


def solarize(pixels: tf.Tensor, threshold: int | tf.Tensor) -> tf.Tensor:
    """Inverts every value that is at least `threshold` (uint8); pixels uint8 [..., 3] in and out."""
    return tf.where(pixels < threshold, pixels, 255 - pixels)


def posterize(pixels: tf.Tensor, bits: int | tf.Tensor) -> tf.Tensor:
    """Keeps the highest `bits` (1 to 8) of every value; pixels uint8 [..., 3] in and out."""
    kept = 256 - tf.bitwise.left_shift(1, 8 - bits)
    return tf.bitwise.bitwise_and(pixels, tf.cast(kept, tf.uint8))


def invert(pixels: tf.Tensor) -> tf.Tensor:
    """255 minus every value; pixels uint8 [..., 3] in and out."""
    return 255 - pixels


def sharpness(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """Blurs with a factor below 1 and sharpens with one above it, as Pillow's ImageEnhance.Sharpness.

    Args:
        image: uint8 [H, W, 3].
        factor: 0 is the 3x3 smoothed image, 1 the image itself, 2 as far from it the other way.

    Returns:
        uint8 [H, W, 3]; the outermost pixels stay as they are.
    """
    image = tf.cast(image, tf.float32)
    centre = image[1:-1, 1:-1]
    columns = image[:-2] + image[1:-1] + image[2:]
    box = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]
    smooth = tf.floor((box + 4.0 * centre) / 13.0 + 0.5)
    inner = tf.clip_by_value(smooth + factor * (centre - smooth), 0.0, 255.0) - centre
    # Pillow truncates; the cast does too.
    return tf.cast(image + tf.pad(inner, [[1, 1], [1, 1], [0, 0]]), tf.uint8)


def autocontrast(image: tf.Tensor, cutoff: int | tf.Tensor) -> tf.Tensor:
    """Stretches every channel to [0, 255], ignoring its darkest and brightest pixels, as Pillow's ImageOps.

    Args:
        image: uint8 [H, W, 3].
        cutoff: below 50, the percentage of pixels ignored at each end.

    Returns:
        uint8 [H, W, 3]; a channel left with a single value stays as it is.
    """
    counts = _histogram(image)
    ignored = tf.reduce_sum(counts[0]) * cutoff // 100
    low = tf.argmax(tf.cumsum(counts, axis=1) > ignored, axis=1)
    high = 255 - tf.argmax(tf.cumsum(counts[:, ::-1], axis=1) > ignored, axis=1)
    level = tf.range(256, dtype=tf.float64)
    scale = 255.0 / tf.cast(tf.maximum(high - low, 1), tf.float64)[:, None]
    # Pillow adds the two rounded products. So must this: truncation would show another rounding near a whole number.
    stretched = tf.clip_by_value(level * scale - tf.cast(low, tf.float64)[:, None] * scale, 0.0, 255.0)
    return _look_up(image, tf.cast(tf.where((high > low)[:, None], stretched, level), tf.uint8))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Spreads the values of every channel evenly over [0, 255], as Pillow's ImageOps; image uint8 [H, W, 3]."""
    counts = _histogram(image)
    below = tf.cumsum(counts, axis=1, exclusive=True)
    brightest = 255 - tf.argmax(counts[:, ::-1] > 0, axis=1)
    step = tf.gather(below, brightest, axis=1, batch_dims=1)[:, None] // 255
    spread = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
    return _look_up(image, tf.cast(tf.where(step > 0, spread, tf.range(256)), tf.uint8))


def rotate(image: tf.Tensor, degrees: Number, *, mirrors: bool = False) -> tf.Tensor:
    """Rotates an image about its centre: bilinear, same size.

    Args:
        image: uint8 or float32 [H, W, C].
        degrees: counter-clockwise.
        mirrors: whether the image goes on beyond its border as in a mirror; otherwise it is 0 there.

    Returns:
        [H, W, C] of the image's dtype.
    """
    shape = tf.shape(image)
    centre_y, centre_x = tf.unstack((tf.cast(shape[:2], tf.float32) - 1.0) / 2.0)
    angle = degrees * (math.pi / 180.0)
    cos, sin = tf.cos(angle), tf.sin(angle)
    # The transform maps a position of the output to one of the input.
    offset_x = centre_x - cos * centre_x + sin * centre_y
    offset_y = centre_y - sin * centre_x - cos * centre_y
    transform = tf.stack([cos, -sin, offset_x, sin, cos, offset_y, 0.0, 0.0])
    rotated = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=transform[None],
        output_shape=shape[:2],
        fill_value=0.0,
        interpolation='BILINEAR',
        fill_mode='REFLECT' if mirrors else 'CONSTANT',
    )[0]
    return _to_uint8(rotated) if image.dtype == tf.uint8 else rotated


# Name -> function of pixels and `u`, float32 [3] in [0, 1), which makes the strength.
OPERATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    'gamma_contrast': lambda pixels, u: gamma_contrast(pixels, between(0.5, 2.0, u)),
    'brightness': lambda pixels, u: brightness(
        pixels, scale=between(0.8, 1.2, u[0]), offset=tf.floor(between(-30.0, 31.0, u[1])), offset_first=u[2] < 0.5
    ),
    'sharpness': lambda image, u: sharpness(image, between(0.0, 2.0, u[0])),
    'hue_saturation': lambda pixels, u: hue_saturation(
        pixels, between(-50 / 255, 50 / 255, u[0]), between(-50 / 255, 50 / 255, u[1])
    ),
    'solarize': lambda pixels, u: tf.cond(
        u[0] < 0.5,
        lambda: solarize(pixels, tf.cast(tf.math.ceil(between(32.0, 128.0, u[1])), tf.uint8)),
        lambda: pixels,
    ),
    'posterize': lambda pixels, u: posterize(pixels, tf.cast(between(1.0, 9.0, u[0]), tf.int32)),
    'invert': lambda pixels, u: invert(pixels),
    'autocontrast': lambda image, u: autocontrast(image, tf.cast(between(0.0, 21.0, u[0]), tf.int32)),
    'equalize': lambda image, u: equalize(image),
    'rotate': lambda image, u: rotate(image, between(-45.0, 45.0, u[0])),
}

WHOLE_IMAGE_OPERATIONS = frozenset({'sharpness', 'autocontrast', 'equalize', 'rotate'})


def augment(
    image: tf.Tensor,
    operations: Sequence[str],
    order: tf.Tensor,
    numbers: tf.Tensor,
    points: tf.Tensor | None = None,
) -> tf.Tensor:
    """Applies some of the operations, one after the other.

    Args:
        image: uint8 [H, W, 3].
        operations: names in OPERATIONS.
        order: int32 [K], which of `operations` to apply, in this order; K is static.
        numbers: float32 [K, 3] in [0, 1), the strength of each.
        points: int [P], pixels counted row by row: returns their values alone. This saves time, for what follows the
            last operation that needs the whole image is done for these pixels only.

    Returns:
        uint8 [H, W, 3], or [P, 3] with `points`.
    """
    assert image.dtype == tf.uint8, f'textures are uint8, not {image.dtype}'
    shape = tf.shape(image)
    count = order.shape[0]
    whole_count = _whole_image_slots(operations, order)

    def perform(name: str, pixels: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        if name in WHOLE_IMAGE_OPERATIONS:
            return tf.reshape(OPERATIONS[name](tf.reshape(pixels, shape), u), [-1, 3])
        return OPERATIONS[name](pixels, u)

    def narrow(pixels: tf.Tensor, slot: int) -> tf.Tensor:
        if points is None:
            return pixels
        return tf.cond(tf.equal(whole_count, slot), lambda: tf.gather(pixels, points), lambda: pixels)

    pixels = tf.reshape(image, [-1, 3])
    for slot in range(count):
        pixels = narrow(pixels, slot)
        pixels = tf.switch_case(order[slot], [partial(perform, name, pixels, numbers[slot]) for name in operations])
    pixels = narrow(pixels, count)
    return tf.reshape(pixels, shape) if points is None else pixels


def _whole_image_slots(operations: Sequence[str], order: tf.Tensor) -> tf.Tensor:
    """How many slots of `order`, from the first, must be done for the whole image: int32 scalar."""
    count = order.shape[0]
    if count == 0:
        return tf.constant(0)
    needs_whole_image = tf.gather([name in WHOLE_IMAGE_OPERATIONS for name in operations], order)
    return tf.reduce_max(tf.where(needs_whole_image, tf.range(1, count + 1), 0))


def _to_uint8(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(values), 0.0, 255.0), tf.uint8)


def _look_up(pixels: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Replaces every value by its entry in the channel's table: pixels uint8 [..., 3], table uint8 [3, 256]."""
    return tf.gather(tf.reshape(table, [-1]), tf.cast(pixels, tf.int32) + [0, 256, 512])


def _histogram(image: tf.Tensor) -> tf.Tensor:
    """int32 [3, 256], how often each value occurs in each channel."""
    entries = tf.reshape(tf.cast(image, tf.int32) + [0, 256, 512], [-1])
    counts = tf.raw_ops.DenseBincount(input=entries, size=768, weights=tf.constant([], tf.int32))
    return tf.reshape(counts, [3, 256])
