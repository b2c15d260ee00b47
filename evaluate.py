"""Evaluates a trained run on the test split of its data set.

    python evaluate.py --workdir=runs/quickstart
    python evaluate.py --workdir=runs/quickstart --step=all     every checkpoint, and a curve over them
    python evaluate.py --workdir=runs/quickstart --step=best    chosen with held-out normal images, if asked for
    python evaluate.py --workdir=runs/quickstart --watch        each new checkpoint, until the training has ended
    python evaluate.py --workdir=runs/mvtec                     of a sweep each run, and the table of all

Several processes share the predictions with the flags that train.py takes for it (--distributed and so on).

Writes results.json, results.csv, scores.csv, picture sheets and report/index.html to <workdir>/evaluation/<step>/. The
newest checkpoint counts unless --step names another; nothing is selected on the test images.
"""

import dataclasses
import functools
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable

import cv2
import flax
import jax
import numpy as np
from absl import flags
from tqdm import tqdm

import data
from configs import checks, command_line
from data import inputs, reading, simulated_test
from draem_jax import (
    calibration,
    checkpoints,
    devices,
    evaluation,
    inference,
    metrics,
    networks,
    report,
    results,
    runs,
    sweep_table,
)
from draem_jax.errors import UserError

_WATCH_SECONDS = 10


def main():
    workdir, step, hosts = flags.FLAGS.workdir, flags.FLAGS.step, command_line.hosts()
    if hosts is not None:
        if sweep_table.cells(workdir) or flags.FLAGS.watch:
            raise UserError('A sweep is evaluated in one process, and so is --watch: leave out the flags of several.')
        devices.connect(**hosts)
    with devices.explaining_lost_processes():
        exit_code = run_asked(workdir, step)
        devices.wait_for_all('the end')
    return exit_code


def run_asked(workdir, step):
    """What the flags ask for; returns the exit code."""
    if sweep_table.cells(workdir):
        if step is not None or flags.FLAGS.watch:
            raise UserError('Of a sweep the last checkpoint of each run is evaluated: leave out --step and --watch.')
        return run_sweep(workdir, command_line.changes())
    if flags.FLAGS.watch:
        if step is not None:
            raise UserError('--watch evaluates every new checkpoint: leave out --step.')
        watch(workdir, command_line.changes())
    elif step == 'all':
        run_all(workdir, command_line.changes())
    elif step == 'best':
        run(workdir, best_step(workdir), command_line.changes())
    elif step is None or step.isdecimal():
        run(workdir, None if step is None else int(step), command_line.changes())
    else:
        raise UserError(f"--step={step}: expected the step of a checkpoint, 'all' or 'best'.")
    return 0


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
    if devices.is_main():
        print(f'Curve over the checkpoints: {report.write_curve(workdir)}')


def best_step(workdir):
    """The step, of the checkpoints on disk, with the highest pixel AP on the validation's simulated anomalies.

    Raises:
        UserError: no checkpoint was validated.
    """
    steps = checkpoints.list_steps(workdir, needs_some=True)
    name = 'validation/pixel_ap'
    validated = {line['step']: line[name] for line in report.read_training_log(workdir) if line.get(name) is not None}
    candidates = [step for step in steps if step in validated]
    if not candidates:
        raise UserError(
            f"--step=best: none of the checkpoints in '{workdir}' (steps {', '.join(map(str, steps))}) was validated. "
            'That takes --config.dataset.validation_fraction above 0 and --config.training.validate_every_steps at the '
            'steps of checkpoints.'
        )
    best = max(candidates, key=validated.get)
    if devices.is_main():
        print(f'Step {best} has the highest validation pixel AP, {validated[best]:.3f}, of {len(candidates)} on disk.')
    return best


