"""Textures drawn from a seed: the source of simulated anomalies where no folder of textures is given.

They stand in for the Describable Textures Dataset: many families, each in random colours, scales and directions.
"""

import cv2
import numpy as np


def draw_textures(count: int, size: int | tuple[int, int], seed: int) -> np.ndarray:
    """Draws a bank of textures.

    Args:
        count: number of textures; the families take turns.
        size: in pixels: an integer for both sides, or (height, width).
        seed: texture k depends on (seed, k) and the size alone.

    Returns:
        uint8 [count, height, width, 3], RGB.
    """
    height, width = (size, size) if isinstance(size, int) else size
    textures = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        family = _FAMILIES[index % len(_FAMILIES)]
        textures[index] = _colour(rng, family(rng, *_turned_grid(rng, height, width)))
    return textures


def _turned_grid(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (y, x), turned by a random angle and shifted, in units of the shorter side."""
    y, x = np.mgrid[:height, :width] / min(height, width)
    angle = rng.uniform(0, 2 * np.pi)
    shift = rng.uniform(0, 100, 2)
    return y * np.cos(angle) - x * np.sin(angle) + shift[0], x * np.cos(angle) + y * np.sin(angle) + shift[1]


def _colour(rng: np.random.Generator, field: np.ndarray) -> np.ndarray:
    """Gives each value of a field [H, W] in 0..1 a colour of a random palette: uint8 [H, W, 3]."""
    stops = rng.integers(2, 6)
    palette = rng.uniform(0, 1, (stops, 3))
    # The ends of the palette are far apart, so that no texture is a flat surface.
    ends = rng.permutation([rng.uniform(0, 0.25), rng.uniform(0.75, 1)])
    palette[[0, -1]] = np.clip(ends[:, None] + rng.uniform(-0.4, 0.4, (2, 3)), 0, 1)
    grey = palette.mean(axis=1, keepdims=True)
    palette = grey + (palette - grey) * rng.choice([0, 0.4, 0.7, 1])
    steps = np.linspace(0, 1, stops)
    colours = np.stack([np.interp(field, steps, channel) for channel in palette.T], axis=-1)
    grain = rng.uniform(0, 0.06) * rng.normal(size=field.shape)
    return np.rint(255 * np.clip(colours + grain[..., None], 0, 1)).astype(np.uint8)


# The families. Each draws a field [H, W] in 0..1 from a random stream and turned coordinates [H, W].


def _stripes(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    wave = np.sin(
        2 * np.pi * (y * rng.uniform(3, 16) + rng.uniform(0, 1) * np.sin(2 * np.pi * x * rng.uniform(0.5, 3)))
    )
    return 0.5 + 0.5 * np.tanh(rng.uniform(0.5, 6) * wave)


def _checks(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    cells = rng.uniform(3, 14)
    ratio = rng.uniform(0.5, 2)
    parity = (np.floor(y * cells) + np.floor(x * cells * ratio)) % 2
    return 0.7 * parity + 0.3 * _random_cells(rng, y * cells, x * cells * ratio)


def _bricks(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    rows = rng.uniform(4, 12)
    v = y * rows
    u = x * rows / rng.uniform(1.5, 3) + 0.5 * (np.floor(v) % 2)
    joint = np.minimum(np.minimum(v % 1, -v % 1), 2 * np.minimum(u % 1, -u % 1))
    return np.where(joint < rng.uniform(0.05, 0.14), 0, 0.3 + 0.7 * _random_cells(rng, v, u))


def _dots(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    cells = rng.uniform(4, 14)
    v, u = y * cells, x * cells
    u = u + 0.5 * (np.floor(v) % 2) * (rng.random() < 0.5)
    distance = np.hypot(v % 1 - 0.5, u % 1 - 0.5)
    radius = rng.uniform(0.2, 0.45) * (0.6 + 0.4 * _random_cells(rng, v, u))
    return np.clip(0.5 + (radius - distance) * rng.uniform(3, 15), 0, 1)


def _cells(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    nearest, second = _cell_distances(rng, *y.shape)
    return _stretch(nearest if rng.random() < 0.5 else second - nearest)


def _cracks(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    nearest, second = _cell_distances(rng, *y.shape)
    width = rng.uniform(0.05, 0.2)
    lines = np.clip((second - nearest) / width, 0, 1)
    return _stretch(lines + 0.3 * _fractal(rng, y.shape, 1.0))


def _clouds(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return _stretch(_fractal(rng, y.shape, rng.uniform(0.5, 2.2)))


def _marble(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    veins = y * rng.uniform(2, 8) + rng.uniform(0.5, 2) * _fractal(rng, y.shape, rng.uniform(1.6, 2.2))
    return _stretch(np.abs(np.sin(np.pi * veins)) ** rng.uniform(0.3, 2))


def _contours(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    levels = rng.uniform(3, 10) * _stretch(_fractal(rng, y.shape, rng.uniform(1.6, 2.4)))
    return levels % 1 if rng.random() < 0.5 else _stretch(np.floor(levels))


def _weave(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    cells = rng.uniform(4, 12)
    v, u = y * cells, x * cells
    repeat = rng.integers(2, 5)
    over = (np.floor(v) + np.floor(u)) % repeat < repeat / 2
    return np.where(over, 1 - 0.5 * np.abs(np.sin(np.pi * u)), 0.5 * np.abs(np.sin(np.pi * v)))


def _hair(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    noise = rng.normal(size=y.shape)
    length = rng.integers(5, max(6, min(y.shape) // 4))
    kernel = np.zeros((length, length))
    angle = rng.uniform(0, np.pi)
    reach = (length - 1) / 2
    for step in np.linspace(-reach, reach, 2 * length):
        kernel[round(reach + step * np.sin(angle)), round(reach + step * np.cos(angle))] = 1
    return _stretch(cv2.filter2D(noise, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT))


def _rings(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    centre = rng.uniform(0, 1, 2)
    distance = np.hypot(y - y.min() - centre[0], x - x.min() - centre[1])
    wobble = rng.uniform(0, 0.6) * _fractal(rng, y.shape, 2.0)
    return 0.5 + 0.5 * np.sin(2 * np.pi * (distance * rng.uniform(3, 12) + wobble))


def _gradient(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    bent = y + rng.uniform(0, 0.5) * np.sin(2 * np.pi * x * rng.uniform(0.3, 1.5)) + 0.05 * _fractal(rng, y.shape, 1.8)
    return _stretch(bent)


def _scraps(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    field = np.full(y.shape, rng.uniform())
    height, width = y.shape
    for _ in range(rng.integers(20, 80)):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = [max(1, int(axis)) for axis in rng.uniform(0.02, 0.2, 2) * min(height, width)]
        value, angle = rng.uniform(), rng.uniform(0, 360)
        if rng.random() < 0.5:
            cv2.ellipse(field, centre, axes, angle, 0, 360, value, -1)
        else:
            corners = cv2.boxPoints((centre, [2.0 * axis for axis in axes], angle))
            cv2.fillConvexPoly(field, np.rint(corners).astype(np.int32), value)
    return _stretch(field)


_FAMILIES = (
    _stripes,
    _clouds,
    _checks,
    _cells,
    _dots,
    _marble,
    _weave,
    _cracks,
    _hair,
    _bricks,
    _contours,
    _rings,
    _scraps,
    _gradient,
)


def _stretch(field: np.ndarray) -> np.ndarray:
    """Scales a field to 0..1."""
    low, high = field.min(), field.max()
    return (field - low) / max(high - low, 1e-9)


def _random_cells(rng: np.random.Generator, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """A random value in 0..1 for each unit square."""
    table = rng.uniform(0, 1, (64, 64))
    return table[np.floor(v).astype(np.int64) % 64, np.floor(u).astype(np.int64) % 64]


def _fractal(rng: np.random.Generator, shape: tuple[int, ...], roll_off: float) -> np.ndarray:
    """Noise of deviation 1 whose amplitude falls with frequency to the power of `roll_off`."""
    height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width)
    frequency[0, 0] = np.inf
    waves = np.fft.rfft2(rng.normal(size=shape)) * frequency**-roll_off
    noise = np.fft.irfft2(waves, shape)
    return noise / noise.std()


def _cell_distances(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the nearest and second nearest of some scattered points, in units of their mean spacing."""
    count = int(rng.integers(15, 120))
    points = rng.uniform(-0.1, 1.1, (count, 2)) * (height, width)
    y, x = np.mgrid[:height, :width]
    nearest = np.full((height, width), np.inf)
    second = nearest.copy()
    for point in points:
        distance = np.hypot(y - point[0], x - point[1])
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    spacing = np.sqrt(height * width / count)
    return nearest / spacing, second / spacing
