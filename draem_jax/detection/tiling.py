"""Cuts images larger than the network into overlapping tiles, and joins the tiles' maps without seams.

    tiles = cut(image, size)
    whole = blend(maps_of(tiles), image.shape[:2], size)

Where tiles overlap, their maps cross-fade along a raised cosine: it trusts the middle of a tile more than its border,
where the network sees padding. The weights of all tiles add up to 1 at every pixel.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

MIN_OVERLAP = 0.25  # as a part of a tile's side


def cut(image: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Tiles that cover an image, row by row.

    Args:
        image: [H, W, C] uint8. If it is smaller than a tile, its mirror image continues it below and to the right.
        size: (height, width) of a tile.

    Returns:
        [height, width, C] arrays, which are views unless the image was continued. An image of the size of a tile is its
        only tile.
    """
    height, width = size
    below, right = max(0, height - image.shape[0]), max(0, width - image.shape[1])
    if below or right:
        image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT_101)
    tops, lefts = starts(image.shape[0], height), starts(image.shape[1], width)
    return [image[top : top + height, left : left + width] for top in tops for left in lefts]


def count(shape: tuple[int, ...], size: tuple[int, int]) -> int:
    """The number of tiles that `cut` makes of an image of `shape` (height, width)."""
    return math.prod(len(starts(length, side)) for length, side in zip(shape, size, strict=True))


def blend(maps: Sequence[np.ndarray], shape: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """The maps of an image's tiles as one map.

    Args:
        maps: float32 [height, width] in [0, 1], one for each tile of `cut`, in the same order.
        shape: (H, W) of the image.
        size: (height, width) of a tile.

    Returns:
        float32 [H, W] in [0, 1]; the map of a single tile stays as it is.
    """
    height, width = size
    full = np.zeros([max(length, side) for length, side in zip(shape, size, strict=True)], np.float32)
    tops, lefts = starts(full.shape[0], height), starts(full.shape[1], width)
    rows, columns = weights(full.shape[0], height), weights(full.shape[1], width)
    remaining = iter(maps)
    for top, row_weights in zip(tops, rows, strict=True):
        for left, column_weights in zip(lefts, columns, strict=True):
            share = next(remaining) * row_weights[:, None] * column_weights
            full[top : top + height, left : left + width] += share
    return np.minimum(full[: shape[0], : shape[1]], 1)  # Rounding can exceed 1 by one part in 10^7.


def starts(length: int, side: int) -> list[int]:
    """Where tiles of `side` pixels start along `length` pixels: evenly spread, the first at 0, the last at the end."""
    number = 1 + math.ceil(max(0, length - side) / (side - math.ceil(MIN_OVERLAP * side)))
    return [round(position) for position in np.linspace(0, max(0, length - side), number)]


def weights(length: int, side: int) -> np.ndarray:
    """float32 [tiles, side]: how much each tile counts at its pixels along one axis; the tiles add up to 1."""
    window = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    positions = starts(length, side)
    total = np.zeros(max(length, side))
    for start in positions:
        total[start : start + side] += window
    return np.stack([window / total[start : start + side] for start in positions]).astype(np.float32)


def highest_mean(anomaly_map: np.ndarray, window_size: int, count: int = 1) -> np.float32:
    """`scoring.image_score` of one map of any size, on the host: a device would compile anew for each size.

    Args:
        anomaly_map: float32 [H, W].
        window_size: side of the square window in pixels, odd.
        count: how many of the highest means are averaged, at least 1; all where the map has fewer pixels.

    Returns:
        The highest mean over a window, float32; the zeros beyond the border count.
    """
    window = (window_size, window_size)
    means = cv2.boxFilter(anomaly_map, -1, window, borderType=cv2.BORDER_CONSTANT).ravel()
    return np.partition(means, -min(count, means.size))[-count:].mean()
