"""Woven fabric: a plain weave of round threads, each crossing over one neighbour and under the next."""

import numpy as np

from data.sets.simulated import fields
from data.sets.simulated.fields import Defect

KINDS = ('broken_thread', 'float', 'hole', 'stain', 'loose_fibre')


def draw_surface(rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
    """Draws the cloth, lit but not yet photographed.

    Args:
        rng: stream of the flawless surface.
        defect: what to draw wrong, or None.

    Returns:
        float [SIZE, SIZE, 3], RGB, 0 is black and 1 white.
    """
    y, x = (each - fields.SIZE / 2 for each in fields.grid())
    angle = rng.uniform(-0.03, 0.03)
    pitch = 15.0 * rng.uniform(0.985, 1.015, 2)
    phase = rng.uniform(-0.3, 0.3, 2)
    u = (x * np.cos(angle) + y * np.sin(angle)) / pitch[0] + phase[0] + 0.05 * fields.smooth_noise(rng, 2)
    v = (y * np.cos(angle) - x * np.sin(angle)) / pitch[1] + phase[1] + 0.05 * fields.smooth_noise(rng, 2)
    column, row = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    across_warp, across_weft = 2 * (u - column) - 1, 2 * (v - row) - 1

    warp_on_top = (column + row) % 2 == 0
    warp_there: np.ndarray | float = 1.0
    weft_there: np.ndarray | float = 1.0
    if defect is not None and defect.kind == 'float':
        warp_on_top = _float(defect, warp_on_top, column, row)
    if defect is not None and defect.kind == 'broken_thread':
        warp_there, weft_there = _break(defect, u, v, column, row)

    colour = fields.draw_hue(rng, (0.08, 0.12), (0.15, 0.3), (0.75, 0.95))
    warp_colour, weft_colour = colour, fields.draw_hue(rng, (0.57, 0.61), (0.25, 0.35), (0.5, 0.62))
    warp = _thread(rng, across_warp, across_weft, column, v, rises=warp_on_top)
    weft = _thread(rng, across_weft, across_warp, row, u, rises=~warp_on_top)
    warp_cover = _cover(across_warp) * warp_there
    weft_cover = _cover(across_weft) * weft_there

    # The lower thread first, then the upper one over it.
    cloth = 0.2 * colour + np.zeros((fields.SIZE, fields.SIZE, 3))
    lower_is_warp = ~warp_on_top
    for is_warp in (lower_is_warp, ~lower_is_warp):
        shade = np.where(is_warp, warp, weft)[..., None] * np.where(is_warp[..., None], warp_colour, weft_colour)
        cloth = fields.mix(cloth, shade, np.where(is_warp, warp_cover, weft_cover))

    if defect is None:
        return cloth
    if defect.kind == 'hole':
        return _hole(defect, cloth, colour)
    if defect.kind == 'stain':
        return _stain(defect, cloth)
    if defect.kind == 'loose_fibre':
        return _loose_fibre(defect, cloth)
    return cloth


def _cover(across: np.ndarray) -> np.ndarray:
    """1 on a thread, 0 in the gap beside it."""
    return fields.smoothstep(0.95, 0.75, np.abs(across))


def _thread(
    rng: np.random.Generator,
    across: np.ndarray,
    along_cell: np.ndarray,
    index: np.ndarray,
    along: np.ndarray,
    *,
    rises: np.ndarray,
) -> np.ndarray:
    """Brightness of a family of threads: round, brighter where they rise, twisted, no two quite alike."""
    roundness = np.sqrt(np.clip(1 - across**2, 0, 1))
    height = np.cos(np.pi / 2 * along_cell) * np.where(rises, 1, -1)
    twist = 0.08 * np.sin(2 * np.pi * (2 * along + 0.5 * across))
    own = 0.02 * rng.normal(size=64)[index % 64]
    uneven = 0.02 * fields.along(rng.normal(size=257), along / 1.5 + 17.3 * index)
    return (0.4 + 0.6 * roundness) * (0.75 + 0.25 * height) * (1 + twist + own + uneven)


def _float(defect: Defect, warp_on_top: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """One or two threads pass over several others instead of every second one."""
    rng = defect.rng
    y, x = fields.draw_place(rng).astype(int)
    width, length = rng.integers(1, 3), 1 + 2 * round(rng.uniform(1.2, 2.4) * defect.scale)
    over_warp = rng.random() < 0.5
    extent = (length, width) if over_warp else (width, length)
    here = (row - row[y, x] + extent[0] // 2, column - column[y, x] + extent[1] // 2)
    inside = (here[0] >= 0) & (here[0] < extent[0]) & (here[1] >= 0) & (here[1] < extent[1])
    return np.where(inside, over_warp, warp_on_top)


def _break(
    defect: Defect, u: np.ndarray, v: np.ndarray, column: np.ndarray, row: np.ndarray
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """One thread is missing over a part of its length: (1 where the warp is there, 1 where the weft is)."""
    rng = defect.rng
    y, x = fields.draw_place(rng).astype(int)
    half = rng.uniform(1.7, 3.2) * defect.scale
    if rng.random() < 0.5:
        gone = (column == column[y, x]) * fields.smoothstep(half, half - 0.3, np.abs(v - v[y, x]))
        return 1 - gone, 1.0
    gone = (row == row[y, x]) * fields.smoothstep(half, half - 0.3, np.abs(u - u[y, x]))
    return 1.0, 1 - gone


def _hole(defect: Defect, cloth: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """The table shows through: even, in the shadow of the cloth, with a frayed rim."""
    rng = defect.rng
    depth = fields.blob(rng, fields.draw_place(rng), rng.uniform(9, 14) * defect.scale, elongation=rng.uniform(1, 1.6))
    depth += 0.08 * fields.smooth_noise(rng, 24)
    table = colour.mean() * rng.uniform(0.3, 0.5) * (0.55 + 0.45 * fields.smoothstep(0, 0.5, depth))
    rim = 1 - 0.25 * fields.smoothstep(-0.25, 0, depth)
    opacity = defect.contrast * fields.smoothstep(-0.05, 0.08, depth)
    return fields.mix(cloth * rim[..., None], np.repeat(table[..., None], 3, axis=-1), opacity)


def _stain(defect: Defect, cloth: np.ndarray) -> np.ndarray:
    """A liquid dried in the cloth: it takes light away, most of it at the rim."""
    rng = defect.rng
    depth = fields.blob(rng, fields.draw_place(rng), rng.uniform(14, 22) * defect.scale, roughness=0.3)
    absorbed = fields.draw_hue(rng, (0.5, 0.75), (0.3, 0.5), (0.45, 0.6)) * defect.contrast
    amount = fields.smoothstep(0, 0.12, depth) * (0.75 + 0.25 * fields.smoothstep(0.4, 0.1, depth))
    return cloth * (1 - amount[..., None] * absorbed)


def _loose_fibre(defect: Defect, cloth: np.ndarray) -> np.ndarray:
    """A fibre lies on the cloth and throws a shadow."""
    rng = defect.rng
    distance, taper = fields.curve(rng, rng.uniform(40, 80) * defect.scale, angle=rng.uniform(0, np.pi), bend=0.25)
    radius = rng.uniform(2.6, 3.6)
    shadow = 0.45 * defect.contrast * fields.smoothstep(radius, 0, np.abs(distance - 2.5)) * taper
    fibre = fields.draw_hue(rng, (0.0, 1.0), (0.25, 0.5), (0.4, 0.75))
    roundness = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))
    lit = fibre * (0.5 + 0.5 * roundness[..., None])
    opacity = defect.contrast * fields.smoothstep(radius, radius - 1, np.abs(distance)) * taper
    return fields.mix(cloth * (1 - shadow[..., None]), lit, opacity)
