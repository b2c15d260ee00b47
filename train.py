"""Trains DRAEM on a folder of good images.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart

Started again with the same flags, a run goes on from its newest checkpoint. SIGTERM or SIGINT (Ctrl-C) makes it finish
the step and save; a second Ctrl-C ends it at once.

On several hosts start the same command on each. Add --distributed where SLURM, Open MPI or a Cloud TPU slice says who
takes part; elsewhere say it with --coordinator, --process_count and --process_index. All hosts need the same --workdir.

Exit codes: 0 done; 1 a mistake that the user can mend; 42 asked to stop and saved, start again to go on; 3 diverged.
"""

import contextlib
import functools
import itertools
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import optax
import orbax.checkpoint as ocp
from absl import flags
from ml_collections import ConfigDict

from commands import advice, command_line, config_checks
from configs import default
from data import inputs, pipeline
from data.anomaly_check import check_anomalies
from data.banks import Bank
from data.synthesis.options import check_options
from draem_jax import checkpoints, devices, memory, preemption, processes, run_directory, run_lock
from draem_jax.detection import calibration, detector
from draem_jax.errors import Diverged, Preempted
from draem_jax.evaluation import validation
from draem_jax.model import networks, scoring
from draem_jax.training import divergence, profiling
from draem_jax.training.optimizer import make_optimizer, make_schedule
from draem_jax.training.run_log import RunLog, averages, describe, progress_bar
from draem_jax.training.state import TrainState, init_state, restore_newest_state, save_state
from draem_jax.training.steps import is_due, take_steps
from draem_jax.training.throughput import Throughput
from draem_jax.training.update import make_update

_PICTURE_ROWS = 6
_SMALLER_EVALUATION = 'A smaller --config.evaluation.batch_size takes less of it.'
_VALIDATION_SEED = 2**31 - 1  # All runs validate on the same examples. No training may have this seed (config_checks).


def main() -> None:
    workdir = command_line.folder('workdir')
    profile_steps = profiling.parse_steps(flags.FLAGS.profile_steps)
    if flags.FLAGS.deterministic:
        devices.make_deterministic()
    hosts = command_line.hosts()
    if hosts is not None:
        processes.connect(**hosts)
    with processes.explaining_lost_processes():
        try:
            train(flags.FLAGS.config, workdir, profile_steps)
        except Diverged:  # All processes see it at the same step. One that left before the others would end them.
            processes.meet('divergence')
            raise
        processes.meet('the end')


def train(config: ConfigDict, workdir: str, profile_steps: tuple[int, int] | None = None) -> None:
    """Trains, or goes on training, one run.

    Args:
        config: ConfigDict with the fields of configs/default.py.
        workdir: directory of the run, made if it does not exist.
        profile_steps: (first, last) of the steps, counted from this start, that are traced to <workdir>/profile.

    Raises:
        UserError: something in the config or the files has to be mended.
        Diverged: a loss or gradient was not finite; the checkpoints are from before it.
        Preempted: a signal asked to stop; a checkpoint of the last step made is on disk.
    """
    check(config)
    config = config_checks.expand_home(config)
    with run_lock.hold(workdir) if processes.is_main() else contextlib.nullcontext():
        devices.cache_compilations()
        processes.print_once(f'Training on {devices.describe()}.')
        settings = config.to_dict(), default.get_config().to_dict()
        run_directory.start(workdir, *settings, writes=False)  # Its mistakes show before images are read.
        processes.check_shared_folder(workdir, '--workdir')
        loaded = load_inputs(config, workdir)
        epoch_steps = math.ceil(len(loaded.normals) / config.training.batch_size)
        total_steps = config.training.steps or config.training.epochs * epoch_steps
        processes.print_once(f'{loaded} {total_steps} steps.')
        for warning in loaded.warnings:
            processes.print_once(f'Note: {warning}')
        made_from = {'real_defects': loaded.real_defects, **config.synthesis}
        check_anomalies(loaded.normals, loaded.textures, seed=config.training.seed, **made_from)
        with run_directory.explaining_a_full_disk(workdir, advice.on_disk(config)):
            if processes.is_main():
                run_directory.start(workdir, *settings)
                run_directory.write_held_out(workdir, loaded.held_out_names)
            with memory.explaining_full_memory(advice.on_memory(config)):
                last_step, has_trained = run_steps(config, workdir, loaded, total_steps, profile_steps)
                if has_trained or not run_directory.is_finished(workdir):
                    calibrate(config, workdir, last_step, loaded.held_out)
                    if processes.is_main():
                        run_directory.write_finished(workdir, last_step)
    processes.print_once(f'Done: step {last_step}. Next: python evaluate.py --workdir={workdir}')


