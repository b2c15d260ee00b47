"""Where an anomaly goes: masks of several shapes, and what confines them.

A mask is uint8 [H, W, 1] of 0 and 1 and may come out empty.

References:
    Zavrtanik et al., DRAEM, ICCV 2021, section 3.3: Perlin noise above a threshold; table 3: rectangles.
"""

import math
from typing import Any

import tensorflow as tf

from data.synthesis import simplex
from data.synthesis.draws import angle_between, between, index_below, log_between, uniform
from data.synthesis.lookup import take
from data.synthesis.operations import rotate
from data.synthesis.perlin import perlin_noise

SOURCES = ('perlin', 'simplex', 'rectangle', 'union')

# Rectangles have the sizes of CutPaste (Li et al., CVPR 2021); DRAEM's ablation does not state its own.
RECTANGLE_AREA = (0.02, 0.15)
RECTANGLE_ASPECT = (0.3, 3.3)

SIMPLEX_FIELDS = 256  # Rotated and mirrored, they make many more masks.

# A gap in an object belongs to the object if it is at most this part of the image's shorter side.
_CLOSED_GAP = 1 / 32


def draw_mask(
    key: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor, *, source: str, **options: Any
) -> tf.Tensor:
    """A mask of one of `SOURCES`.

    Args:
        key: int64 [2], for the stateless draws.
        height: H, in pixels; an int for 'simplex'.
        width: W, in pixels; an int for 'simplex'.
        source: 'perlin'; 'simplex'; 'rectangle': one upright rectangle; 'union': two Perlin masks together.
        **options: of `draw_perlin_mask`; a rectangle needs none.

    Returns:
        uint8 [H, W, 1].
    """
    if source == 'rectangle':
        return draw_rectangle(key, height, width)
    if source == 'simplex':
        return draw_simplex_mask(key, height, width, **options)
    if source == 'union':
        first, second = (draw_perlin_mask(part, height, width, **options) for part in tf.unstack(tf.random.split(key)))
        return tf.maximum(first, second)
    return draw_perlin_mask(key, height, width, **options)


def draw_perlin_mask(
    key: tf.Tensor,
    height: int | tf.Tensor,
    width: int | tf.Tensor,
    *,
    threshold: tuple[float, float],
    max_cells_log2: int,
    min_cell_size: int,
    rotation_degrees: float,
    min_cells_log2: int = 0,
) -> tf.Tensor:
    """Thresholded, rotated Perlin noise.

    Args:
        key: int64 [2], for the stateless draws.
        height: H, in pixels.
        width: W, in pixels.
        threshold: (lowest, highest) value above which noise is anomalous, uniform.
        max_cells_log2: the noise has 2^k cells per axis, k uniform in 0 ... max_cells_log2, drawn for each axis.
        min_cell_size: in pixels, bounds k on small images: noise vanishes on its lattice, so small cells are empty.
        rotation_degrees: largest rotation of the noise, either way.
        min_cells_log2: where k begins, unless `min_cell_size` allows less.

    Returns:
        uint8 [H, W, 1]. The corners that a rotation uncovers are 0.
    """
    numbers_key, angles_key = tf.unstack(tf.random.split(key, 2))
    log2_y, log2_x, angle, level = tf.unstack(uniform(numbers_key, 4))
    lattice_size = 2**max_cells_log2 + 1
    angles = tf.random.stateless_uniform([lattice_size, lattice_size], angles_key, maxval=2.0 * math.pi)
    cells_y, cells_x = (
        tf.bitwise.left_shift(1, _draw_log2(largest_cells_log2(size, max_cells_log2, min_cell_size), min_cells_log2, u))
        for u, size in ((log2_y, height), (log2_x, width))
    )
    return _cut(perlin_noise(angles, cells_y, cells_x, height, width), angle, level, threshold, rotation_degrees)


def draw_simplex_mask(
    key: tf.Tensor,
    height: int,
    width: int,
    *,
    threshold: tuple[float, float],
    max_cells_log2: int,
    min_cell_size: int,
    rotation_degrees: float,
    min_cells_log2: int = 0,
) -> tf.Tensor:
    """As `draw_perlin_mask`, from a randomly mirrored field of a bank of `SIMPLEX_FIELDS`, which is drawn once."""
    largest = [largest_cells_log2(size, max_cells_log2, min_cell_size) for size in (height, width)]
    smallest = [min(min_cells_log2, k) for k in largest]
    bank = simplex.draw_bank(SIMPLEX_FIELDS, (height, width), *largest, *smallest)
    choice, flip_y, flip_x, angle, level = tf.unstack(uniform(key, 5))
    field = tf.cast(take(bank, index_below(len(bank), choice)), tf.float32)
    field = tf.where(flip_y < 0.5, field[::-1], field)
    field = tf.where(flip_x < 0.5, field[:, ::-1], field)
    return _cut(field, angle, level, threshold, rotation_degrees)


