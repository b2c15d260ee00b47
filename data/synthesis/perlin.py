"""Perlin's gradient noise for any image size and any number of cells, from one graph.

The noise is bilinear in the per-axis lattice weights, so one map is two small matrix products. A coarser noise uses the
first corner of the same lattice of gradients: the number of cells is a value, not a shape.

References:
    Perlin, Improving Noise, SIGGRAPH 2002 (the quintic fade).
"""

import numpy as np
import tensorflow as tf


def fade(t: tf.Tensor) -> tf.Tensor:
    """Perlin's quintic step from 0 to 1: first and second derivatives vanish at both ends."""
    return t * t * t * (t * (t * 6.0 - 15.0) + 10.0)


def perlin_noise(
    angles: tf.Tensor | np.ndarray,
    cells_y: int | tf.Tensor,
    cells_x: int | tf.Tensor,
    height: int | tf.Tensor,
    width: int | tf.Tensor,
) -> tf.Tensor:
    """Gradient noise with `cells_y` x `cells_x` cells.

    Args:
        angles: float32 [L, L], directions of the unit gradients on the lattice, in radians from the x axis. L is larger
            than both numbers of cells; the lattice beyond them is not used.
        cells_y: int32, cells down the image; need not divide the height.
        cells_x: int32, cells across the image; need not divide the width.
        height: H, in pixels.
        width: W, in pixels.

    Returns:
        float32 [H, W], within -1 and 1 (one wave fills a cell with sqrt(2) times the dot product of offset and
        gradient). Pixel (0, 0) lies on the lattice, and every pixel on the lattice is 0.
    """
    lattice_size = tf.shape(angles)[0]
    near_y, slope_y = _lattice_weights(height, cells_y, lattice_size)
    near_x, slope_x = _lattice_weights(width, cells_x, lattice_size)
    rows = tf.concat([slope_y @ tf.sin(angles), near_y @ tf.cos(angles)], axis=1)
    columns = tf.concat([near_x, slope_x], axis=1)
    return tf.sqrt(2.0) * tf.matmul(rows, columns, transpose_b=True)


def _lattice_weights(
    size: int | tf.Tensor, cells: int | tf.Tensor, lattice_size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """How much each lattice line counts at each pixel, float32 [size, L], and the same times the distance from it."""
    position = tf.cast(tf.range(size) * cells, tf.float32) / tf.cast(size, tf.float32)
    distance = position[:, None] - tf.cast(tf.range(lattice_size), tf.float32)
    weight = 1.0 - fade(tf.minimum(tf.abs(distance), 1.0))
    return weight, weight * distance
