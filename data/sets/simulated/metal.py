"""Machined metal: a face turned on a lathe, its grooves arcs about a far centre, with a fan of reflected light."""

import numpy as np

from data.sets.simulated import fields
from data.sets.simulated.fields import Defect

KINDS = ('scratch', 'dent', 'rust', 'pits', 'unmachined')


def draw_surface(rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
    """Draws the face, lit but not yet photographed.

    Args:
        rng: stream of the flawless surface.
        defect: what to draw wrong, or None.

    Returns:
        float [SIZE, SIZE, 3], RGB, 0 is black and 1 white.
    """
    y, x = fields.grid()
    bearing = rng.uniform(-0.06, 0.06) - np.pi / 2
    away = rng.uniform(170, 190)
    dy = y - fields.SIZE / 2 - away * np.sin(bearing)
    dx = x - fields.SIZE / 2 - away * np.cos(bearing)
    pitch = rng.uniform(9.8, 10.2)
    groove = (np.hypot(dy, dx) - away) / pitch + rng.uniform(-0.2, 0.2) + 0.05 * fields.smooth_noise(rng, 2)

    if defect is not None and defect.kind == 'dent':
        bump, slope = _press(defect)
        groove = groove + 0.5 * defect.contrast * bump

    # The tool leaves a round trough and a sharp crest; the chips leave finer lines within it.
    part = groove - np.floor(groove)
    trough = (2 * part - 1) ** 2
    crest = fields.smoothstep(0.75, 1.0, np.abs(2 * part - 1))
    own = 0.03 * rng.normal(size=64)[np.floor(groove).astype(np.int64) % 64]
    lines = 0.05 * fields.along(rng.normal(size=997), 5 * groove)
    marks = 0.8 + 0.35 * (1 - trough) - 0.12 * crest + 0.12 * (part - 0.5) + own + lines
    if defect is not None and defect.kind == 'unmachined':
        rough, depth = _skip(defect)
        marks = marks * depth + (0.9 + rough) * (1 - depth)

    # Grooves reflect a lamp as a fan about their centre.
    fan = 0.12 * np.cos(2 * (np.arctan2(dy, dx) - bearing + rng.uniform(-0.5, 0.5)) * 3)
    spots = 0.04 * fields.smooth_noise(rng, 6)
    tint = fields.draw_hue(rng, (0.5, 0.7), (0.0, 0.05), (0.55, 0.72))
    face = tint * (marks * (1 + fan + spots))[..., None]

    if defect is None:
        return face
    if defect.kind == 'dent':
        return face * np.clip(1 + 0.6 * defect.contrast * slope, 0.4, 1.5)[..., None]
    if defect.kind == 'scratch':
        return _scratch(defect, face, bearing)
    if defect.kind == 'rust':
        return _rust(defect, face)
    if defect.kind == 'pits':
        return _pits(defect, face)
    return face


def _press(defect: Defect) -> tuple[np.ndarray, np.ndarray]:
    """Depth of a dent in 0..1, and how its sides turn towards (+) or away from (-) the lamp."""
    rng = defect.rng
    place, radius = fields.draw_place(rng), rng.uniform(10, 16) * defect.scale
    bump = fields.smoothstep(0.0, 0.9, fields.blob(rng, place, radius, elongation=rng.uniform(1, 1.5)))
    down, right = np.gradient(bump)
    return bump, radius / 2 * (down + right) / np.sqrt(2)


def _skip(defect: Defect) -> tuple[np.ndarray, np.ndarray]:
    """A place the tool missed: (roughness of the raw casting, 1 where the tool cut and 0 where it did not)."""
    rng = defect.rng
    place, radius = fields.draw_place(rng), rng.uniform(12, 18) * defect.scale
    shape = fields.blob(rng, place, radius, roughness=0.25, elongation=rng.uniform(1, 2))
    rough = 0.1 * fields.smooth_noise(rng, 24) + 0.05 * rng.normal(size=shape.shape)
    return rough - 0.1, 1 - (0.4 + 0.6 * defect.contrast) * fields.smoothstep(-0.02, 0.12, shape)


def _scratch(defect: Defect, face: np.ndarray, bearing: float) -> np.ndarray:
    """A bright cut across the grooves between two dark burrs."""
    rng = defect.rng
    direction = bearing + rng.uniform(-0.9, 0.9)
    distance, taper = fields.curve(rng, rng.uniform(45, 85) * defect.scale, angle=direction, bend=0.08)
    radius = rng.uniform(1.6, 2.2)
    cut = fields.smoothstep(radius, 0.5, np.abs(distance)) * taper * defect.contrast
    burr = fields.smoothstep(radius, 0.3, np.abs(np.abs(distance) - 1.5 * radius)) * taper * defect.contrast
    bright = np.clip(face.mean(axis=(0, 1)) * 1.4, 0, 1)
    return fields.mix(face * (1 - 0.45 * burr[..., None]), bright, 0.85 * cut)


def _rust(defect: Defect, face: np.ndarray) -> np.ndarray:
    """Brown crust that eats into the face in grains."""
    rng = defect.rng
    depth = fields.blob(rng, fields.draw_place(rng), rng.uniform(12, 18) * defect.scale, roughness=0.3)
    depth += 0.25 * fields.smooth_noise(rng, 12)
    brown = fields.draw_hue(rng, (0.04, 0.08), (0.5, 0.7), (0.45, 0.6)) * face.mean() * 1.7
    grain = 1 + 0.15 * fields.smooth_noise(rng, 24) + 0.06 * rng.normal(size=depth.shape)
    amount = (0.35 + 0.6 * defect.contrast) * fields.smoothstep(-0.05, 0.2, depth)
    return fields.mix(face, brown * grain[..., None], amount * (0.75 + 0.25 * defect.contrast))


def _pits(defect: Defect, face: np.ndarray) -> np.ndarray:
    """A cluster of pores in the casting, cut open: dark, with a lit lower edge."""
    rng = defect.rng
    y, x = fields.grid()
    middle = fields.draw_place(rng)
    for _ in range(rng.integers(4, 8)):
        place = middle + rng.normal(0, 8 * defect.scale, 2)
        radius = rng.uniform(3.0, 5.5) * np.sqrt(defect.scale)
        depth = fields.blob(rng, place, radius)
        side = np.clip(((y - place[0]) + (x - place[1])) / (1.4 * radius), -1, 1)
        edge = fields.smoothstep(0.35, 0.05, np.abs(depth + 0.1)) * side
        hollow = fields.smoothstep(-0.05, 0.35, depth) * defect.contrast
        face = face * (1 + 0.35 * defect.contrast * edge - 0.6 * hollow)[..., None]
    return face
