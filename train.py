"""Trains DRAEM on a folder of good images.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart

Started again with the same flags, a run goes on from its newest checkpoint.
"""

import math
import os
import time

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

import data
from configs import checks, command_line
from data import pipeline, procedural, reading, synthesis
from draem_jax import checkpoints, devices, inference, metrics, networks, pictures, reporting, runs, training

_CONFIG = command_line.define_config_file()
_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)

_PICTURE_ROWS = 6


def main():
    run(_CONFIG.value, _WORKDIR.value)


def run(config, workdir):
    """Trains, or goes on training, one run.

    Args:
        config: ConfigDict with the fields of configs/default.py.
        workdir: directory of the run, made where it does not exist.

    Raises:
        UserError: something in the config or the files has to be mended; nothing was trained.
    """
    checks.check(config)
    synthesis.check_options(**config.synthesis)
    devices.check_batch_size(config.training.batch_size, 'training.batch_size')
    devices.check_batch_size(config.evaluation.batch_size, 'evaluation.batch_size')
    devices.cache_compilations()

    normals, held_out, textures = load_data(config)
    steps_per_epoch = math.ceil(len(normals) / config.training.batch_size)
    total_steps = config.training.steps or config.training.epochs * steps_per_epoch
    print(f'{len(normals)} normal images, {len(held_out)} held out, {len(textures)} textures; {total_steps} steps.')

    runs.start(workdir, config.to_dict())
    model = networks.make_model(**config.model, axis_name=devices.AXIS)
    optimizer = training.make_optimizer(total_steps, **config.optimizer)
    update = devices.parallel_update(training.make_update(model, optimizer, loss_options=dict(config.loss)))
    watch = make_watch(config, model, held_out if len(held_out) else normals, textures)

    with checkpoints.open_checkpoints(workdir, keep=config.training.keep_checkpoints) as manager:
        state = first_state(config, model, optimizer, manager)
        first_step = int(state.step)
        if first_step >= total_steps:
            print(f'Nothing to do: step {first_step} of {total_steps} is done.')
            return
        batches = pipeline.training_batches(
            normals,
            textures,
            seed=config.training.seed,
            batch_size=config.training.batch_size,
            first_batch=first_step,
            **config.synthesis,
        )
        with reporting.RunLog(workdir, first_step) as log:
            loop(config.training, state, total_steps, update, watch, batches, manager, log, bool(len(held_out)))
    finished = {'step': total_steps, 'time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}
    runs.write_json(os.path.join(workdir, 'finished.json'), finished)
    print(f'Done: step {total_steps}. Next: python evaluate.py --workdir={workdir}')


def load_data(config):
    """(training images, held-out images, textures), uint8 [N, H, W, 3] each."""
    dataset = config.dataset
    builder = data.make_builder(dataset.name, dataset.category, dataset.root)
    reading.prepare(builder)
    size = tuple(dataset.image_size)
    normals, held_out = reading.load_normals(
        builder, size, antialias=dataset.antialias, validation_fraction=dataset.validation_fraction
    )
    if dataset.texture_source == 'folder':
        textures = reading.load_textures(dataset.texture_root, size, limit=dataset.texture_count)
    else:
        textures = procedural.draw_textures(dataset.texture_count or 512, size, seed=0)
    return normals, held_out, textures


def first_state(config, model, optimizer, manager):
    """The state to start from: the newest checkpoint, or another run's networks, or random ones."""
    variables = networks.init_variables(model, config.dataset.image_size, config.training.seed)
    step = manager.latest_step()
    if step is not None:
        print(f'Going on from step {step}.')
        return checkpoints.restore_state(manager, training.init_state(variables, optimizer), step)
    if config.training.warm_start:
        step, variables = checkpoints.restore_variables(config.training.warm_start, variables)
        print(f"Starting from the networks of '{config.training.warm_start}', step {step}.")
    return training.init_state(variables, optimizer)


def make_watch(config, model, images, textures):
    """A function of the state that looks at simulated examples: -> (validation metrics, contact sheet)."""
    batch_size = config.evaluation.batch_size
    count = math.ceil(config.training.validation_examples / batch_size) * batch_size
    examples = pipeline.fixed_examples(images, textures, seed=config.training.seed + 1, count=count, **config.synthesis)
    masks = examples['mask'][..., 0]
    predict = devices.parallel_predict(inference.make_predict(model, score_window=config.evaluation.score_window))

    def watch(state):
        variables = {'params': state.params, 'batch_stats': state.batch_stats}
        parts = [
            devices.join(jax.device_get(predict(variables, devices.split(examples['augmented'][k : k + batch_size]))))
            for k in range(0, count, batch_size)
        ]
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        scores = {
            'validation/image_auroc': (metrics.auroc, outputs['score'], masks.any(axis=(1, 2))),
            'validation/pixel_auroc': (metrics.auroc, outputs['map'].ravel(), masks.ravel()),
            'validation/pixel_ap': (metrics.average_precision, outputs['map'].ravel(), masks.ravel()),
        }
        values = {name: metric(score, label) for name, (metric, score, label) in scores.items()}
        columns = ('normal', 'augmented', 'reconstruction', 'mask', 'prediction')
        rows = [
            (
                '',
                [
                    examples['image'][k],
                    examples['augmented'][k],
                    outputs['reconstruction'][k],
                    255 * masks[k],
                    pictures.heat(outputs['map'][k]),
                ],
            )
            for k in range(min(_PICTURE_ROWS, count))
        ]
        return values, pictures.sheet(rows, columns)

    return watch


def loop(options, state, total_steps, update, watch, batches, manager, log, has_validation):
    """The loop: an update a step, and a look at it now and then."""
    first_step = int(state.step)
    recent, since = [], time.monotonic()
    progress = tqdm(
        range(first_step + 1, total_steps + 1),
        initial=first_step * options.batch_size,
        total=total_steps * options.batch_size,
        unit='image',
        disable=None,
    )
    with progress:
        for step in range(first_step + 1, total_steps + 1):
            state, step_metrics = update(state, devices.split(next(batches)))
            recent.append(jax.device_get(step_metrics))
            progress.update(options.batch_size)

            if is_due(step, options.log_every_steps, total_steps):
                values = {name: np.mean([one[name] for one in recent]) for name in recent[0]}
                elapsed = time.monotonic() - since
                values['images_per_second'] = len(recent) * options.batch_size / elapsed
                log.scalars(step, values)
                recent, since = [], time.monotonic()
            validates = has_validation and is_due(step, options.validate_every_steps, total_steps)
            pictures_due = is_due(step, options.picture_every_steps, total_steps)
            if validates or pictures_due:
                values, sheet = watch(state)
                if validates:
                    log.scalars(step, values)
                if pictures_due:
                    log.picture(step, 'examples', sheet)
            if is_due(step, options.checkpoint_every_steps, total_steps):
                checkpoints.save(manager, state)


def is_due(step, every, last):
    """True on every `every`-th step and on the last one."""
    return step == last or (every > 0 and step % every == 0)


if __name__ == '__main__':
    command_line.run(main)