def _cut(
    noise: tf.Tensor, angle: tf.Tensor, level: tf.Tensor, threshold: tuple[float, float], rotation_degrees: float
) -> tf.Tensor:
    """Rotates noise, float32 [H, W], and marks where it exceeds a threshold.

    `angle` and `level`, in [0, 1), choose the rotation and the threshold from their ranges.
    """
    rotated = rotate(noise[..., None], angle_between(rotation_degrees, angle))
    return tf.cast(rotated > tf.cast(between(*threshold, level), tf.float32), tf.uint8)


def _draw_log2(largest: int | tf.Tensor, smallest: int, u: tf.Tensor) -> tf.Tensor:
    """k in `smallest` ... `largest`, int32, as u in [0, 1) says; `largest` where that is below `smallest`."""
    if not smallest:
        return index_below(1 + largest, u)
    smallest = tf.minimum(smallest, largest)
    return smallest + index_below(1 + largest - smallest, u)


def largest_cells_log2(size: int | tf.Tensor, max_cells_log2: int, min_cell_size: int) -> int | tf.Tensor:
    """The largest k in 0 ... max_cells_log2 for which each of 2^k cells keeps `min_cell_size` of `size` pixels.

    The result is an int where `size` is one, else an int32 scalar tensor.
    """
    fits = [2**k * min_cell_size <= size for k in range(1, max_cells_log2 + 1)]
    return tf.reduce_sum(tf.cast(tf.stack(fits), tf.int32)) if tf.is_tensor(size) and fits else sum(fits)


def draw_rectangle(key: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """One upright rectangle inside the image: uint8 [H, W, 1]. Area and aspect are uniform in logarithm."""
    area, aspect, top, left = tf.unstack(uniform(key, 4))
    size = tf.cast(tf.stack([height, width]), tf.float64)
    area, aspect = log_between(*RECTANGLE_AREA, area), log_between(*RECTANGLE_ASPECT, aspect)
    sides = tf.clip_by_value(tf.round(size * tf.sqrt(tf.stack([area * aspect, area / aspect]))), 1.0, size)
    start = tf.floor(tf.stack([top, left]) * (size - sides + 1.0))
    rows, columns = (
        (tf.range(n, dtype=tf.float64) >= start[axis]) & (tf.range(n, dtype=tf.float64) < start[axis] + sides[axis])
        for axis, n in enumerate(tf.unstack(size))
    )
    return tf.cast(rows[:, None] & columns[None, :], tf.uint8)[..., None]


def foreground(image: tf.Tensor, threshold: int) -> tf.Tensor:
    """Where an object lies in front of a plain background.

    The background's colour is the median of the image's outermost pixels. Pixels that differ from it belong to the
    object, and so do small gaps between them.

    Args:
        image: uint8 [H, W, 3].
        threshold: levels of 255 by which a pixel, averaged over 3x3, must differ in some channel.

    Returns:
        uint8 [H, W, 1], 1 on the object.
    """
    shape = tf.shape(image)
    border = tf.concat([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]], axis=0)
    background = tf.sort(border, axis=0)[tf.shape(border)[0] // 2]
    smooth = tf.nn.avg_pool2d(tf.cast(image, tf.float32)[None], 3, 1, 'SAME')
    difference = tf.reduce_max(tf.abs(smooth - tf.cast(background, tf.float32)), axis=-1, keepdims=True)
    differs = tf.cast(difference > float(threshold), tf.float32)
    if image.shape[0] is None:
        raise ValueError('The size of the gaps follows from the size of the image, which must be known.')
    gap = 2 * round(_CLOSED_GAP * min(image.shape[:2]) / 2) + 1
    grown = tf.nn.max_pool2d(differs, gap, 1, 'SAME')
    closed = -tf.nn.max_pool2d(-grown, gap, 1, 'SAME')
    return tf.reshape(tf.cast(closed, tf.uint8), [shape[0], shape[1], 1])


def noticeable(mask: tf.Tensor, augmented: tf.Tensor, image: tf.Tensor, levels: int) -> tf.Tensor:
    """A mask without the pixels that the anomaly changed by less than `levels` in every channel.

    Args:
        mask: uint8 [..., 1].
        augmented: uint8 [..., 3], with the anomaly.
        image: uint8 [..., 3], without it.
        levels: out of 255.

    References:
        Guo et al., Just Noticeable Learning for Unsupervised Anomaly Localization and Detection, ICME 2022 (JNLD),
        which clears the label where a change cannot be seen; its model of what can be seen is finer than a threshold.
    """
    change = tf.abs(tf.cast(augmented, tf.int32) - tf.cast(image, tf.int32))
    return mask * tf.cast(tf.reduce_max(change, axis=-1, keepdims=True) >= levels, tf.uint8)
