"""Trains DRAEM on a folder of good images.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart

Started again with the same flags, a run goes on from its newest checkpoint. SIGTERM or SIGINT (Ctrl-C) makes it finish
the step and save; a second Ctrl-C ends it at once.

Exit codes: 0 done; 1 a mistake that the user can mend; 42 asked to stop and saved, start again to go on; 3 diverged.
"""

import math
import pathlib
import time

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from configs import checks, command_line, default
from data import inputs, pipeline, synthesis
from draem_jax import (
    calibration,
    checkpoints,
    detector,
    devices,
    divergence,
    inference,
    networks,
    preemption,
    reporting,
    runs,
    training,
    validation,
)
from draem_jax.errors import Preempted

_PICTURE_ROWS = 6
_VALIDATION_SEED = 2**31 - 1  # The same examples for every seed of training, and none that a training sees.


def main():
    run(flags.FLAGS.config, flags.FLAGS.workdir)


def run(config, workdir):
    """Trains, or goes on training, one run.

    Args:
        config: ConfigDict with the fields of configs/default.py.
        workdir: directory of the run, made where it does not exist.

    Raises:
        UserError: something in the config or the files has to be mended.
        Diverged: a loss or gradient was not finite; the checkpoints are from before it.
        Preempted: a signal asked to stop; a checkpoint of the last step made is on disk.
    """
    check(config)
    devices.cache_compilations()
    loaded = inputs.load(**config.dataset, pinned=runs.held_out(workdir))
    epoch_steps = math.ceil(len(loaded.normals) / config.training.batch_size)
    total_steps = config.training.steps or config.training.epochs * epoch_steps
    print(f'{loaded} {total_steps} steps.')
    for warning in loaded.warnings:
        print(f'Note: {warning}')

    runs.start(workdir, config.to_dict(), default.get_config().to_dict())
    runs.write_held_out(workdir, loaded.held_out_names)
    with (
        runs.explaining_a_full_disk(workdir),
        preemption.watch() as interruption,
        checkpoints.open_checkpoints(workdir, keep=config.training.keep_checkpoints) as manager,
    ):
        model, optimizer, schedule = build(config, total_steps)
        state = first_state(config, model, optimizer, manager)
        first_step = int(state.step)
        if first_step >= total_steps:
            print(f'Nothing to do: step {first_step} of {total_steps} is done.')
            if not finished_file(workdir).exists():  # It ended between its last checkpoint and here.
                calibrate(config, workdir, first_step, loaded.held_out)
            finish(workdir, first_step)
            return
        finished_file(workdir).unlink(missing_ok=True)
        update = devices.parallel_update(training.make_update(model, optimizer, **config.loss))
        look = make_look(config, model, loaded)
        batches = pipeline.training_batches(
            loaded.normals,
            loaded.textures,
            seed=config.training.seed,
            batch_size=config.training.batch_size,
            first_batch=first_step,
            **config.synthesis,
        )
        with reporting.RunLog(workdir, first_step) as log:
            validates = bool(len(loaded.held_out))
            last_step = loop(
                config.training,
                state,
                first_step,
                total_steps,
                update,
                schedule,
                batches,
                look,
                validates,
                log,
                manager,
                interruption,
            )
    if interruption:
        raise Preempted(
            f'Stopped by {interruption.signal}: step {last_step} of {total_steps} is saved. '
            'Start again with the same flags to go on.'
        )
    with runs.explaining_a_full_disk(workdir):
        calibrate(config, workdir, total_steps, loaded.held_out)
        finish(workdir, total_steps)
    print(f'Done: step {total_steps}. Next: python evaluate.py --workdir={workdir}')


def calibrate(config, workdir, step, held_out):
    """Writes calibration.json from the held-out normal images as they are, where there are some."""
    if not len(held_out):
        return
    options = config.evaluation
    trained = detector.load(workdir, step, batch_size=options.batch_size)
    found = calibration.calibrate(
        trained.measure(held_out), target_fpr=options.target_fpr, pixel_target_fpr=options.pixel_target_fpr
    )
    calibration.write(workdir, found, source='held-out normal images of the training split', **trained.settings())
    print(calibration.find(workdir, **trained.settings())[1])


def finished_file(workdir):
    """What says that the last step is on disk; written last."""
    return pathlib.Path(workdir) / 'finished.json'


def finish(workdir, step):
    """Writes the finished file where it is not there yet."""
    if not finished_file(workdir).exists():
        now = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
        runs.write_json(finished_file(workdir), {'step': step, 'time': now})


