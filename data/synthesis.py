"""Simulated anomalies: a normal image and a texture become one training example.

An example is a pure function of (seed, position): every number is drawn from a key made of the two, so an example does
not depend on the process, the thread, the batch or the host that makes it. Pixels are RGB in uint8 from end to end.

References:
    Zavrtanik, Kristan, Skocaj, DRAEM, ICCV 2021, section 3.3 (preset `paper`), and the authors' released code (preset
    `official`). configs/default.py holds both presets and says where they depart from their sources.
"""

import math

import tensorflow as tf

from data.augment import LUMA, OPERATIONS, augment, between, rotate
from data.perlin import perlin_noise
from draem_jax.errors import UserError

MASK_SOURCES = ('perlin', 'rectangle')

# Rectangles have the sizes of CutPaste (Li et al., CVPR 2021); DRAEM's ablation does not state its own.
RECTANGLE_AREA = (0.02, 0.15)
RECTANGLE_ASPECT = (0.3, 3.3)


def make_example(
    images,
    textures,
    seed,
    position,
    *,
    anomaly_probability=0.5,
    rotation_probability=0.3,
    rotation_degrees=90.0,
    opacity=(0.2, 1.0),
    operations=tuple(OPERATIONS),
    operation_count=3,
    mask_source='perlin',
    mask_threshold=(0.5, 0.5),
    max_cells_log2=5,
    min_cell_size=4,
    mask_rotation_degrees=90.0,
    match_grey=False,
    trace=False,
):
    """Makes the training example at one position. The defaults are the preset `official`.

    Args:
        images: uint8 [N, H, W, 3], normal images, RGB, H and W at least 32.
        textures: uint8 [T, H, W, 3], what anomalies are made of; None takes a plain random colour per example, which
            is not augmented.
        seed: int.
        position: int64 scalar tensor, >= 0.
        anomaly_probability: of an example getting a mask at all (a mask may come out empty).
        rotation_probability: of the normal image being rotated.
        rotation_degrees: largest rotation of the normal image, either way; its corners turn black.
        opacity: (lowest, highest) share of the texture inside the mask, uniform; (1, 1) switches blending off.
        operations: names out of augment.OPERATIONS.
        operation_count: how many different ones change a texture, in random order; 0 switches augmentation off.
        mask_source: 'perlin', or 'rectangle' for one upright rectangle of 2 to 15 % of the image.
        mask_threshold: (lowest, highest) value above which noise is anomalous, uniform.
        max_cells_log2: the noise has 2^k cells per axis, k uniform in 0 ... max_cells_log2, drawn for each axis.
        min_cell_size: in pixels, bounds k on small images: noise vanishes on its lattice, so small cells are empty.
        mask_rotation_degrees: largest rotation of the noise, either way.
        match_grey: paste only the luma of a texture into an image without colour, where colour alone would give the
            anomaly away. Ours; neither the paper nor the authors' code does it.
        trace: also return what the anomaly was made from, for people to look at; slower, the same example.

    Returns:
        'image': uint8 [H, W, 3], the normal image, which is the target of the reconstruction.
        'augmented': uint8 [H, W, 3], with the anomaly.
        'mask': uint8 [H, W, 1], 1 where the anomaly is.
        With `trace` also 'texture' and 'augmented_texture', uint8 [H, W, 3], and 'opacity', float32 scalar, all zero
        where the example stays clean.
    """
    assert images.dtype == tf.uint8, f'images are uint8, not {images.dtype}'
    if textures is not None:
        images.shape[1:].assert_is_compatible_with(textures.shape[1:])
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(position, tf.int64)])
    image_key, mask_key, texture_key, operations_key = tf.unstack(tf.random.split(key, 4))

    choice, rotation, angle, anomaly = tf.unstack(_uniform(image_key, 4))
    image = tf.gather(images, _index(choice, tf.shape(images)[0]))
    image = tf.cond(
        rotation < rotation_probability,
        lambda: rotate(image, _angle(angle, rotation_degrees)),
        lambda: image,
    )
    height, width, _ = tf.unstack(tf.shape(image))

    def clean():
        traced = [tf.zeros_like(image), tf.zeros_like(image), tf.constant(0.0)] if trace else []
        return [image, tf.zeros_like(image[..., :1]), *traced]

    def anomalous():
        if mask_source == 'rectangle':
            mask = draw_rectangle(mask_key, height, width)
        else:
            mask = draw_perlin_mask(
                mask_key,
                height,
                width,
                threshold=mask_threshold,
                max_cells_log2=max_cells_log2,
                min_cell_size=min_cell_size,
                rotation_degrees=mask_rotation_degrees,
            )
        is_grey = match_grey and tf.reduce_all(image == image[..., :1])
        texture, share = _draw_texture(texture_key, textures, tf.shape(image), opacity)
        order, numbers = _draw_operations(operations_key, len(operations), 0 if textures is None else operation_count)
        if trace:
            augmented_texture = _turn_grey(augment(texture, operations, order, numbers), is_grey)
            blended = tf.where(mask > 0, blend(image, augmented_texture, share), image)
            return [blended, mask, texture, augmented_texture, share]
        # A mask covers few pixels, and the texture is of no interest outside of them.
        points = tf.where(tf.reshape(mask, [-1]) > 0)[:, 0]
        pixels = tf.reshape(image, [-1, 3])
        material = _turn_grey(augment(texture, operations, order, numbers, points), is_grey)
        blended = blend(tf.gather(pixels, points), material, share)
        augmented = tf.tensor_scatter_nd_update(pixels, points[:, None], blended)
        return [tf.reshape(augmented, tf.shape(image)), mask]

    augmented, mask, *traced = tf.cond(anomaly < anomaly_probability, anomalous, clean)
    H, W = images.shape[1:3]
    example = {
        'image': tf.ensure_shape(image, [H, W, 3]),
        'augmented': tf.ensure_shape(augmented, [H, W, 3]),
        'mask': tf.ensure_shape(mask, [H, W, 1]),
    }
    return example | dict(zip(('texture', 'augmented_texture', 'opacity'), traced, strict=False))


