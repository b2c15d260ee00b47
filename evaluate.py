"""Evaluates a trained run on the test split of its data set.

    python evaluate.py --workdir=runs/quickstart
    python evaluate.py --workdir=runs/quickstart --step=all     every checkpoint, and a curve over them
    python evaluate.py --workdir=runs/quickstart --step=best    the best one in the validations of the training
    python evaluate.py --workdir=runs/quickstart --watch        each new checkpoint, until the training has ended
    python evaluate.py --workdir=runs/mvtec                     each run of a sweep, and the table of all
    python evaluate.py --workdir=runs/quickstart --out=mine     writes to mine/evaluation/<step>/, not to the run

Several processes share the predictions if each gets the flags that train.py takes for this (--distributed and so on).

Writes results.json, results.csv, scores.csv, picture sheets and report/index.html to <workdir>/evaluation/<step>/. The
newest checkpoint counts unless --step names another; nothing is selected on the test images. Results that were made in
another way, such as on other data, are not replaced: a folder <step>_<what differs>/ beside them takes the new ones.
"""

import functools
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from commands import command_line, config_checks, evaluation_records, sweep_table
from commands.cells import list_cells
from commands.evaluation_folders import Destination
from data import evaluation_images, streaming
from data.evaluation_sets import EvaluationSet, open_evaluation_sets
from draem_jax import checkpoints, devices, memory, processes, run_directory, storage
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
    workdir, step, hosts = command_line.folder('workdir'), flags.FLAGS.step, command_line.hosts()
    out = None if flags.FLAGS.out is None else command_line.folder('out')
    if hosts is not None:
        if list_cells(workdir) or flags.FLAGS.watch:
            raise UserError('A sweep is evaluated in one process, and so is --watch: leave out the flags of several.')
        processes.connect(**hosts)
    advice = 'Make room there, or take another folder with --out, and start again.'
    with processes.explaining_lost_processes():
        with (
            run_directory.explaining_a_full_disk(out or workdir, advice),
            memory.explaining_full_memory('A smaller --config.evaluation.batch_size takes less of it.'),
        ):
            exit_code = evaluate_as_asked(workdir, step, out)
        processes.meet('the end')
    return exit_code


def evaluate_as_asked(workdir: Workdir, step: str | None, out: Workdir | None = None) -> int:
    """Evaluates what the flags ask for; returns the exit code."""
    changes = command_line.changes()
    if list_cells(workdir):
        if step is not None or flags.FLAGS.watch:
            raise UserError('A sweep is evaluated at the last checkpoint of each run: leave out --step and --watch.')
        return evaluate_sweep(workdir, changes, out)
    if flags.FLAGS.watch:
        if step is not None:
            raise UserError('--watch evaluates every new checkpoint: leave out --step.')
        return watch(workdir, changes, out)
    if step == 'all':
        return evaluate_all(workdir, changes, out)
    number: int | None
    if step == 'best':
        number = best_step(workdir)
    elif step is None or (step.isdecimal() and len(step) < 20):
        number = None if step is None else int(step)
        checkpoints.check_step(workdir, number)  # A missing one shows before images are read.
    else:
        raise UserError(f"--step={step}: expected the step of a checkpoint, 'all' or 'best'.")
    evaluate_checkpoint(workdir, number, changes, out)
    return 0


def evaluate_checkpoint(
    workdir: Workdir, step: int | None = None, changes: Changes | None = None, out: Workdir | None = None
) -> Results:
    """Evaluates the checkpoint of a step, the newest by default; returns what results.json holds.

    Args:
        workdir: directory of the run.
        step: of the checkpoint.
        changes: {'section.field': value} that replace values of the run's config.
        out: folder that takes what would otherwise go to `workdir`.
    """
    return make_evaluate(workdir, changes, out)(step)


def evaluate_all(workdir: Workdir, changes: Changes | None = None, out: Workdir | None = None) -> int:
    """Evaluates every checkpoint on disk and writes the curve over them: evaluation/curve.csv and curve.svg.

    Returns:
        The exit code: 1 if a checkpoint is damaged. The others are evaluated all the same.
    """
    evaluate = make_evaluate(workdir, changes, out)
    outcomes = [
        evaluate_if_intact(evaluate, workdir, step) for step in checkpoints.list_steps(workdir, needs_some=True)
    ]
    if processes.is_main() and any(outcomes):
        write_curve(out or workdir, next(filter(None, outcomes)))
    return int(None in outcomes)


