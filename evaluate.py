"""Evaluates a trained run on the test split of its data set.

    python evaluate.py --workdir=runs/quickstart
    python evaluate.py --workdir=runs/quickstart --step=all     every checkpoint, and a curve over them
    python evaluate.py --workdir=runs/quickstart --watch        each new checkpoint, until the training has ended

Writes results.json, results.csv, scores.csv, picture sheets and report/index.html to <workdir>/evaluation/<step>/. The
newest checkpoint counts unless --step names another; nothing is selected on the test images.
"""

import functools
import pathlib
import shutil
import tempfile
import time

import cv2
import flax
import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

import data
from configs import checks, command_line, default
from data import reading
from draem_jax import checkpoints, devices, evaluation, inference, metrics, networks, report, results, runs
from draem_jax.errors import UserError

_WATCH_SECONDS = 10


def main():
    workdir, step = flags.FLAGS.workdir, flags.FLAGS.step
    if flags.FLAGS.watch:
        if step is not None:
            raise UserError('--watch evaluates every new checkpoint: leave out --step.')
        watch(workdir, command_line.changes())
    elif step == 'all':
        run_all(workdir, command_line.changes())
    elif step is None or step.isdecimal():
        run(workdir, None if step is None else int(step), command_line.changes())
    else:
        raise UserError(f"--step={step}: expected the step of a checkpoint, or 'all'.")


def run(workdir, step=None, changes=None):
    """Evaluates one checkpoint of a run.

    Args:
        workdir: directory of the run.
        step: of the checkpoint; None for the newest.
        changes: {'section.field': value} that replace values of the run's config, such as where the data lie.

    Returns:
        What results.json holds.
    """
    return make_evaluate(workdir, changes)(step)


def run_all(workdir, changes=None):
    """Evaluates every checkpoint on disk and writes the curve over them: evaluation/curve.csv and curve.svg."""
    evaluate = make_evaluate(workdir, changes)
    for step in checkpoints.list_steps(workdir, needs_some=True):
        evaluate(step)
    print(f'Curve over the checkpoints: {report.write_curve(workdir)}')


def watch(workdir, changes=None, every_seconds=_WATCH_SECONDS):
    """Evaluates each checkpoint that a training elsewhere writes, until the last one is done.

    Checkpoints that the training removes before their turn are passed over.
    """
    evaluate, done = make_evaluate(workdir, changes), set()
    while True:
        last_step = runs.finished_step(workdir)  # Asked for first: what it names is then surely in the list.
        steps = checkpoints.list_steps(workdir)
        if last_step is not None and last_step not in steps:
            raise UserError(f"'{workdir}' has ended at step {last_step}, but holds no checkpoint of it.")
        waiting = [step for step in steps if step not in done]
        if waiting:
            done.add(waiting[0])
            try:
                evaluate(waiting[0])
            except (UserError, OSError, ValueError):
                if waiting[0] in checkpoints.list_steps(workdir):
                    raise
                print(f'The checkpoint of step {waiting[0]} was removed before it could be evaluated.')
                continue
            report.write_curve(workdir)
        elif last_step is not None:
            return
        else:
            time.sleep(every_seconds)


