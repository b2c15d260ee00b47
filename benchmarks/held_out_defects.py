"""How well runs find drawn defects on their held-out normal images: to choose settings without the test images.

    python -m benchmarks.held_out_defects runs/one runs/another

Lines, soft spots, wide stains and rough patches are drawn on the normal images that a run keeps for validation; the
anomalies of its training are made by another process. Prints, for each run and each window of the image score, the
AUROC of each kind against the same images without a defect, and the mean over the kinds. Compare runs that hold out the
same images. `benchmarks.recipes` asks for more: the run's own image score, and how well the pixels are found.
"""

import argparse
import dataclasses
import pathlib

import jax
import numpy as np
from sklearn.metrics import roc_auc_score

from commands import config_checks
from data import inputs
from data.sets.simulated import fields
from draem_jax import checkpoints, images, run_directory
from draem_jax.errors import UserError
from draem_jax.evaluation import metrics
from draem_jax.model import networks, scoring

KINDS = ('line', 'spot', 'stain', 'rough')
WINDOWS = (1, 3, 5, 7, 11, 15, 21)
_REPEATS = 2  # defects of each kind on each image
_BATCH_SIZE = 32
_FADE = 12  # pixels of the canvas


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Images with and without drawn defects.

    Attributes:
        pictures: [N, H, W, 3] uint8.
        masks: [N, H, W] bool, where the defects are.
        kinds: [N], 'good' or one of `KINDS`.
    """

    pictures: np.ndarray
    masks: np.ndarray
    kinds: np.ndarray


def canvas_size(image_size):
    """(height, width) to draw at: the proportions of an image, with a shorter side of fields.SIZE."""
    height, width = (round(fields.SIZE * side / min(image_size)) for side in image_size)
    return height, width


def draw(rng, kind):
    """A defect in a square of its own.

    Returns:
        strength: float [fields.SIZE, fields.SIZE], 0 outside, about 1 inside; of a rough patch a texture.
        inside: the same without the texture, in 0..1.
    """
    if kind == 'line':
        angle = rng.uniform(0, np.pi)
        distance, taper = fields.curve(rng, rng.uniform(30, 90), angle=angle, bend=0.15)
        inside = fields.smoothstep(rng.uniform(1.2, 2.5), 0.3, np.abs(distance)) * taper
        return inside, inside
    radius = rng.uniform(*{'spot': (3, 8), 'stain': (12, 40), 'rough': (8, 25)}[kind])
    shape = fields.blob(rng, fields.draw_place(rng), radius, roughness=0.25, elongation=rng.uniform(1, 2))
    inside = fields.smoothstep(-0.1, {'spot': 0.3, 'stain': 0.6, 'rough': 0.2}[kind], shape)
    if kind == 'rough':
        return inside * (0.6 * fields.smooth_noise(rng, 24) + 0.6 * rng.normal(size=shape.shape)), inside
    return inside, inside


def lay(field, size, part):
    """Lays a square field on a canvas of zeros, which may be longer along one side.

    Args:
        field: [fields.SIZE, fields.SIZE].
        size: (height, width) of the canvas, the shorter one fields.SIZE.
        part: where along the longer side, in [0, 1).

    Returns:
        [height, width]. Where an edge of the field lies within the canvas, the field fades towards it: a defect that
        the edge cuts would otherwise end in a straight line.
    """
    if tuple(size) == field.shape:
        return field
    axis = int(np.argmax(size))
    room = size[axis] - fields.SIZE
    offset = int(part * (room + 1))
    position = np.arange(fields.SIZE) + 0.5
    fade = np.ones(fields.SIZE)
    if offset > 0:
        fade *= fields.smoothstep(0, _FADE, position)
    if offset < room:
        fade *= fields.smoothstep(0, _FADE, fields.SIZE - position)
    canvas = np.zeros(size)
    rows_and_columns = [slice(None), slice(None)]
    rows_and_columns[axis] = slice(offset, offset + fields.SIZE)
    canvas[tuple(rows_and_columns)] = field * np.expand_dims(fade, 1 - axis)
    return canvas


def draw_one(normal, kind, index):
    """(image, mask) with the index-th defect of a kind; uint8 [H, W, 3], bool [H, W], H x W from `canvas_size`.

    Seven defects in ten darken, by 15 to 60 %, the others brighten. The mask is where the defect is more than half
    there.
    """
    rng = np.random.default_rng([7, KINDS.index(kind), index])
    change = rng.uniform(0.15, 0.6) * (-1 if rng.random() < 0.7 else 1)
    strength, inside = draw(rng, kind)
    part = rng.random()  # Drawn last: on square images, which need no place, everything stays as it was without it.
    strength, inside = (lay(field, normal.shape[:2], part) for field in (strength, inside))
    picture = np.rint(np.clip(normal * (1 + change * strength[..., None]), 0, 255)).astype(np.uint8)
    return picture, inside > 0.5


def draw_all(normals, size, antialias):
    """The normal images, then each kind of defect on each of them twice, as `Drawn`.

    Args:
        normals: [N, H, W, 3] uint8, H x W from `canvas_size`.
        size: (height, width) that the results are resized to, in the ways in which an evaluation resizes images and
            masks.
        antialias: as in `images.resize`.
    """
    pictures = [images.resize(normal, size, antialias=antialias) for normal in normals]
    masks, kinds = [np.zeros(size, bool)] * len(normals), ['good'] * len(normals)
    for kind in KINDS:
        for index in range(_REPEATS * len(normals)):
            picture, mask = draw_one(normals[index % len(normals)], kind, index)
            pictures.append(images.resize(picture, size, antialias=antialias))
            masks.append(images.resize(np.where(mask, np.uint8(255), np.uint8(0)), size) > 127.5)
            kinds.append(kind)
    return Drawn(np.stack(pictures), np.stack(masks), np.array(kinds))


def open_run(workdir):
    """(config, `Drawn` on the images that the run holds out)."""
    config = config_checks.config_of_run(run_directory.read_config(workdir), {}, f'{workdir}/config.json')
    size = tuple(config.dataset.image_size)
    dataset = config.dataset.copy_and_resolve_references()
    dataset.image_size = canvas_size(size)
    dataset.texture_source, dataset.texture_root = 'colour', ''
    held_out = inputs.load(**dataset, pinned=run_directory.held_out(workdir)).held_out
    if not len(held_out):
        raise UserError(f"'{workdir}' holds no images out: --config.dataset.validation_fraction was 0.")
    normals = np.stack([held_out[index] for index in range(len(held_out))])
    return config, draw_all(normals, size, dataset.antialias)


def make_predict(config):
    """(predict, shapes of the variables) of a run; predict(variables, images) is that of evaluate.py."""
    model = networks.make_model(**config.model)
    options = config.evaluation
    predict = scoring.make_predict(model, score_window=options.score_window, score_top=options.score_top)
    return jax.jit(predict), networks.variable_shapes(model, tuple(config.dataset.image_size))


def predict_all(predict, variables, pictures):
    """(maps [N, H, W], scores [N]) of all images."""
    filler = np.zeros((-len(pictures) % _BATCH_SIZE, *pictures.shape[1:]), np.uint8)
    batches = np.concatenate([pictures, filler]).reshape(-1, _BATCH_SIZE, *pictures.shape[1:])
    outputs = [predict(variables, batch) for batch in batches]
    return tuple(np.concatenate([one[name] for one in outputs])[: len(pictures)] for name in ('map', 'score'))


def image_aurocs(scores, kinds):
    """{kind: AUROC of its images against the good ones}; scores and kinds [N]."""
    good = scores[kinds == 'good']
    return {
        kind: roc_auc_score(
            np.repeat([0, 1], [len(good), (kinds == kind).sum()]), np.concatenate([good, scores[kinds == kind]])
        )
        for kind in KINDS
    }


def measure_steps(workdir):
    """Yields what each checkpoint on disk finds, in their order; the defects are drawn once.

    Yields:
        {'step', 'image_auroc' (the mean over the kinds, with the run's own image score), 'image_auroc_by_kind',
        'pixel_auroc', 'pixel_ap' (over the pixels of all images, the good ones too)}, plain numbers.
    """
    config, drawn = open_run(workdir)
    predict, shapes = make_predict(config)
    for step in checkpoints.list_steps(workdir, needs_some=True):
        _, variables = checkpoints.restore_variables(workdir, shapes, step)
        maps, scores = predict_all(predict, variables, drawn.pictures)
        by_kind = {kind: float(value) for kind, value in image_aurocs(scores, drawn.kinds).items()}
        pixels = metrics.summary(maps, drawn.masks)
        yield {
            'step': step,
            'image_auroc': float(np.mean(list(by_kind.values()))),
            'image_auroc_by_kind': by_kind,
            'pixel_auroc': pixels['auroc'],
            'pixel_ap': pixels['average_precision'],
        }


def measure_windows(workdir):
    """{window: {kind: AUROC}} of the newest checkpoint of a run, with the score of a window of each size."""
    config, drawn = open_run(workdir)
    predict, shapes = make_predict(config)
    _, variables = checkpoints.restore_variables(workdir, shapes)
    maps, _ = predict_all(predict, variables, drawn.pictures)
    return {window: image_aurocs(np.asarray(scoring.image_score(maps, window)), drawn.kinds) for window in WINDOWS}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('workdirs', nargs='+', help='directories of runs')
    flags = parser.parse_args()
    print(f'{"run":20}{"window":>8}{"mean":>8}' + ''.join(f'{kind:>8}' for kind in KINDS))
    for workdir in flags.workdirs:
        for window, aurocs in measure_windows(workdir).items():
            values = [np.mean(list(aurocs.values())), *aurocs.values()]
            print(
                f'{pathlib.Path(workdir).name:20}{window:8}' + ''.join(f'{value:8.3f}' for value in values), flush=True
            )


if __name__ == '__main__':
    try:
        main()
    except UserError as error:
        raise SystemExit(f'Error: {error}') from None
