"""OpenSimplex noise, computed on a coarse grid and enlarged: at 12 us a point, a field at full size takes seconds.

References:
    Perlin's simplex noise, SIGGRAPH 2001 course notes; the package `opensimplex`.
"""

import functools

import cv2
import numpy as np
import opensimplex

# A new generator costs 1 ms. So one serves all fields, which differ by a random offset.
_SIMPLEX = opensimplex.OpenSimplex(seed=0)

# Brings `noise` to the height of Perlin noise, so that one threshold serves both: over all scales 5.3 % of the scaled
# noise exceed one half, and 5.5 % of Perlin noise.
TO_PERLIN = 0.85


def noise(rng: np.random.Generator, cells_y: int, cells_x: int, size: tuple[int, int]) -> np.ndarray:
    """A smooth random field.

    Args:
        rng: draws the place in the endless noise.
        cells_y: about how many hills there are down the image.
        cells_x: the same across the image.
        size: (height, width) in pixels.

    Returns:
        float64 [height, width], within about -1 and 1.
    """
    y_offset, x_offset = rng.uniform(0, 10_000, 2)
    y, x = (np.linspace(0, cells, 3 * cells + 1) for cells in (cells_y, cells_x))
    small = _SIMPLEX.noise2array(x_offset + x, y_offset + y)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


@functools.lru_cache(maxsize=1)
def draw_bank(
    count: int,
    size: tuple[int, int],
    largest_log2_y: int,
    largest_log2_x: int,
    smallest_log2_y: int = 0,
    smallest_log2_x: int = 0,
) -> np.ndarray:
    """Fields of many scales, to cut masks from; a few hundred take a few seconds.

    Args:
        count: F, the number of fields; field k is the same whatever the count.
        size: (height, width) in pixels.
        largest_log2_y: a field has 2^k cells down the image, k uniform from `smallest_log2_y` to this.
        largest_log2_x: the same across the image.
        smallest_log2_y, smallest_log2_x: where k begins.

    Returns:
        float16 [F, height, width], as high as Perlin noise; read-only.
    """
    bank = np.empty((count, *size), np.float16)
    for index in range(count):
        rng = np.random.default_rng(index)
        smallest, largest = [smallest_log2_y, smallest_log2_x], np.array([largest_log2_y, largest_log2_x])
        log2_y, log2_x = rng.integers(smallest, 1 + largest)
        bank[index] = TO_PERLIN * noise(rng, 2**log2_y, 2**log2_x, size)
    bank.setflags(write=False)
    return bank