def evaluate_if_intact(evaluate: Callable[[int | None], Results], workdir: Workdir, step: int) -> Results | None:
    """Evaluates one of several checkpoints.

    Returns:
        What results.json holds; None where the checkpoint is damaged, which is said; and an empty dict where the
        training has removed it before its turn.
    """
    try:
        return evaluate(step)
    except (UserError, OSError, ValueError) as error:
        if step not in checkpoints.list_steps(workdir):
            processes.print_once(f'The checkpoint of step {step} was removed before it could be evaluated.')
            return {}
        if not isinstance(error, checkpoints.DamagedCheckpointError):
            raise
        processes.print_once(f'Error: {error} The others are evaluated.', file=sys.stderr)
        return None


def write_curve(folder: Workdir, record: Results) -> None:
    """Writes the curve over all evaluations in a folder, if these results are among them."""
    usual = run_directory.evaluation_folder(folder, record['step'])
    if evaluation_records.read_record(usual / 'results.json') == record:
        print(f'Curve over the checkpoints: {curve.write_curve(folder)}')
    else:
        print(f"No curve: it is over the results in '{usual.parent}' made in one way. With --out these get their own.")


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


def evaluate_sweep(workdir: Workdir, changes: Changes | None = None, out: Workdir | None = None) -> int:
    """Evaluates the finished runs of a sweep, each at its last checkpoint, and writes the table of all.

    A run that has already been evaluated is passed over, unless there are `changes` or `out`. With changes on which
    the numbers depend, the table is one of its own, table_<what differs>.csv and .md.

    Returns:
        The exit code: 1 if a run could not be evaluated. The others are evaluated all the same.
    """
    evaluated, failures, tag = [], 0, ''
    for cell in list_cells(workdir):
        try:
            step = run_directory.finished_step(cell.workdir)
            if step is None:
                print(f'{cell}: its training has not ended, left out.')
                continue
            record = None if changes or out else evaluation_records.read_matching(cell.workdir, step)
            below = None if out is None else pathlib.Path(out) / cell.workdir.relative_to(workdir)
            record = record or evaluate_checkpoint(cell.workdir, step, changes, below)
            evaluated.append((cell, record))
            tag = tag or evaluation_records.tag_of_record(record, cell.workdir)
        except UserError as error:
            failures += 1
            print(f'Error: {cell}: {error}', file=sys.stderr)
    if not evaluated:
        raise UserError(f"No run in the sweep '{workdir}' could be evaluated.")
    rows = sweep_table.collect(evaluated)
    print(f'Table: {sweep_table.write(out or workdir, rows, tag=tag)}')
    print(sweep_table.markdown(rows))
    return int(failures > 0)


def watch(
    workdir: Workdir, changes: Changes | None = None, out: Workdir | None = None, every_seconds: float = _WATCH_SECONDS
) -> int:
    """Evaluates each checkpoint that a training elsewhere writes, until the last one is done.

    Checkpoints that the training removes before their turn are passed over.

    Returns:
        The exit code: 1 if a checkpoint is damaged.
    """
    evaluate, done, exit_code = make_evaluate(workdir, changes, out), set[int](), 0
    while True:
        last_step = run_directory.finished_step(workdir)  # Read first, so that the list below holds it.
        steps = checkpoints.list_steps(workdir)
        if last_step is not None and last_step not in steps:
            raise UserError(f"'{workdir}' has ended at step {last_step}, but holds no checkpoint of it.")
        waiting = [step for step in steps if step not in done]
        if waiting:
            done.add(waiting[0])
            record = evaluate_if_intact(evaluate, workdir, waiting[0])
            if record is None:
                exit_code = 1
            if record:
                write_curve(out or workdir, record)
        elif last_step is not None:
            return exit_code
        else:
            time.sleep(every_seconds)


