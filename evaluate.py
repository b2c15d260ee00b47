"""Evaluates a trained run on the test split of its data set.

    python evaluate.py --workdir=runs/quickstart
    python evaluate.py --workdir=runs/quickstart --step=all     every checkpoint, and a curve over them
    python evaluate.py --workdir=runs/quickstart --step=best    the best one in the validations of the training
    python evaluate.py --workdir=runs/quickstart --watch        each new checkpoint, until the training has ended
    python evaluate.py --workdir=runs/mvtec                     each run of a sweep, and the table of all

Several processes share the predictions if each gets the flags that train.py takes for this (--distributed and so on).

Writes results.json, results.csv, scores.csv, picture sheets and report/index.html to <workdir>/evaluation/<step>/. The
newest checkpoint counts unless --step names another; nothing is selected on the test images.
"""

import functools
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from commands import command_line, config_checks, sweep_table
from commands.cells import list_cells, read_results
from data import streaming
from data.evaluation_sets import EvaluationSet, open_evaluation_sets
from draem_jax import checkpoints, devices, memory, processes, run_directory
from draem_jax.detection import calibration
from draem_jax.errors import UserError
from draem_jax.evaluation import curve, results
from draem_jax.evaluation.evaluate import predict_share, write_evaluation
from draem_jax.evaluation.results import Results
from draem_jax.model import networks, scoring

_WATCH_SECONDS = 10

Workdir = str | os.PathLike[str]  # the directory of a run or of a sweep
Changes = Mapping[str, Any]  # {'section.field': value}: new values in a run's config, such as where the data lie


def main() -> int:
    workdir, step, hosts = flags.FLAGS.workdir, flags.FLAGS.step, command_line.hosts()
    if hosts is not None:
        if list_cells(workdir) or flags.FLAGS.watch:
            raise UserError('A sweep is evaluated in one process, and so is --watch: leave out the flags of several.')
        processes.connect(**hosts)
    with processes.explaining_lost_processes():
        with memory.explaining_full_memory('A smaller --config.evaluation.batch_size takes less of it.'):
            exit_code = evaluate_as_asked(workdir, step)
        processes.meet('the end')
    return exit_code


def evaluate_as_asked(workdir: Workdir, step: str | None) -> int:
    """Evaluates what the flags ask for; returns the exit code."""
    changes = command_line.changes()
    if list_cells(workdir):
        if step is not None or flags.FLAGS.watch:
            raise UserError('A sweep is evaluated at the last checkpoint of each run: leave out --step and --watch.')
        return evaluate_sweep(workdir, changes)
    if flags.FLAGS.watch:
        if step is not None:
            raise UserError('--watch evaluates every new checkpoint: leave out --step.')
        watch(workdir, changes)
    elif step == 'all':
        evaluate_all(workdir, changes)
    elif step == 'best':
        evaluate_checkpoint(workdir, best_step(workdir), changes)
    elif step is None or step.isdecimal():
        number = None if step is None else int(step)
        checkpoints.check_step(workdir, number)  # A missing one shows before images are read.
        evaluate_checkpoint(workdir, number, changes)
    else:
        raise UserError(f"--step={step}: expected the step of a checkpoint, 'all' or 'best'.")
    return 0


def evaluate_checkpoint(workdir: Workdir, step: int | None = None, changes: Changes | None = None) -> Results:
    """Evaluates the checkpoint of a step, the newest by default; returns what results.json holds."""
    return make_evaluate(workdir, changes)(step)


def evaluate_all(workdir: Workdir, changes: Changes | None = None) -> None:
    """Evaluates every checkpoint on disk and writes the curve over them: evaluation/curve.csv and curve.svg."""
    evaluate = make_evaluate(workdir, changes)
    for step in checkpoints.list_steps(workdir, needs_some=True):
        evaluate(step)
    if processes.is_main():
        print(f'Curve over the checkpoints: {curve.write_curve(workdir)}')


def best_step(workdir: Workdir) -> int:
    """The step of the checkpoint on disk with the highest pixel AP on the validation's simulated anomalies.

    Raises:
        UserError: no checkpoint was validated.
    """
    steps = checkpoints.list_steps(workdir, needs_some=True)
    name = 'validation/pixel_ap'
    validated = {
        line['step']: line[name] for line in run_directory.read_training_log(workdir) if line.get(name) is not None
    }
    candidates = [step for step in steps if step in validated]
    if not candidates:
        raise UserError(
            f"--step=best: none of the checkpoints in '{workdir}' (steps {', '.join(map(str, steps))}) was validated. "
            'That takes --config.dataset.validation_fraction above 0 and --config.training.validate_every_steps at the '
            'steps of checkpoints.'
        )
    best = max(candidates, key=lambda step: validated[step])
    processes.print_once(
        f'Step {best} has the highest validation pixel AP, {validated[best]:.3f}, of {len(candidates)} on disk.'
    )
    return best


def evaluate_sweep(workdir: Workdir, changes: Changes | None = None) -> int:
    """Evaluates the finished runs of a sweep, each at its last checkpoint, and writes the table of all.

    A run that has already been evaluated is passed over, unless there are `changes`.

    Returns:
        The exit code: 1 if a run could not be evaluated. The others are evaluated all the same.
    """
    evaluated, failures = [], 0
    for cell in list_cells(workdir):
        step = run_directory.finished_step(cell.workdir)
        if step is None:
            print(f'{cell.category}, seed {cell.seed}: its training has not ended, left out.')
            continue
        try:
            record = None if changes else read_results(cell, step)
            evaluated.append((cell, record or evaluate_checkpoint(cell.workdir, step, changes)))
        except UserError as error:
            failures += 1
            print(f'Error: {cell.category}, seed {cell.seed}: {error}', file=sys.stderr)
    if not evaluated:
        raise UserError(f"No run in the sweep '{workdir}' could be evaluated.")
    rows = sweep_table.collect(evaluated)
    sweep_table.write(workdir, rows)
    print(sweep_table.markdown(rows))
    return int(failures > 0)


