"""Draw one image of a surface, flawless or with a defect, as a function of (seed, category, number).

The surface, its defect, and the light and noise of the camera are drawn from three random streams. So an image with a
defect and the flawless image of the same number differ by the defect alone, and comparing the two gives the mask.
"""

import functools

import cv2
import numpy as np

from data.sets.simulated import fabric, fields, metal, wood
from data.sets.simulated.fields import SIZE, Defect

CATEGORIES = {'fabric': fabric, 'wood': wood, 'metal': metal}
TRAIN_IMAGES = 200
GOOD_TEST_IMAGES = 40
TEST_IMAGES_PER_KIND = 13

# A difference that an eye sees on a textured surface, in levels of 255.
VISIBLE_LEVELS = 8


def draw(category: str, number: int, *, seed: int = 0, kind: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Draws one image and the mask of its defect.

    Args:
        category: key of `CATEGORIES`.
        number: which image; the same number gives the same surface, camera and light.
        seed: integer that all randomness starts from.
        kind: one of `kinds(category)`, or None for a flawless surface.

    Returns:
        image: uint8 [SIZE, SIZE, 3], RGB.
        mask: uint8 [SIZE, SIZE, 1], 255 where the defect is seen and 0 elsewhere. Outside, the image equals the
            flawless image of the same number.
    """
    flawless = _photograph(category, number, seed, None)
    if kind is None:
        return flawless, np.zeros((SIZE, SIZE, 1), np.uint8)
    defective = _photograph(category, number, seed, kind)
    difference = np.abs(defective.astype(np.int16) - flawless).max(axis=-1)
    mask = _outline(difference >= VISIBLE_LEVELS)
    return np.where(mask[..., None], defective, flawless), (255 * mask[..., None]).astype(np.uint8)


def kinds(category: str) -> tuple[str, ...]:
    """The defect kinds of a category."""
    return CATEGORIES[category].KINDS


def contents(category: str, split: str) -> list[tuple[str, str | None, int]]:
    """What a split holds: a list of (filename, kind, number); kind is None for a flawless image.

    Args:
        category: one of `CATEGORIES`.
        split: 'train' or 'test'.
    """
    if split == 'train':
        return [(f'train/good/{index:03d}.png', None, index) for index in range(TRAIN_IMAGES)]
    images: list[tuple[str, str | None, int]] = [
        (f'test/good/{index:03d}.png', None, 1_000 + index) for index in range(GOOD_TEST_IMAGES)
    ]
    for place, kind in enumerate(kinds(category)):
        start = 2_000 + 1_000 * place
        images += [(f'test/{kind}/{index:03d}.png', kind, start + index) for index in range(TEST_IMAGES_PER_KIND)]
    return images


def _photograph(category: str, number: int, seed: int, kind: str | None) -> np.ndarray:
    """Draws the surface and takes its picture: uint8 [SIZE, SIZE, 3]."""
    streams = np.random.SeedSequence([seed, list(CATEGORIES).index(category), number]).spawn(3)
    surface_rng, defect_rng, camera_rng = map(np.random.default_rng, streams)
    defect = None
    if kind is not None:
        lot = defect_rng.random()
        contrast = 0.5 if lot < 0.12 else defect_rng.uniform(0.8, 1.0)
        scale = 0.55 if lot > 0.88 else defect_rng.uniform(0.85, 1.15)
        defect = Defect(kind, contrast, scale, defect_rng)
    surface = CATEGORIES[category].draw_surface(surface_rng, defect)

    y, x = fields.grid()
    slope = camera_rng.uniform(-0.2, 0.2, 2)
    light = camera_rng.uniform(0.7, 1.15) * (1 + (slope[0] * y + slope[1] * x) / SIZE - slope.sum() / 2)
    white_balance = camera_rng.uniform(0.975, 1.025, 3)
    picture = cv2.GaussianBlur(surface * light[..., None] * white_balance, (0, 0), 0.6)
    noise = camera_rng.normal(0, 0.008, picture.shape)
    return np.rint(255 * np.clip(picture + noise, 0, 1)).astype(np.uint8)


def _outline(seen: np.ndarray) -> np.ndarray:
    """Drops single pixels, and closes the places inside a defect where it happens to look like the surface."""
    seen = cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_OPEN, _disc(2))
    margin = 20
    padded = cv2.copyMakeBorder(seen, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, _disc(19))
    return closed[margin:-margin, margin:-margin] > 0


@functools.cache
def _disc(diameter: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