def blend(image, texture, opacity):
    """Lays `opacity` of the texture over the image: uint8 [..., 3] both and the result, rounded."""
    image, texture = tf.cast(image, tf.float32), tf.cast(texture, tf.float32)
    return tf.cast(tf.round(image + opacity * (texture - image)), tf.uint8)


def _turn_grey(pixels, condition):
    """The luma of uint8 [..., 3] in all three channels where the condition holds, a bool or a scalar tensor."""
    if condition is False:
        return pixels
    luma = tf.cast(tf.round(tf.tensordot(tf.cast(pixels, tf.float32), tf.constant(LUMA), 1)), tf.uint8)
    return tf.where(condition, luma, pixels)


def draw_perlin_mask(key, height, width, *, threshold, max_cells_log2, min_cell_size, rotation_degrees):
    """Thresholded, rotated Perlin noise.

    Args:
        key: int64 [2], for the stateless draws.
        height: H, in pixels, int or int32 scalar tensor; `width` likewise.
        threshold, max_cells_log2, min_cell_size, rotation_degrees: see make_example.

    Returns:
        uint8 [H, W, 1] of 0 and 1; may be all zero. The corners that a rotation uncovers are 0.
    """
    numbers_key, angles_key = tf.unstack(tf.random.split(key, 2))
    log2_y, log2_x, angle, level = tf.unstack(_uniform(numbers_key, 4))
    lattice_size = 2**max_cells_log2 + 1
    angles = tf.random.stateless_uniform([lattice_size, lattice_size], angles_key, maxval=2.0 * math.pi)
    cells = [
        tf.bitwise.left_shift(1, _index(log2, 1 + largest_cells_log2(size, max_cells_log2, min_cell_size)))
        for log2, size in ((log2_y, height), (log2_x, width))
    ]
    noise = rotate(perlin_noise(angles, *cells, height, width)[..., None], _angle(angle, rotation_degrees))
    return tf.cast(noise > tf.cast(between(*threshold, level), tf.float32), tf.uint8)


def largest_cells_log2(size, max_cells_log2, min_cell_size):
    """The largest k <= max_cells_log2 that leaves each of 2^k cells `min_cell_size` of `size` pixels; int32, >= 0."""
    cells = tf.constant([2**k for k in range(1, max_cells_log2 + 1)], tf.int32)
    return tf.reduce_sum(tf.cast(cells * min_cell_size <= size, tf.int32))