def make_evaluate(workdir, changes=None):
    """Gets ready what all checkpoints of a run share: evaluate(step or None) -> what results.json holds."""
    config = ConfigDict(runs.read_config(workdir))
    for field, value in default.get_config().evaluation.items():
        if 'evaluation' in config and field not in config.evaluation:
            config.evaluation[field] = value  # The run was started before this choice existed.
    config.update_from_flattened_dict(changes or {})
    checks.check(config)
    dataset, options = config.dataset, config.evaluation
    devices.check_processes()
    devices.check_batch_size(options.batch_size, 'evaluation.batch_size')
    devices.cache_compilations()
    size = tuple(dataset.image_size)

    builder = data.make_builder(dataset.name, dataset.category, dataset.root)
    reading.prepare(builder)
    count = reading.count_examples(builder, 'test')
    if not count:
        raise UserError(
            f"No test images in '{dataset.root}': it holds good images alone, so there is nothing to measure."
        )
    model = networks.make_model(**config.model)
    template = networks.init_variables(model, size, seed=0)
    predict = devices.parallel_predict(inference.make_predict(model, score_window=options.score_window))

    @functools.cache
    def read_all_files():
        """Before anything is computed, once: a file that cannot be read shows at once, not after an hour."""
        examples = reading.read_split(builder, 'test', size, antialias=dataset.antialias)
        for _ in tqdm(examples, 'Reading images', count, unit='image', leave=False, disable=None):
            pass

    def evaluate(step=None):
        step, variables = checkpoints.restore_variables(workdir, template, step)
        read_all_files()
        batches = reading.padded_batches(builder, size, options.batch_size, antialias=dataset.antialias)
        progress = tqdm(
            batches, f'Step {step}', -(-count // options.batch_size), unit='batch', leave=False, disable=None
        )
        about = {
            'step': step,
            'dataset': {'name': dataset.name, 'category': dataset.category, 'split': 'test', 'image_size': list(size)},
            'options': options.to_dict(),
        }
        found = write_evaluation(workdir, about, predict, variables, progress, options)
        print(results.table(found))
        print(f'Results and pictures: {runs.evaluation_folder(workdir, step)}')
        return found

    return evaluate


def write_evaluation(workdir, about, predict, variables, batches, options):
    """Predicts all batches and writes everything to evaluation/<step>/, the results last.

    Until all is there, it lies in a hidden folder that goes when something fails.

    Args:
        workdir: directory of the run.
        about: dict with 'step', 'dataset' and 'options', which the results begin with.
        predict: mapped by `devices.parallel_predict`.
        variables: of the model.
        batches: as `evaluation.run` takes them.
        options: the section `evaluation` of the config.

    Returns:
        What results.json holds.
    """
    folder = runs.evaluation_folder(workdir, about['step'])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to '{folder}': {error.strerror}.") from error
    with tempfile.TemporaryDirectory(prefix='.', suffix='.partial', dir=folder) as partial:
        partial = pathlib.Path(partial)
        shown, sheets = partial / 'report', partial / 'sheets'
        picture_folder = shown / report.PICTURE_FOLDER if options.report or options.sheet_rows else None
        for needed in (sheets, shown / report.PICTURE_FOLDER):
            needed.mkdir(parents=True)
        with metrics.PixelRanking(folder=partial) as pixels:
            rows = evaluation.run(
                predict,
                variables,
                batches,
                pixels,
                mask_rule=options.mask_rule,
                picture_folder=picture_folder,
            )
            found = results.summarise(
                [row['score'] for row in rows],
                [row['label'] for row in rows],
                [row['defect_type'] for row in rows],
                pixels=pixels,
                max_fpr=options.aupro_max_fpr,
            )
        found = {**about, **found, 'versions': versions()}
        if options.sheet_rows:
            threshold = found['threshold']['image']
            evaluation.write_sheets(sheets, rows, picture_folder, threshold, options.sheet_rows)
        if options.report:
            report.write_report(
                shown,
                found,
                rows,
                run_name=pathlib.Path(workdir).resolve().name,
                training_log=report.read_training_log(workdir),
                last_step=runs.finished_step(workdir),
                picture_shape=evaluation.picture_shape(picture_folder),
            )
        # Where results.json is, all that lies beside it belongs to it.
        replace(folder / 'results.json', None)
        # An earlier evaluation may have had pictures where this one has none.
        for name in evaluation.SHEETS:
            replace(folder / f'{name}.png', sheets / f'{name}.png')
        replace(folder / 'report', shown if options.report else None)
        columns = ('filename', 'defect_type', 'label', 'score')
        results.write_results(folder, found, [{name: row[name] for name in columns} for row in rows])
    return found


def replace(path, new):
    """Puts a new file or folder in the place of an old one, or of nothing; without a new one the old one goes."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if new is not None and new.exists():
        new.rename(path)


def versions():
    """What the numbers were made with."""
    return {module.__name__: module.__version__ for module in (jax, flax, np, cv2)}


if __name__ == '__main__':
    command_line.define_config_overrides()
    flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
    flags.DEFINE_string('step', None, "Step of the checkpoint, or 'all'; the newest by default.")
    flags.DEFINE_bool('watch', False, 'Evaluate each new checkpoint until the training, elsewhere, has ended.')
    command_line.run(main)
