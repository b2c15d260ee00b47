"""The means by which surfaces are drawn: coordinates, noise, lines, shapes.

A field is float [SIZE, SIZE]; lengths are in pixels, colours RGB in 0..1.
"""

import dataclasses
import functools

import numpy as np

from data.synthesis import simplex

SIZE = 128


@dataclasses.dataclass(frozen=True)
class Defect:
    """What to draw wrong, and how clearly.

    Attributes:
        kind: one of the category's defect kinds.
        contrast: 1 for a clear defect, less for a faint one.
        scale: 1 for the usual extent, less for a small one.
        rng: the random stream of the place, form and colour.
    """

    kind: str
    contrast: float
    scale: float
    rng: np.random.Generator


@functools.cache
def grid() -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates (y, x), each float [SIZE, SIZE]; do not write to them."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    return y, x


def smoothstep(low: float | np.ndarray, high: float | np.ndarray, value: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, and a smooth ramp between them; `low` may be the larger one."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`first` where weight is 0 and `second` where it is 1; colours [3] and weights [SIZE, SIZE] broadcast."""
    weight = np.asarray(weight)[..., None]
    return first * (1 - weight) + second * weight


def smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """OpenSimplex noise of about `cells` hills across the image, in -1..1."""
    return simplex.noise(rng, cells, cells, (SIZE, SIZE))


def along(table: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Reads a table at real positions, interpolated and repeated without end.

    Args:
        table: [length] values.
        position: real positions in steps of the table, any shape.
    """
    low = np.floor(position).astype(np.int64)
    part = position - low
    return table[low % len(table)] * (1 - part) + table[(low + 1) % len(table)] * part


def draw_place(rng: np.random.Generator) -> np.ndarray:
    """A point (y, x) away from the border."""
    return rng.uniform(0.22 * SIZE, 0.78 * SIZE, 2)


def blob(
    rng: np.random.Generator,
    place: np.ndarray,
    radius: float,
    *,
    roughness: float = 0.15,
    elongation: float = 1.0,
) -> np.ndarray:
    """Depth inside a rounded shape: 1 at its centre, 0 on its outline, negative outside.

    Args:
        rng: stream of the form.
        place: (y, x) of the centre.
        radius: mean radius.
        roughness: how far the outline leaves an ellipse, as part of the radius.
        elongation: length over width.
    """
    y, x = grid()
    angle = rng.uniform(0, np.pi)
    dy, dx = y - place[0], x - place[1]
    long = (dx * np.cos(angle) + dy * np.sin(angle)) / np.sqrt(elongation)
    wide = (dy * np.cos(angle) - dx * np.sin(angle)) * np.sqrt(elongation)
    direction = np.arctan2(wide, long)
    outline = np.ones_like(y)
    for waves in (2, 3, 5):
        outline += (
            roughness / np.sqrt(waves) * rng.uniform(-1, 1) * np.cos(waves * direction + rng.uniform(0, 2 * np.pi))
        )
    return 1 - np.hypot(long, wide) / (radius * outline)


def curve(rng: np.random.Generator, length: float, *, angle: float, bend: float) -> tuple[np.ndarray, np.ndarray]:
    """A bent line through the image.

    Args:
        rng: stream of the place and the bend.
        length: from end to end.
        angle: direction in radians, 0 along x.
        bend: how far the middle leaves the straight line, as part of the length.

    Returns:
        distance: signed distance to the line; the sign tells the side.
        taper: 1 in the middle of the line, falling to 0 at its ends, 0 beyond.
    """
    y, x = grid()
    place = draw_place(rng)
    along_line = (x - place[1]) * np.cos(angle) + (y - place[0]) * np.sin(angle)
    across_line = (y - place[0]) * np.cos(angle) - (x - place[1]) * np.sin(angle)
    t = along_line / (length / 2)
    arc = bend * length * rng.uniform(-1, 1)
    wave = 0.25 * bend * length * rng.uniform(-1, 1)
    line = arc * (1 - t * t) + wave * np.sin(3 * t)
    slope = (-2 * arc * t + 3 * wave * np.cos(3 * t)) / (length / 2)
    return (across_line - line) / np.sqrt(1 + slope**2), smoothstep(1.0, 0.8, np.abs(t))


def draw_hue(
    rng: np.random.Generator,
    hue: tuple[float, float],
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> np.ndarray:
    """An RGB colour [3] in 0..1 from three (low, high) ranges; hue in turns."""
    h, s, v = (rng.uniform(*limits) for limits in (hue, saturation, value))
    colour = np.clip(np.abs((h + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1, 0, 1)
    return v * (1 - s + s * colour)