def draw_rectangle(key, height, width):
    """One upright rectangle inside the image: uint8 [H, W, 1] of 0 and 1. Area and aspect are uniform in logarithm."""
    area, aspect, top, left = tf.unstack(_uniform(key, 4))
    size = tf.cast(tf.stack([height, width]), tf.float64)
    area, aspect = _log_between(*RECTANGLE_AREA, area), _log_between(*RECTANGLE_ASPECT, aspect)
    sides = tf.clip_by_value(tf.round(size * tf.sqrt(tf.stack([area * aspect, area / aspect]))), 1.0, size)
    start = tf.floor(tf.stack([top, left]) * (size - sides + 1.0))
    rows, columns = (
        (tf.range(n, dtype=tf.float64) >= start[axis]) & (tf.range(n, dtype=tf.float64) < start[axis] + sides[axis])
        for axis, n in enumerate(tf.unstack(size))
    )
    return tf.cast(rows[:, None] & columns[None, :], tf.uint8)[..., None]


def check_options(
    *,
    anomaly_probability,
    rotation_probability,
    rotation_degrees,
    opacity,
    operations,
    operation_count,
    mask_source,
    mask_threshold,
    max_cells_log2,
    min_cell_size,
    mask_rotation_degrees,
    match_grey,
):
    """Raises UserError, one line naming the config field, for values that make_example cannot work with."""

    def require(condition, field, found, expected):
        if not condition:
            raise UserError(f'synthesis.{field}: expected {expected}, found {found!r}.')

    def require_range(field, found, low, high):
        ordered = len(found) == 2 and low <= found[0] <= found[1] <= high
        require(ordered, field, found, f'(lowest, highest) within {low} and {high}')

    for field, value in (('anomaly_probability', anomaly_probability), ('rotation_probability', rotation_probability)):
        require(0.0 <= value <= 1.0, field, value, 'a probability between 0 and 1')
    for field, value in (('rotation_degrees', rotation_degrees), ('mask_rotation_degrees', mask_rotation_degrees)):
        require(0.0 <= value <= 180.0, field, value, 'degrees between 0 and 180')
    require_range('opacity', opacity, 0.0, 1.0)
    require(opacity[1] > 0.0, 'opacity', opacity, 'a highest value above 0, or no anomaly can be seen')
    known = ', '.join(OPERATIONS)
    for name in operations:
        require(name in OPERATIONS, 'operations', name, f'names out of {known}')
    require(len(set(operations)) == len(operations), 'operations', operations, 'every name once')
    require(
        0 <= operation_count <= len(operations),
        'operation_count',
        operation_count,
        f'0 to {len(operations)}, the number of synthesis.operations, which are drawn without replacement',
    )
    require(mask_source in MASK_SOURCES, 'mask_source', mask_source, f'one of {", ".join(MASK_SOURCES)}')
    # Below 0 the corners that the rotation uncovers would count; no noise exceeds 1.
    require_range('mask_threshold', mask_threshold, 0.0, 1.0)
    require(isinstance(match_grey, bool), 'match_grey', match_grey, 'True or False')
    require(0 <= max_cells_log2 <= 8, 'max_cells_log2', max_cells_log2, '0 to 8, for 1 to 256 cells')
    require(min_cell_size >= 2, 'min_cell_size', min_cell_size, 'at least 2 pixels, for noise is 0 on its lattice')


def _draw_texture(key, textures, shape, opacity):
    """A texture, uint8 [H, W, 3], and its opacity, in (lowest, highest]."""
    choice, share, *colour = tf.unstack(_uniform(key, 5))
    if textures is None:
        texture = tf.broadcast_to(tf.cast(tf.stack(colour) * 256.0, tf.uint8), shape)
    else:
        texture = tf.gather(textures, _index(choice, tf.shape(textures)[0]))
    lowest, highest = opacity
    return texture, tf.cast(between(highest, lowest, share), tf.float32)


def _draw_operations(key, available, count):
    """`count` different ones of `available` operations in random order, int32 [count]; their numbers, [count, 3]."""
    numbers = tf.random.stateless_uniform([available + 3 * count], key)
    order = tf.math.top_k(numbers[:available], count).indices
    return order, tf.reshape(numbers[available:], [count, 3])


def _uniform(key, count):
    """`count` numbers in [0, 1): in float64, so that every one of many images is as likely as the next."""
    return tf.random.stateless_uniform([count], key, dtype=tf.float64)


def _index(u, count):
    """Maps u in [0, 1) onto 0 ... count - 1."""
    return tf.cast(u * tf.cast(count, tf.float64), tf.int32)


def _log_between(low, high, u):
    """Maps u in [0, 1) onto [low, high), uniform in logarithm."""
    return tf.exp(between(math.log(low), math.log(high), u))


def _angle(u, degrees):
    """Maps u in [0, 1) onto [-degrees, degrees)."""
    return tf.cast(between(-degrees, degrees, u), tf.float32)
