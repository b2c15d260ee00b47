"""How well runs find drawn defects on their held-out normal images: to choose settings without the test images.

    python -m benchmarks.held_out_defects runs/one runs/another

Lines, soft spots, wide stains and rough patches are drawn on the normal images that a run keeps for validation; the
anomalies of its training are made by another process. Prints, for each run and each window of the image score, the
AUROC of each kind against the same images without a defect, and the mean over the kinds. Compare runs that hold out the
same images.
"""

import argparse
import pathlib

import jax
import numpy as np
from sklearn import metrics

from commands import config_checks
from data import inputs
from data.sets.simulated import fields
from draem_jax import checkpoints, images, run_directory
from draem_jax.model import networks, scoring

KINDS = ('line', 'spot', 'stain', 'rough')
WINDOWS = (1, 3, 5, 7, 11, 15, 21)
_REPEATS = 2  # defects of each kind on each image
_BATCH_SIZE = 32


def draw(rng, kind):
    """Where a defect lies and how strong it is: float [fields.SIZE, fields.SIZE], 0 outside, about 1 inside."""
    if kind == 'line':
        angle = rng.uniform(0, np.pi)
        distance, taper = fields.curve(rng, rng.uniform(30, 90), angle=angle, bend=0.15)
        return fields.smoothstep(rng.uniform(1.2, 2.5), 0.3, np.abs(distance)) * taper
    radius = rng.uniform(*{'spot': (3, 8), 'stain': (12, 40), 'rough': (8, 25)}[kind])
    shape = fields.blob(rng, fields.draw_place(rng), radius, roughness=0.25, elongation=rng.uniform(1, 2))
    inside = fields.smoothstep(-0.1, {'spot': 0.3, 'stain': 0.6, 'rough': 0.2}[kind], shape)
    if kind == 'rough':
        return inside * (0.6 * fields.smooth_noise(rng, 24) + 0.6 * rng.normal(size=shape.shape))
    return inside


def draw_all(normals):
    """(images uint8 [N, SIZE, SIZE, 3], kinds [N]): the normal images, 'good', then each kind on each image twice.

    Seven defects in ten darken, by 15 to 60 %, the others brighten.
    """
    pictures, kinds = list(normals), ['good'] * len(normals)
    for kind in KINDS:
        for index in range(_REPEATS * len(normals)):
            rng = np.random.default_rng([7, KINDS.index(kind), index])
            change = rng.uniform(0.15, 0.6) * (-1 if rng.random() < 0.7 else 1)
            factor = 1 + change * draw(rng, kind)[..., None]
            pictures.append(np.rint(np.clip(normals[index % len(normals)] * factor, 0, 255)).astype(np.uint8))
            kinds.append(kind)
    return np.stack(pictures), np.array(kinds)


def measure(workdir):
    """{window: {kind: AUROC}} of the newest checkpoint of a run."""
    config = config_checks.config_of_run(run_directory.read_config(workdir), {})
    size = tuple(config.dataset.image_size)
    config.dataset.image_size = (fields.SIZE, fields.SIZE)
    config.dataset.texture_source, config.dataset.texture_root = 'colour', ''
    held_out = inputs.load(**config.dataset, pinned=run_directory.held_out(workdir)).held_out
    if not len(held_out):
        raise SystemExit(f"'{workdir}' holds no images out: --config.dataset.validation_fraction was 0.")
    pictures, kinds = draw_all(np.stack([held_out[index] for index in range(len(held_out))]))
    pictures = np.stack([images.resize(picture, size, antialias=config.dataset.antialias) for picture in pictures])

    model = networks.make_model(**config.model)
    _, variables = checkpoints.restore_variables(workdir, networks.variable_shapes(model, size))
    predict = jax.jit(scoring.make_predict(model, score_window=1))
    filler = np.zeros((-len(pictures) % _BATCH_SIZE, *size, 3), np.uint8)
    batches = np.concatenate([pictures, filler]).reshape(-1, _BATCH_SIZE, *size, 3)
    maps = np.concatenate([predict(variables, batch)['map'] for batch in batches])[: len(pictures)]
    aurocs = {}
    for window in WINDOWS:
        scores = np.asarray(scoring.image_score(maps, window))
        good = scores[kinds == 'good']
        aurocs[window] = {
            kind: metrics.roc_auc_score(
                np.repeat([0, 1], [len(good), (kinds == kind).sum()]), np.concatenate([good, scores[kinds == kind]])
            )
            for kind in KINDS
        }
    return aurocs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('workdirs', nargs='+', help='directories of runs')
    flags = parser.parse_args()
    print(f'{"run":20}{"window":>8}{"mean":>8}' + ''.join(f'{kind:>8}' for kind in KINDS))
    for workdir in flags.workdirs:
        for window, aurocs in measure(workdir).items():
            values = [np.mean(list(aurocs.values())), *aurocs.values()]
            print(
                f'{pathlib.Path(workdir).name:20}{window:8}' + ''.join(f'{value:8.3f}' for value in values), flush=True
            )


if __name__ == '__main__':
    main()
