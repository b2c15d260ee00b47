"""Evaluates a trained run on the test split of its data set.

    python evaluate.py --workdir=runs/quickstart

Writes results.json, results.csv, scores.csv and picture sheets to <workdir>/evaluation/<step>/. The newest
checkpoint counts unless --step names another; nothing is selected on the test images.
"""

import os

import cv2
import flax
import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

import data
from configs import checks, command_line
from data import reading
from draem_jax import checkpoints, devices, evaluation, images, inference, networks, pictures, results, runs
from draem_jax.errors import UserError


def main():
    run(flags.FLAGS.workdir, flags.FLAGS.step, command_line.changes())


def run(workdir, step=None, changes=None):
    """Evaluates one checkpoint of a run.

    Args:
        workdir: directory of the run.
        step: of the checkpoint; None for the newest.
        changes: {'section.field': value} that replace values of the run's config, such as where the data lie.

    Returns:
        What results.json holds.
    """
    config = ConfigDict(runs.read_config(workdir))
    config.update_from_flattened_dict(changes or {})
    checks.check(config)
    dataset, options = config.dataset, config.evaluation
    devices.check_processes()
    devices.check_batch_size(options.batch_size, 'evaluation.batch_size')
    devices.cache_compilations()
    size = tuple(dataset.image_size)

    builder = data.make_builder(dataset.name, dataset.category, dataset.root)
    reading.prepare(builder)
    if not reading.count_examples(builder, 'test'):
        raise UserError(
            f"No test images in '{dataset.root}': it holds good images alone, so there is nothing to measure."
        )

    model = networks.make_model(**config.model)
    template = networks.init_variables(model, size, seed=0)
    step, variables = checkpoints.restore_variables(workdir, template, step)

    # All files are read before anything is computed: one that cannot be read shows at once.
    batches = list(reading.padded_batches(builder, size, options.batch_size, antialias=dataset.antialias))
    predict = devices.parallel_predict(inference.make_predict(model, score_window=options.score_window))
    tested = evaluation.run(predict, variables, tqdm(batches, f'Step {step}', unit='batch', leave=False, disable=None))

    found = results.summarise(
        tested['score'],
        tested['label'],
        tested['defect_type'],
        tested['map'],
        evaluation.defective_pixels(tested['mask'], options.mask_rule),
        tested['has_mask'],
        max_fpr=options.aupro_max_fpr,
    )
    found = {
        'step': step,
        'dataset': {'name': dataset.name, 'category': dataset.category, 'split': 'test', 'image_size': list(size)},
        'options': options.to_dict(),
        **found,
        'versions': versions(),
    }
    folder = runs.evaluation_folder(workdir, step)
    rows = [
        {'filename': filename, 'defect_type': defect_type, 'label': int(label), 'score': float(score)}
        for filename, defect_type, label, score in zip(
            tested['filename'], tested['defect_type'], tested['label'], tested['score'], strict=True
        )
    ]
    results.write_results(folder, found, rows)
    write_sheets(folder, tested, found['threshold']['image'], options.sheet_rows)
    print(results.table(found))
    print(f'Results and pictures: {folder}')
    return found


def write_sheets(folder, tested, threshold, rows_per_sheet):
    """PNG sheets of input, reconstruction, anomaly map and ground truth: the best, the worst, the most doubtful."""
    if threshold is None:
        threshold = float(np.median(tested['score']))
    chosen = pictures.choose_rows(tested['score'], tested['label'], threshold, rows_per_sheet)
    for name, indices in chosen.items():
        path = os.path.join(folder, f'{name}.png')
        if os.path.exists(path):
            os.remove(path)  # An earlier evaluation may have had pictures where this one has none.
        rows = [
            (
                f'{tested["filename"][k]}  score {tested["score"][k]:.3f}',
                [
                    tested['image'][k],
                    tested['reconstruction'][k],
                    pictures.overlay(tested['image'][k], tested['map'][k]),
                    pictures.heat(tested['map'][k]),
                    tested['mask'][k] if tested['has_mask'][k] else None,
                ],
            )
            for k in indices
        ]
        if rows:
            sheet = pictures.sheet(rows, ('input', 'reconstruction', 'overlay', 'anomaly map', 'ground truth'))
            images.write_png(path, sheet)


def versions():
    """What the numbers were made with."""
    return {module.__name__: module.__version__ for module in (jax, flax, np, cv2)}


if __name__ == '__main__':
    command_line.define_config_overrides()
    flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
    flags.DEFINE_integer('step', None, 'Step of the checkpoint; the newest by default.', lower_bound=0)
    command_line.run(main)
