"""OpenSimplex noise, drawn coarsely and enlarged: a point costs 12 us, so a field at full size would take seconds.

References:
    Perlin's simplex noise, SIGGRAPH 2001 course notes; the package `opensimplex`.
"""

import functools

import cv2
import numpy as np
import opensimplex

# A generator costs 1 ms per seed: one serves all, and a random offset makes a new field.
_SIMPLEX = opensimplex.OpenSimplex(seed=0)

# What brings `noise` to the height of Perlin noise: over all scales 5.3 % of it then exceed one half, of Perlin noise
# 5.5 %, so one threshold serves both.
TO_PERLIN = 0.85


def noise(rng, cells_y, cells_x, size):
    """A smooth random field.

    Args:
        rng: NumPy generator that the place in the endless noise is drawn from.
        cells_y: about how many hills there are down the image; `cells_x` across it.
        size: (height, width) in pixels.

    Returns:
        float64 [height, width], within about -1 and 1.
    """
    y_offset, x_offset = rng.uniform(0, 10_000, 2)
    y, x = (np.linspace(0, cells, 3 * cells + 1) for cells in (cells_y, cells_x))
    small = _SIMPLEX.noise2array(x_offset + x, y_offset + y)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


@functools.lru_cache(maxsize=1)
def draw_bank(count, size, largest_log2_y, largest_log2_x):
    """Fields of many scales, to cut masks from: a few seconds for a few hundred.

    Args:
        count: F, the number of fields; field k is the same whatever the count.
        size: (height, width) in pixels.
        largest_log2_y: a field has 2^k cells down the image, k uniform from 0 to this; `largest_log2_x` across it.

    Returns:
        float16 [F, height, width], as high as Perlin noise; read-only.
    """
    bank = np.empty((count, *size), np.float16)
    for index in range(count):
        rng = np.random.default_rng(index)
        log2_y, log2_x = rng.integers(0, 1 + np.array([largest_log2_y, largest_log2_x]))
        bank[index] = TO_PERLIN * noise(rng, 2**log2_y, 2**log2_x, size)
    bank.setflags(write=False)
    return bank