def check(config):
    """Everything that can be said before a file is read."""
    checks.check(config)
    synthesis.check_options(**config.synthesis)
    devices.check_processes()
    devices.check_batch_size(config.training.batch_size, 'training.batch_size')
    devices.check_batch_size(config.evaluation.batch_size, 'evaluation.batch_size')


def build(config, total_steps):
    """(networks, optimizer, its learning rate as a function of the step)."""
    model = networks.make_model(**config.model, axis_name=devices.AXIS)
    schedule = training.make_schedule(total_steps, **config.optimizer)
    return model, training.make_optimizer(schedule), schedule


def first_state(config, model, optimizer, manager):
    """The state to start from: the newest checkpoint, or another run's networks, or random ones."""
    variables = networks.init_variables(model, tuple(config.dataset.image_size), config.training.seed)
    state = checkpoints.restore_newest_state(manager, training.init_state(variables, optimizer))
    if state is not None:
        print(f'Going on from step {int(state.step)}.')
        return state
    if config.training.warm_start:
        step, variables = checkpoints.restore_variables(config.training.warm_start, variables)
        print(f"Starting from the networks of '{config.training.warm_start}', step {step}.")
    return training.init_state(variables, optimizer)


def make_look(config, model, loaded):
    """A function of the state that predicts fixed simulated examples: -> (examples, predictions).

    The examples are made of held-out normal images; where there are none, of training images, for the pictures only.
    """
    batch_size = config.evaluation.batch_size
    wanted = config.training.validation_examples if len(loaded.held_out) else _PICTURE_ROWS
    examples = pipeline.examples(
        loaded.held_out if len(loaded.held_out) else loaded.normals,
        loaded.textures,
        seed=_VALIDATION_SEED,
        positions=range(math.ceil(wanted / batch_size) * batch_size),
        **config.synthesis,
    )
    predict = devices.parallel_predict(inference.make_predict(model, score_window=config.evaluation.score_window))

    def look(state):
        variables = {'params': state.params, 'batch_stats': state.batch_stats}
        return examples, validation.predict_all(predict, variables, examples['augmented'], batch_size)

    return look


def loop(
    options, state, first_step, total_steps, update, schedule, batches, look, validates, log, manager, interruption
):
    """The steps from `first_step` to `total_steps`, or to an interruption: an update each, and now and then a look.

    Returns:
        The last step made.
    """
    recent, mark = [], (first_step, time.monotonic())
    bar = tqdm(initial=first_step, total=total_steps, unit='step', disable=None, dynamic_ncols=True)
    for step in range(first_step + 1, total_steps + 1):
        state, metrics = update(state, devices.split(next(batches)))
        recent.append(metrics)
        # One step in flight: the next batch is made meanwhile, and the host never runs far ahead.
        jax.block_until_ready(recent[-2:][0])
        bar.update()
        if step == first_step + 1:
            print(f'First step after {time.monotonic() - mark[1]:.0f} s of compiling.')
            mark = (step, time.monotonic())

        stops = bool(interruption)  # Asked once, for a signal may come at any moment.
        is_log_due = is_due(step, options.log_every_steps, total_steps)
        is_checkpoint_due = stops or is_due(step, options.checkpoint_every_steps, total_steps)
        if is_log_due or is_checkpoint_due:
            divergence.check(step, state, recent, schedule)
        if is_log_due:
            values = jax.tree.map(lambda *steps: np.mean(steps), *jax.device_get(recent))
            values['learning_rate'] = schedule(step - 1)
            if step > mark[0]:
                rate = (step - mark[0]) * options.batch_size / (time.monotonic() - mark[1])
                values['images_per_second'] = rate
                bar.set_postfix_str(f'{rate:.0f} images/s, loss {values["loss"]:.3g}')
            log.scalars(step, values)
        is_picture_due = is_due(step, options.picture_every_steps, total_steps)
        is_validation_due = validates and is_due(step, options.validate_every_steps, total_steps)
        if is_picture_due or is_validation_due:
            examples, outputs = look(state)
            if is_validation_due:
                log.scalars(step, validation.scores(outputs, examples['mask']))
            if is_picture_due:
                log.picture(step, 'examples', validation.sheet(examples, outputs, _PICTURE_ROWS))
        if is_checkpoint_due:
            checkpoints.save(manager, state)
        if is_log_due:  # From here on: pictures and checkpoints are not part of the training's speed.
            recent, mark = [], (step, time.monotonic())
        if stops:
            break
    bar.close()
    return step


def is_due(step, every, last):
    """True on every `every`-th step and on the last one."""
    return step == last or (every > 0 and step % every == 0)


if __name__ == '__main__':
    command_line.define_config_file()
    flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
    command_line.run(main)
