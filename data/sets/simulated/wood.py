"""Planed wood: yearly rings cut lengthwise, fibres and pores along them."""

import cv2
import numpy as np

from data.sets.simulated import fields
from data.sets.simulated.fields import Defect

KINDS = ('scratch', 'hole', 'stain', 'knot', 'crack')


def draw_surface(rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
    """Draws the board, lit but not yet photographed.

    Args:
        rng: stream of the flawless surface.
        defect: what to draw wrong, or None.

    Returns:
        float [SIZE, SIZE, 3], RGB, 0 is black and 1 white.
    """
    y, x = (each - fields.SIZE / 2 for each in fields.grid())
    angle = rng.uniform(-0.05, 0.05)
    spacing = rng.uniform(13.5, 14.5)
    bow = 0.4 * fields.smooth_noise(rng, 1) + 0.1 * fields.smooth_noise(rng, 4)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    ring = across / spacing + bow + rng.uniform(-0.35, 0.35)

    knot = None
    if defect is not None and defect.kind == 'knot':
        ring, knot = _bend_around_knot(defect, ring, along, across, spacing)

    # A ring begins pale in spring, darkens to its end and starts anew.
    part = ring - np.floor(ring)
    late = part**2.2 * fields.smoothstep(1.0, 0.9, part)
    strength = 1 + 0.25 * rng.normal(size=64)[np.floor(ring).astype(np.int64) % 64]
    fibres = _fibres(rng, along, ring * spacing)
    pale = fields.draw_hue(rng, (0.075, 0.11), (0.35, 0.5), (0.6, 0.92))
    dark = pale * np.array([0.58, 0.46, 0.36]) * rng.uniform(0.85, 1.15)
    board = fields.mix(pale, dark, np.clip(late * strength, 0, 1)) * (1 + 0.07 * fibres[..., None])
    pores = fields.smoothstep(1.5, 2.4, _fibres(rng, along * 2.5, ring * spacing * 1.2))
    board = board * (1 - 0.35 * pores[..., None])

    if defect is None:
        return board
    if knot is not None:
        return _colour_knot(defect, board, knot)
    if defect.kind == 'scratch':
        return _scratch(defect, board, angle)
    if defect.kind == 'hole':
        return _holes(defect, board)
    if defect.kind == 'stain':
        return _stain(defect, board)
    return _crack(defect, board, angle)


def _fibres(rng: np.random.Generator, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Noise of unit deviation, drawn out along the grain."""
    table = cv2.GaussianBlur(rng.normal(size=(256, 64)), (0, 0), 0.6, borderType=cv2.BORDER_REFLECT)
    table = table / table.std()
    columns, rows = (32 + along / 14).astype(np.float32), (128 + across).astype(np.float32)
    return cv2.remap(table.astype(np.float32), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _bend_around_knot(
    defect: Defect, ring: np.ndarray, along: np.ndarray, across: np.ndarray, spacing: float
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The rings give way to a branch, which has rings of its own.

    Returns:
        (rings of board and branch, (distance from the middle of the branch in its radii, 1 inside of it)).
    """
    rng = defect.rng
    y, x = fields.draw_place(rng).astype(int)
    radius = rng.uniform(8, 12) * defect.scale
    dx, dy = (along - along[y, x]) / 1.5, across - across[y, x]
    reach = np.hypot(dx, dy) / radius
    ring = ring - np.sign(dy) * fields.smoothstep(1.7, 0.9, reach) * 0.4 * radius / spacing
    own = 2.5 * reach + 0.3 * fields.smooth_noise(rng, 4)
    inside = fields.smoothstep(1.05, 0.9, reach)
    return np.where(reach < 1, own, ring), (reach, inside)


def _colour_knot(defect: Defect, board: np.ndarray, knot: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    reach, inside = knot
    bark = fields.smoothstep(0.25, 0.05, np.abs(reach - 1))
    brown = board * np.array([0.68, 0.58, 0.5])
    board = fields.mix(board, brown, defect.contrast * inside)
    return board * (1 - 0.5 * defect.contrast * bark[..., None])


def _scratch(defect: Defect, board: np.ndarray, angle: float) -> np.ndarray:
    """A hard edge drawn across the grain: torn fibres catch the light on one side of the groove."""
    rng = defect.rng
    direction = angle + rng.uniform(0.35, np.pi - 0.35)
    distance, taper = fields.curve(rng, rng.uniform(45, 80) * defect.scale, angle=direction, bend=0.08)
    radius = rng.uniform(2.0, 2.8)
    groove = fields.smoothstep(radius, 0.4, np.abs(distance - radius / 2)) * taper * defect.contrast
    ridge = fields.smoothstep(radius, 0.4, np.abs(distance + radius / 2)) * taper * defect.contrast
    fresh = np.clip(board.mean(axis=(0, 1)) * 1.25, 0, 1)
    return fields.mix(board, fresh, 0.85 * ridge) * (1 - 0.5 * groove[..., None])


def _holes(defect: Defect, board: np.ndarray) -> np.ndarray:
    """Bore holes: the wall towards the light lies in shadow, the one opposite is lit."""
    rng = defect.rng
    y, x = fields.grid()
    for _ in range(rng.integers(1, 3)):
        place, radius = fields.draw_place(rng), rng.uniform(6, 9) * defect.scale
        depth = fields.blob(rng, place, radius, roughness=0.05)
        side = np.clip(((y - place[0]) + (x - place[1])) / (1.4 * radius), -1, 1)
        ground = board.mean(axis=(0, 1)) * (0.5 + 0.2 * side[..., None])
        board = fields.mix(board, ground, fields.smoothstep(-0.05, 0.15, depth) * (0.4 + 0.6 * defect.contrast))
        rim = fields.smoothstep(0.2, 0.05, np.abs(depth)) * side
        board = board * (1 + 0.25 * rim[..., None])
    return board


def _stain(defect: Defect, board: np.ndarray) -> np.ndarray:
    """Water drew colour to the edge of a wet patch."""
    rng = defect.rng
    depth = fields.blob(rng, fields.draw_place(rng), rng.uniform(14, 22) * defect.scale, roughness=0.3)
    depth += 0.06 * fields.smooth_noise(rng, 8)
    absorbed = fields.draw_hue(rng, (0.0, 0.2), (0.3, 0.7), (0.3, 0.5)) * defect.contrast
    amount = fields.smoothstep(0, 0.12, depth) * (0.7 + 0.3 * fields.smoothstep(0.4, 0.1, depth))
    return board * (1 - amount[..., None] * absorbed)


def _crack(defect: Defect, board: np.ndarray, angle: float) -> np.ndarray:
    """The board splits along its fibres: a dark, ragged gap that narrows to its ends."""
    rng = defect.rng
    distance, taper = fields.curve(rng, rng.uniform(55, 90) * defect.scale, angle=angle, bend=0.03)
    distance = distance + 1.5 * fields.smooth_noise(rng, 10)
    width = rng.uniform(2.2, 3.4) * taper
    gap = fields.smoothstep(width + 0.6, width - 0.6, np.abs(distance)) * (taper > 0)
    lit = fields.smoothstep(2.5, 0.5, np.abs(distance - width - 1)) * taper
    board = board * (1 + 0.15 * lit[..., None])
    return fields.mix(board, board.mean(axis=(0, 1)) * 0.42, gap * (0.3 + 0.7 * defect.contrast))