def make_evaluate(
    workdir: Workdir, changes: Changes | None = None, out: Workdir | None = None
) -> Callable[[int | None], Results]:
    """Prepares what all checkpoints of a run share; the arguments are those of `evaluate_checkpoint`.

    Returns:
        evaluate(step), which evaluates a checkpoint (None for the newest) and returns what results.json holds. If there
        are several processes, only the main one gets it; the others help to predict and get an empty dict.
    """
    own_values, file = run_directory.read_config(workdir), f'{workdir}/config.json'
    config = config_checks.config_of_run(own_values, changes or {}, file)
    dataset, options = config.dataset, config.evaluation
    processes.check_connected()
    if processes.is_main():
        advice = '--out=FOLDER writes to another folder.'
        run_directory.check_writable(run_directory.evaluation_folder(out or workdir, 0).parent, advice)
    devices.check_batch_size(options.batch_size, 'evaluation.batch_size')
    devices.cache_compilations()
    size = tuple(dataset.image_size)
    tests = open_evaluation_sets(dataset, config.synthesis, functools.partial(run_directory.held_out, workdir))
    model = networks.make_model(**config.model)
    predict = devices.parallel_predict(
        scoring.make_predict(model, score_window=options.score_window, score_top=options.score_top)
    )

    @functools.cache  # The files are read before the first checkpoint is evaluated.
    def prepare() -> tuple[dict[str, EvaluationSet], Destination]:
        opened, names = evaluation_images.read_all(tests, size)
        question = 'Does --config.dataset.root hold the same files on all hosts?'
        processes.check_same(names, f'{sum(test.count for test in tests.values())} test images', question)
        splits = {category: {'split': test.split, 'note': test.note} for category, test in tests.items()}
        return opened, Destination(workdir, own_values, config, names, splits, storage.is_folder, out)

    def evaluate(step: int | None) -> Results:
        try:
            step, variables = checkpoints.restore_variables(workdir, networks.variable_shapes(model, size), step)
        except checkpoints.DamagedCheckpointError:
            processes.check_same('damaged', 'a damaged checkpoint', 'Can all hosts read the files in --workdir?')
            raise
        processes.check_same(step, f'a checkpoint of step {step}', 'Is --workdir a folder that all hosts share?')
        variables = devices.replicate(variables)
        opened, destination = prepare()
        by_category = {}
        for category, test in opened.items():
            batches = streaming.padded_batches(test.read(), options.batch_size)
            if not processes.is_main():
                predict_share(predict, variables, batches)
                continue
            about = {
                'step': step,
                **destination.record(category),
                'options': options.to_dict(),
                'training_speed': run_directory.training_speed(workdir),
                'calibration': find_calibration(workdir, step, config, model),
            }
            total = -(-test.count // options.batch_size)
            by_category[category] = write_evaluation(
                workdir,
                destination.folder(step, category),
                about,
                predict,
                variables,
                tqdm(batches, f'Step {step} {category}', total, unit='batch', leave=False, disable=None),
                mask_rule=options.mask_rule,
                aupro_max_fpr=options.aupro_max_fpr,
                sheet_rows=options.sheet_rows,
                has_report=options.report,
            )
            for line in filter(None, [f'{category}:' if destination.is_unified else None, test.note]):
                print(line)
            print(results.table(by_category[category]))
        if not processes.is_main():
            return {}
        print(f'Results and pictures: {destination.folder(step)}')
        if len(opened) == 1:
            return by_category[dataset.category]
        together = results.over_categories(by_category) | destination.record()
        results.write_over_categories(destination.folder(step), together)
        print(results.category_table(together))
        return together

    return evaluate


def find_calibration(workdir: Workdir, step: int, config: ConfigDict, model: networks.Draem) -> dict[str, Any]:
    """The thresholds of a run that hold for an evaluation, and a sentence about them."""
    calibrated, note = calibration.find(
        workdir,
        step=step,
        score_window=config.evaluation.score_window,
        score_top=config.evaluation.score_top,
        anomaly_map=config.model.anomaly_map,
        tile=0,
        image_size=tuple(config.dataset.image_size),
        antialias=config.dataset.antialias,
        bit_depth=config.dataset.bit_depth,
        dtype=np.dtype(model.dtype).name,
    )
    return {level: calibrated and calibrated[level]['threshold'] for level in ('image', 'pixel')} | {'note': note}


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
    flags.DEFINE_string('out', None, 'Folder that takes what would otherwise be written to the directory of the run.')
    flags.DEFINE_bool('watch', False, 'Evaluate each new checkpoint until the training, elsewhere, has ended.')
    command_line.main(main, leave=processes.exit_process)