def run_sweep(workdir, changes=None):
    """Evaluates the finished runs of a sweep, each at its last checkpoint, and writes the table of all.

    Runs that have been evaluated are not again, unless `changes` ask for another way.

    Returns:
        The exit code: 1 where a run could not be evaluated; the others are.
    """
    evaluated, failures = [], 0
    for cell in sweep_table.cells(workdir):
        step = runs.finished_step(cell.workdir)
        if step is None:
            print(f'{cell.category}, seed {cell.seed}: its training has not ended, left out.')
            continue
        try:
            found = None if changes else sweep_table.read_results(cell, step)
            evaluated.append((cell, found or run(cell.workdir, step, changes)))
        except UserError as error:
            failures += 1
            print(f'Error: {cell.category}, seed {cell.seed}: {error}', file=sys.stderr)
    if not evaluated:
        raise UserError(f"No run in the sweep '{workdir}' could be evaluated.")
    rows = sweep_table.collect(evaluated)
    sweep_table.write(workdir, rows)
    print(sweep_table.markdown(rows))
    return int(failures > 0)


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
    """Gets ready what all checkpoints of a run share: evaluate(step or None) -> what results.json holds.

    Of several processes one writes, and gets it back; the others, which help to predict, get None.
    """
    own = runs.read_config(workdir)
    config = checks.of_run(own, changes or {})
    dataset, options = config.dataset, config.evaluation
    devices.check_processes()
    devices.check_batch_size(options.batch_size, 'evaluation.batch_size')
    devices.cache_compilations()
    size = tuple(dataset.image_size)
    trained_on = own['dataset']['category']
    is_unified = dataset.name != 'folder' and (trained_on == 'all' or ',' in trained_on)
    tests = open_tests(workdir, config)
    model = networks.make_model(**config.model)
    predict = devices.parallel_predict(inference.make_predict(model, score_window=options.score_window))

    @functools.cache
    def read_all_files():
        """Before anything is computed, once: a file that cannot be read shows at once, not after an hour."""
        for test in tests.values():
            for _ in tqdm(test.read(), 'Reading images', test.count, unit='image', leave=False, disable=None):
                pass

    def evaluate(step=None):
        step, variables = checkpoints.restore_variables(workdir, networks.variable_shapes(model, size), step)
        variables = devices.replicate(variables)
        read_all_files()
        calibrated, note = calibration.find(workdir, step=step, score_window=options.score_window, tile=0)
        folder = runs.evaluation_folder(workdir, step)
        found = {}
        for category, test in tests.items():
            batches = reading.padded_batches(test.read(), options.batch_size)
            total = -(-test.count // options.batch_size)
            if not devices.is_main():
                evaluation.help_predict(predict, variables, batches)
                continue
            progress = tqdm(batches, f'Step {step} {category}', total, unit='batch', leave=False, disable=None)
            about = {
                'step': step,
                'dataset': {
                    'name': dataset.name,
                    'category': category,
                    'split': test.split,
                    'image_size': list(size),
                    'note': test.note,
                },
                'options': options.to_dict(),
                'calibration': {'image': None, 'pixel': None, 'note': note},
            }
            if calibrated is not None:
                about['calibration'] |= {level: calibrated[level]['threshold'] for level in ('image', 'pixel')}
            target = folder / category if is_unified else folder
            found[category] = write_evaluation(workdir, target, about, predict, variables, progress, options)
            for line in filter(None, [f'{category}:' if is_unified else None, test.note]):
                print(line)
            print(results.table(found[category]))
        if not devices.is_main():
            return None
        print(f'Results and pictures: {folder}')
        if len(tests) == 1:
            return found[dataset.category]
        together = results.over_categories(found)
        results.write_over_categories(folder, together)
        print(results.category_table(together))
        return together

    return evaluate


@dataclasses.dataclass(frozen=True)
class Test:
    """What one category is tested on: its number of examples, a function that reads them, and how it came about."""

    count: int
    read: Callable
    split: str = 'test'
    note: str | None = None


def open_tests(workdir, config):
    """{category: Test} of what a config names: the test split, or, where there is none, held-out normal images."""
    dataset = config.dataset
    builders = data.make_builders(dataset.name, dataset.category, dataset.root, dataset.options)
    tests = {}
    for category, builder in builders.items():
        reading.prepare(builder)
        read = functools.partial(
            reading.read_split, builder, 'test', tuple(dataset.image_size), antialias=dataset.antialias
        )
        tests[category] = Test(reading.count_examples(builder, 'test'), read)
    without = [category for category, test in tests.items() if not test.count]
    if not without:
        return tests
    if len(tests) > 1:
        raise UserError(f"No test images of {', '.join(without)} in '{dataset.root}', so there is nothing to measure.")
    pinned = runs.held_out(workdir)
    if not pinned or not pinned.get(dataset.category, {}).get('test'):
        raise UserError(
            f"No test images in '{dataset.root}': it holds good images alone, and this run was trained on all of them. "
            'A new run with --config.dataset.test_fraction=0.1 keeps some for the test, to simulate anomalies on.'
        )
    examples = simulated_test.make(inputs.load(**dataset, pinned=pinned), **config.synthesis)
    return {dataset.category: Test(len(examples), lambda: examples, 'simulated', simulated_test.NOTE)}


def write_evaluation(workdir, folder, about, predict, variables, batches, options):
    """Predicts all batches and writes everything to a folder, the results last.

    Until all is there, it lies in a hidden folder that goes when something fails.

    Args:
        workdir: directory of the run.
        folder: where to; made if it is missing.
        about: dict with 'step', 'dataset', 'options' and perhaps 'calibration', which the results begin with.
        predict: mapped by `devices.parallel_predict`.
        variables: of the model.
        batches: as `evaluation.run` takes them.
        options: the section `evaluation` of the config.

    Returns:
        What results.json holds.
    """
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
                calibrated_threshold=about.get('calibration', {}).get('image'),
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
    command_line.define_hosts()
    flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
    flags.DEFINE_string(
        'step',
        None,
        "Step of the checkpoint, 'all', or 'best': of those on disk the one with the highest pixel AP on held-out "
        'normal images with simulated anomalies. The newest by default.',
    )
    flags.DEFINE_bool('watch', False, 'Evaluate each new checkpoint until the training, elsewhere, has ended.')
    command_line.run(main, leave=devices.leave)
