"""Trains DRAEM on a folder of good images.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart

Started again with the same flags, a run goes on from its newest checkpoint. SIGTERM or SIGINT (Ctrl-C) makes it finish
the step and save; a second Ctrl-C ends it at once.

On several hosts start the same command on each, with --distributed where SLURM, Open MPI or a Cloud TPU slice says who
takes part; --coordinator, --process_count and --process_index say it elsewhere. All have to see the same --workdir.

Exit codes: 0 done; 1 a mistake that the user can mend; 42 asked to stop and saved, start again to go on; 3 diverged.
"""

import functools
import math
import os
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
    profiling,
    reporting,
    runs,
    throughput,
    training,
    validation,
)
from draem_jax.errors import Diverged, Preempted

_PICTURE_ROWS = 6
_VALIDATION_SEED = 2**31 - 1  # The same examples for every seed of training, and none that a training sees.


def main():
    profile_steps = profiling.parse_steps(flags.FLAGS.profile_steps)
    if flags.FLAGS.deterministic:
        make_deterministic()
    hosts = command_line.hosts()
    if hosts is not None:
        devices.connect(**hosts)
    try:
        run(flags.FLAGS.config, flags.FLAGS.workdir, profile_steps)
    except Diverged:  # Which all processes see at the same step: the first to leave would take the others with it.
        devices.wait_for_all('divergence')
        raise
    devices.wait_for_all('the end')


def make_deterministic():
    """Lets XLA take only operations that give the same bits every time; before anything else that touches JAX.

    On a CPU and on TPUs all do. On a GPU some do not, and are faster.
    """
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_deterministic_ops=true'