def load_inputs(config: ConfigDict, workdir: str) -> inputs.Inputs:
    """Reads images and textures; all processes see the same, and a run keeps to the images that it has held out."""
    compare = check_same_files if processes.process_count() > 1 else None  # It takes a list of all files.
    loaded = inputs.load(**config.dataset, pinned=run_directory.held_out(workdir), before_reading=compare)
    run_directory.check_held_out(workdir, loaded.held_out_names)
    processes.check_same(str(loaded), str(loaded), 'Which of their files can be read?')
    return loaded


def run_steps(
    config: ConfigDict, workdir: str, loaded: inputs.Inputs, total_steps: int, profile_steps: tuple[int, int] | None
) -> tuple[int, bool]:
    """Makes the steps that remain, with all that is due in between.

    Returns:
        The number of the last step, and whether any was made in this call.

    Raises:
        Diverged, Preempted: as `train`.
    """
    options = config.training
    with (
        preemption.watch() as interruption,
        checkpoints.open_checkpoints(workdir, keep=options.keep_checkpoints) as manager,
    ):
        model, optimizer, schedule = build(config, total_steps)
        state = first_state(config, model, optimizer, manager)
        steps_done = int(state.step)
        if steps_done >= total_steps:
            processes.print_once(f'Nothing to do: step {steps_done} of {total_steps} is done.')
            return steps_done, False
        if processes.is_main():
            run_directory.remove_finished(workdir)
        update = devices.parallel_update(
            make_update(
                model, optimizer, slices=options.accumulation_slices, ema_decay=options.ema_decay, **config.loss
            )
        )
        flops = 3 * networks.forward_flops(model, tuple(config.dataset.image_size))
        speed = Throughput(options.batch_size, flops, devices.peak_tflops())
        is_silent = not processes.is_main()
        with (
            RunLog(workdir, steps_done, is_silent=is_silent) as log,
            profiling.tracing(pathlib.Path(workdir) / 'profile', profile_steps) as before_step,
            progress_bar(steps_done, total_steps, is_silent=is_silent) as bar,
        ):
            look = make_look(config, model, loaded, total_steps, log)
            start = time.monotonic()
            state = devices.replicate(state)
            batches = compile_update(update, state, devices.prefetch(make_batches(config, loaded, steps_done)))
            recent: list[dict[str, jax.Array]] = []  # metrics since the last log line
            for step in take_steps(
                update,
                state,
                batches,
                range(steps_done + 1, total_steps + 1),
                interruption=interruption,
                speed=speed,
                before_step=before_step,
            ):
                bar.update()
                recent.append(step.metrics)
                if step.number == steps_done + 1:
                    processes.print_once(f'First step after {time.monotonic() - start:.0f} s.')
                    speed.restart()
                is_log_due = is_due(step.number, options.log_every_steps, total_steps)
                is_checkpoint_due = step.stops or is_due(step.number, options.checkpoint_every_steps, total_steps)
                if is_log_due or is_checkpoint_due:
                    divergence.check(step.number, step.state, recent, schedule)
                if is_log_due:
                    values = averages(recent) | {'learning_rate': schedule(step.number - 1), **speed.values()}
                    bar.set_postfix_str(describe(values))
                    log.scalars(step.number, values)
                look(step.number, step.state)
                if is_checkpoint_due:
                    save_state(manager, step.state)
                if is_log_due:  # Only now, because pictures and checkpoints are not part of the training's speed.
                    recent = []
                    speed.restart()
    if step.number < total_steps:
        raise Preempted(
            f'Stopped by {interruption.signal or "a signal to another process"}: step {step.number} of {total_steps} '
            'is saved. Start again with the same flags to go on.'
        )
    return total_steps, True


def compile_update(
    update: devices.ParallelUpdate, state: TrainState, batches: Iterator[pipeline.Batch]
) -> Iterator[pipeline.Batch]:
    """Compiles the update for batches like the first, and says what memory it takes; returns all batches."""
    first = next(batches)
    start = time.monotonic()
    needed = memory.describe(update.compile(state, first))
    processes.print_once(f'Compiled in {time.monotonic() - start:.0f} s. A step takes {needed}.')
    return itertools.chain([first], batches)


def calibrate(config: ConfigDict, workdir: str, step: int, held_out: Bank) -> None:
    """Writes calibration.json from the held-out normal images as they are, if there are some."""
    if not len(held_out):
        return
    options = config.evaluation
    with memory.explaining_full_memory(_SMALLER_EVALUATION):
        calibrated = calibration.calibrate_run(
            workdir,
            detector.load(workdir, step, batch_size=options.batch_size, calibrated=False),
            iter(held_out),
            source='held-out normal images of the training split',
            target_fpr=options.target_fpr,
            pixel_target_fpr=options.pixel_target_fpr,
        )
    processes.print_once(calibration.describe(calibrated))