def watch(workdir: Workdir, changes: Changes | None = None, every_seconds: float = _WATCH_SECONDS) -> None:
    """Evaluates each checkpoint that a training elsewhere writes, until the last one is done.

    Checkpoints that the training removes before their turn are passed over.
    """
    evaluate, done = make_evaluate(workdir, changes), set[int]()
    while True:
        last_step = run_directory.finished_step(workdir)  # Read first, so that the list below holds it.
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
            curve.write_curve(workdir)
        elif last_step is not None:
            return
        else:
            time.sleep(every_seconds)


def make_evaluate(workdir: Workdir, changes: Changes | None = None) -> Callable[[int | None], Results]:
    """Prepares what all checkpoints of a run share.

    Returns:
        evaluate(step), which evaluates a checkpoint (None for the newest) and returns what results.json holds. If there
        are several processes, only the main one gets it; the others help to predict and get an empty dict.
    """
    own_config = run_directory.read_config(workdir)
    config = config_checks.config_of_run(own_config, changes or {}, f'{workdir}/config.json')
    dataset, options = config.dataset, config.evaluation
    processes.check_connected()
    devices.check_batch_size(options.batch_size, 'evaluation.batch_size')
    devices.cache_compilations()
    size = tuple(dataset.image_size)
    trained_on = own_config['dataset']['category']
    is_unified = dataset.name != 'folder' and (trained_on == 'all' or ',' in trained_on)
    tests = open_evaluation_sets(dataset, config.synthesis, functools.partial(run_directory.held_out, workdir))
    model = networks.make_model(**config.model)
    predict = devices.parallel_predict(scoring.make_predict(model, score_window=options.score_window))
    # Cached, so that the files are read only once, before the first checkpoint.
    check_files = functools.cache(functools.partial(_read_all, tests))

    def evaluate(step: int | None) -> Results:
        step, variables = checkpoints.restore_variables(workdir, networks.variable_shapes(model, size), step)
        processes.check_same(step, f'a checkpoint of step {step}', 'Is --workdir a folder that all hosts share?')
        variables = devices.replicate(variables)
        check_files()
        folder = run_directory.evaluation_folder(workdir, step)
        by_category = {}
        for category, test in tests.items():
            about = _about(workdir, step, config, category, test)
            batches = streaming.padded_batches(test.read(), options.batch_size)
            if not processes.is_main():
                predict_share(predict, variables, batches)
                continue
            total = -(-test.count // options.batch_size)
            by_category[category] = write_evaluation(
                workdir,
                folder / category if is_unified else folder,
                about,
                predict,
                variables,
                tqdm(batches, f'Step {step} {category}', total, unit='batch', leave=False, disable=None),
                mask_rule=options.mask_rule,
                aupro_max_fpr=options.aupro_max_fpr,
                sheet_rows=options.sheet_rows,
                has_report=options.report,
            )
            for line in filter(None, [f'{category}:' if is_unified else None, test.note]):
                print(line)
            print(results.table(by_category[category]))
        if not processes.is_main():
            return {}
        print(f'Results and pictures: {folder}')
        if len(tests) == 1:
            return by_category[dataset.category]
        together = results.over_categories(by_category)
        results.write_over_categories(folder, together)
        print(results.category_table(together))
        return together

    return evaluate


def _read_all(tests: Mapping[str, EvaluationSet]) -> None:
    """Reads every image once before anything is computed, so a damaged file shows at once, not after an hour.

    Raises:
        UserError: a file cannot be read, or another process has read other files.
    """
    names = []
    for test in tests.values():
        for example in tqdm(test.read(), 'Reading images', test.count, unit='image', leave=False, disable=None):
            names.append(example['filename'])
    question = 'Does --config.dataset.root hold the same files on all hosts?'
    processes.check_same(names, f'{len(names)} test images', question)


def _about(workdir: Workdir, step: int, config: ConfigDict, category: str, test: EvaluationSet) -> dict[str, Any]:
    """What results.json begins with: which checkpoint was tested on which images, and how."""
    calibrated, note = calibration.find(workdir, step=step, score_window=config.evaluation.score_window, tile=0)
    thresholds = {level: calibrated and calibrated[level]['threshold'] for level in ('image', 'pixel')}
    return {
        'step': step,
        'dataset': {
            'name': config.dataset.name,
            'category': category,
            'split': test.split,
            'image_size': list(config.dataset.image_size),
            'note': test.note,
        },
        'options': config.evaluation.to_dict(),
        'training_speed': run_directory.training_speed(workdir),
        'calibration': {**thresholds, 'note': note},
    }


if __name__ == '__main__':
    command_line.define_config_overrides()
    command_line.define_hosts()
    flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
    flags.DEFINE_string(
        'step',
        None,
        "Step of the checkpoint; 'all'; or 'best', the one with the highest pixel AP on held-out normal images with "
        'simulated anomalies. The newest by default.',
    )
    flags.DEFINE_bool('watch', False, 'Evaluate each new checkpoint until the training, elsewhere, has ended.')
    command_line.main(main, leave=processes.exit_process)