def run(config, workdir, profile_steps=None):
    """Trains, or goes on training, one run.

    Args:
        config: ConfigDict with the fields of configs/default.py.
        workdir: directory of the run, made where it does not exist.
        profile_steps: (first, last) of the steps, counted from this start, that are traced to <workdir>/profile.

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
    say(f'{loaded} {total_steps} steps.')
    for warning in loaded.warnings:
        say(f'Note: {warning}')

    runs.start(workdir, config.to_dict(), default.get_config().to_dict(), writes=devices.is_main())
    if devices.is_main():
        runs.write_held_out(workdir, loaded.held_out_names)
    with (
        devices.explaining_lost_processes(),
        runs.explaining_a_full_disk(workdir),
        preemption.watch() as interruption,
        checkpoints.open_checkpoints(workdir, keep=config.training.keep_checkpoints) as manager,
    ):
        model, optimizer, schedule = build(config, total_steps)
        state = first_state(config, model, optimizer, manager)
        first_step = int(state.step)
        if first_step >= total_steps:
            say(f'Nothing to do: step {first_step} of {total_steps} is done.')
            if not finished_file(workdir).exists():  # It ended between its last checkpoint and here.
                calibrate(config, workdir, first_step, loaded.held_out)
                finish(workdir, first_step)
            return
        if devices.is_main():
            finished_file(workdir).unlink(missing_ok=True)
        slices = config.training.accumulation_slices
        flops = 3 * networks.forward_flops(model, tuple(config.dataset.image_size))
        batches = pipeline.training_batches(
            loaded.normals,
            loaded.textures,
            seed=config.training.seed,
            batch_size=config.training.batch_size,
            first_batch=first_step,
            process_index=devices.process_index(),
            process_count=devices.process_count(),
            **config.synthesis,
        )
        with (
            reporting.RunLog(workdir, first_step, is_silent=not devices.is_main()) as log,
            profiling.tracing(pathlib.Path(workdir) / 'profile', profile_steps) as before_step,
        ):
            last_step, is_stopped = loop(
                config.training,
                devices.replicate(state),
                range(first_step + 1, total_steps + 1),
                devices.parallel_update(training.make_update(model, optimizer, slices=slices, **config.loss)),
                schedule,
                devices.prefetch(batches),
                make_look(config, model, loaded, total_steps, log),
                throughput.Throughput(config.training.batch_size, flops),
                before_step,
                log,
                manager,
                interruption,
            )
    if is_stopped:
        raise Preempted(
            f'Stopped by {interruption.signal or "a signal to another process"}: step {last_step} of {total_steps} is '
            'saved. Start again with the same flags to go on.'
        )
    with devices.explaining_lost_processes(), runs.explaining_a_full_disk(workdir):
        calibrate(config, workdir, total_steps, loaded.held_out)
        finish(workdir, total_steps)
    say(f'Done: step {total_steps}. Next: python evaluate.py --workdir={workdir}')


def say(line):
    """Prints a line, once for all processes."""
    if devices.is_main():
        print(line)


def calibrate(config, workdir, step, held_out):
    """Writes calibration.json from the held-out normal images as they are, where there are some."""
    if not len(held_out):
        return
    options = config.evaluation
    trained = detector.load(workdir, step, batch_size=options.batch_size)
    found = calibration.calibrate(
        trained.measure(held_out), target_fpr=options.target_fpr, pixel_target_fpr=options.pixel_target_fpr
    )
    if devices.is_main():
        calibration.write(workdir, found, source='held-out normal images of the training split', **trained.settings())
        print(calibration.find(workdir, **trained.settings())[1])


def finished_file(workdir):
    """What says that the last step is on disk; written last."""
    return pathlib.Path(workdir) / 'finished.json'


def finish(workdir, step):
    """Writes the finished file where it is not there yet."""
    if devices.is_main() and not finished_file(workdir).exists():
        now = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
        runs.write_json(finished_file(workdir), {'step': step, 'time': now})


def check(config):
    """Everything that can be said before a file is read."""
    checks.check(config)
    synthesis.check_options(**config.synthesis)
    devices.check_processes()
    slices = config.training.accumulation_slices
    devices.check_batch_size(config.training.batch_size, 'training.batch_size', slices)
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
    devices.check_same(
        None if state is None else int(state.step),
        'the step to go on from',
        'Is --workdir a folder that all hosts share?',
    )
    if state is not None:
        say(f'Going on from step {int(state.step)}.')
        return state
    if config.training.warm_start:
        step, variables = checkpoints.restore_variables(config.training.warm_start, variables)
        say(f"Starting from the networks of '{config.training.warm_start}', step {step}.")
    return training.init_state(variables, optimizer)


def make_look(config, model, loaded, total_steps, log):
    """look(step, state): predicts fixed simulated examples where that is due, and logs how well, and a picture.

    The examples are made of held-out normal images; where there are none, of training images, for the pictures only.
    """
    options, batch_size = config.training, config.evaluation.batch_size
    validates = bool(len(loaded.held_out))
    wanted = options.validation_examples if validates else _PICTURE_ROWS
    predict = devices.parallel_predict(inference.make_predict(model, score_window=config.evaluation.score_window))

    @functools.cache  # At the first look: the first step need not wait for them.
    def make_examples():
        return pipeline.examples(
            loaded.held_out if validates else loaded.normals,
            loaded.textures,
            seed=_VALIDATION_SEED,
            positions=range(math.ceil(wanted / batch_size) * batch_size),
            **config.synthesis,
        )

    def look(step, state):
        is_validation_due = validates and is_due(step, options.validate_every_steps, total_steps)
        is_picture_due = is_due(step, options.picture_every_steps, total_steps)
        if not is_validation_due and not is_picture_due:
            return
        examples = make_examples()
        variables = {'params': state.params, 'batch_stats': state.batch_stats}
        outputs = validation.predict_all(predict, variables, examples['augmented'], batch_size)
        if is_validation_due:
            log.scalars(step, validation.scores(outputs, examples['mask']))
        if is_picture_due:
            log.picture(step, 'examples', validation.sheet(examples, outputs, _PICTURE_ROWS))

    return look


def loop(options, state, steps, update, schedule, batches, look, speed, before_step, log, manager, interruption):
    """An update in each of `steps`, or up to an interruption, and now and then a look.

    Returns:
        The last step made, and whether it was an interruption that made it the last.
    """
    recent, start = [], time.monotonic()
    bar = tqdm(
        initial=steps[0] - 1,
        total=steps[-1],
        unit='step',
        disable=None if devices.is_main() else True,
        dynamic_ncols=True,
    )
    for k, step in enumerate(steps, 1):
        before_step(k, state)
        with speed.waiting():
            batch = next(batches)
        # Whether to stop is asked once in a step, for a signal may come at any moment.
        state, metrics, stops = update(state, batch, bool(interruption))
        recent.append(metrics)
        # One step in flight: the next batch is made meanwhile, and the host never runs far ahead.
        jax.block_until_ready(recent[-2:][0])
        speed.step()
        bar.update()
        if k == 1:
            say(f'First step after {time.monotonic() - start:.0f} s of compiling.')
            speed.restart()

        is_log_due = is_due(step, options.log_every_steps, steps[-1])
        is_checkpoint_due = stops or is_due(step, options.checkpoint_every_steps, steps[-1])
        if is_log_due or is_checkpoint_due:
            divergence.check(step, state, recent, schedule)
        if is_log_due:
            values = jax.tree.map(lambda *steps: np.mean(steps), *jax.device_get(recent))
            values |= {'learning_rate': schedule(step - 1), **speed.values()}
            bar.set_postfix_str(f'{values.get("images_per_second", 0):.0f} images/s, loss {values["loss"]:.3g}')
            log.scalars(step, values)
        look(step, state)
        if is_checkpoint_due:
            checkpoints.save(manager, state)
        if is_log_due:  # From here on: pictures and checkpoints are not part of the training's speed.
            recent = []
            speed.restart()
        if stops:
            break
    bar.close()
    return step, stops and step < steps[-1]


def is_due(step, every, last):
    """True on every `every`-th step and on the last one."""
    return step == last or (every > 0 and step % every == 0)


if __name__ == '__main__':
    command_line.define_config_file()
    command_line.define_hosts()
    flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
    flags.DEFINE_string(
        'profile_steps',
        '',
        "First and last step to write a trace of, to <workdir>/profile, such as '20,25'; counted from this start.",
    )
    flags.DEFINE_bool('deterministic', False, 'On a GPU: the same bits in every run, at some loss of speed.')
    command_line.run(main, leave=devices.leave)