def check_same_files(names: Sequence[str]) -> None:
    """Raises UserError unless all processes see files of the same names."""
    question = 'Do --config.dataset.root and --config.dataset.texture_root hold the same files on all hosts?'
    processes.check_same(names, f'{len(names)} training images and textures', question)


def check(config: ConfigDict) -> None:
    """Checks all that can be checked before a file is read."""
    config_checks.check(config)
    check_options(**config.synthesis)
    processes.check_connected()
    slices = config.training.accumulation_slices
    devices.check_batch_size(config.training.batch_size, 'training.batch_size', slices)
    devices.check_batch_size(config.evaluation.batch_size, 'evaluation.batch_size')


def build(config: ConfigDict, total_steps: int) -> tuple[networks.Draem, optax.GradientTransformation, optax.Schedule]:
    """The networks, their optimizer, and its learning rate as a function of the step."""
    model = networks.make_model(**config.model, axis_name=devices.AXIS)
    schedule = make_schedule(total_steps, **config.optimizer)
    return model, make_optimizer(schedule), schedule


def first_state(
    config: ConfigDict, model: networks.Draem, optimizer: optax.GradientTransformation, manager: ocp.CheckpointManager
) -> TrainState:
    """The state to start from: the newest checkpoint, or another run's networks, or random ones."""
    variables = networks.init_variables(model, tuple(config.dataset.image_size), config.training.seed)
    keeps_averages = config.training.ema_decay > 0
    state = restore_newest_state(manager, init_state(variables, optimizer, keeps_averages=keeps_averages))
    step = None if state is None else int(state.step)
    newest = 'no checkpoint' if step is None else f'a checkpoint of step {step}'
    processes.check_same(step, newest, 'Is --workdir a folder that all hosts share?')
    if state is not None:
        processes.print_once(f'Going on from step {step}.')
        return state
    if config.training.warm_start:
        step, variables = checkpoints.restore_variables(config.training.warm_start, variables)
        processes.print_once(f"Starting from the networks of '{config.training.warm_start}', step {step}.")
    return init_state(variables, optimizer, keeps_averages=keeps_averages)


def make_batches(config: ConfigDict, loaded: inputs.Inputs, steps_done: int) -> Iterator[pipeline.Batch]:
    """This process's part of the training batches, from the first one that the run has not seen yet."""
    return pipeline.training_batches(
        loaded.normals,
        loaded.textures,
        seed=config.training.seed,
        batch_size=config.training.batch_size,
        first_batch=steps_done,
        process_index=processes.process_index(),
        process_count=processes.process_count(),
        real_defects=loaded.real_defects,
        **config.synthesis,
    )


def make_look(
    config: ConfigDict, model: networks.Draem, loaded: inputs.Inputs, total_steps: int, log: RunLog
) -> Callable[[int, TrainState], None]:
    """Makes look(step, state), which predicts fixed simulated examples when that is due, and logs scores and a picture.

    The examples are made from held-out normal images. If there are none, they are made from training images, and only
    pictures are logged.
    """
    options, batch_size = config.training, config.evaluation.batch_size
    validates = bool(len(loaded.held_out))
    wanted = options.validation_examples if validates else _PICTURE_ROWS
    score = {'score_window': config.evaluation.score_window, 'score_top': config.evaluation.score_top}
    predict = devices.parallel_predict(scoring.make_predict(model, **score))

    @functools.cache  # Made at the first look, so that the first step need not wait for them.
    def make_examples() -> pipeline.Batch:
        return pipeline.examples(
            loaded.held_out if validates else loaded.normals,
            loaded.textures,
            seed=_VALIDATION_SEED,
            positions=range(math.ceil(wanted / batch_size) * batch_size),
            real_defects=loaded.real_defects,
            **config.synthesis,
        )

    def look(step: int, state: TrainState) -> None:
        is_validation_due = validates and is_due(step, options.validate_every_steps, total_steps)
        is_picture_due = is_due(step, options.picture_every_steps, total_steps)
        if not is_validation_due and not is_picture_due:
            return
        examples = make_examples()
        with memory.explaining_full_memory(_SMALLER_EVALUATION):
            outputs = validation.predict_all(predict, state.variables, examples['augmented'], batch_size)
        if is_validation_due:
            log.scalars(step, validation.scores(outputs, examples['mask']))
        if is_picture_due:
            log.picture(step, 'examples', validation.sheet(examples, outputs, _PICTURE_ROWS))

    return look


if __name__ == '__main__':
    command_line.define_config_file()
    command_line.define_hosts()
    flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
    flags.DEFINE_string('profile_steps', '', "Steps to trace to <workdir>/profile, counted from this start: '20,25'.")
    flags.DEFINE_bool('deterministic', False, 'On a GPU: the same bits in every run, at some loss of speed.')
    command_line.main(main, leave=processes.exit_process)
