"""The directory of a run: what lies where, and what is written there as JSON.

config.json              the resolved config, with a schema version
checkpoints/<step>/      see draem_jax.checkpoints
held_out.json            which normal images are kept out of training
damaged/<step>/          checkpoints that could not be restored, put aside
metrics.jsonl            one line for each log step; TensorBoard event files beside it
calibration.json         see draem_jax.detection.calibration
finished.json            the last step and the time, written last
evaluation/<step>/       results; curve.csv and curve.svg beside these folders
predictions/             see draem_jax.detection.predictions
profile/                 traces, from train.py --profile_steps
"""

import contextlib
import errno
import json
import os
import pathlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from draem_jax.errors import UserError

Config = dict[str, Any]  # {section: {field: plain value}}
HeldOutNames = Mapping[str, Mapping[str, Sequence[str]]]  # {category: {'validation': names, 'test': names}}

SCHEMA = 1
_FINISHED = 'finished.json'
_SPEEDS = ('images_per_second', 'step_seconds', 'input_wait_seconds', 'tflops_per_second', 'mfu')

# What may change between two starts of one run: where things lie, how often to look, and the length of the training,
# with which the schedule of the learning rate stretches.
_MAY_CHANGE = {
    'dataset.root',
    'dataset.texture_root',
    'dataset.skip_unreadable',
    'dataset.cache',
    'dataset.cache_folder',
    'dataset.cache_limit_gb',
    'training.epochs',
    'training.steps',
    'training.log_every_steps',
    'training.validate_every_steps',
    'training.picture_every_steps',
    'training.checkpoint_every_steps',
    'training.keep_checkpoints',
    'training.warm_start',
}


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces a file at once: a reader, or the next start after a crash, never meets half of it."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    # Names of image files in other encodings are written back byte for byte.
    partial.write_text(text, encoding='utf-8', errors='surrogateescape', newline='')
    os.replace(partial, path)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a value as strict JSON, by way of `write_text`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


@contextlib.contextmanager
def explaining_a_full_disk(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Turns any error that a full disk raises in the `with` block into a UserError."""
    try:
        yield
    except (OSError, ValueError) as error:  # The storage below Orbax raises the latter.
        full = [text for text in map(os.strerror, (errno.ENOSPC, errno.EDQUOT)) if text in str(error)]
        if not full or isinstance(error, UserError):
            raise
        raise UserError(
            f"{full[0]}: writing to '{workdir}' failed. The checkpoints before it are whole. Make room there, for one "
            'checkpoint more than --config.training.keep_checkpoints, and start again with the same flags to go on.'
        ) from error


def start(
    workdir: str | os.PathLike[str],
    config: Config,
    defaults: Config | None = None,
    *,
    writes: bool = True,
) -> None:
    """Creates a run's directory with its config, or checks that the run in it was started with the same config.

    Args:
        workdir: path.
        config: of this start.
        defaults: the values of fields that did not exist when an earlier version started the run.
        writes: False only checks, as all but one of several processes should.

    Raises:
        UserError: the directory holds a run of another config.
    """
    path = pathlib.Path(workdir) / 'config.json'
    config, defaults = (json.loads(json.dumps(values)) for values in (config, defaults or {}))
    if path.exists():
        earlier = read_config(workdir)
        for field in sorted(_flat(earlier).keys() | _flat(config).keys()):
            before, now = _flat(earlier).get(field, _flat(defaults).get(field)), _flat(config).get(field)
            if before != now and field not in _MAY_CHANGE and not field.startswith('evaluation.'):
                raise UserError(
                    f"'{workdir}' holds a run with {field}={before!r}, not {now!r}. Take another --workdir, "
                    f'or --config.{field}={before!r} to go on with it.'
                )
    try:
        if writes:
            write_json(path, {'schema': SCHEMA, **config})
    except OSError as error:
        raise UserError(f"Cannot write to --workdir '{workdir}': {error.strerror}.") from error


def read_config(workdir: str | os.PathLike[str]) -> Config:
    """The config that a run was started with, without its schema version."""
    path = pathlib.Path(workdir) / 'config.json'
    if not path.is_file():
        raise UserError(
            f"No 'config.json' in '{workdir}': it is not the directory of a run. Pass what train.py wrote to."
        )
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"'{path}' is not JSON: {error}.") from error
    schema = config.pop('schema', None) if isinstance(config, dict) else None
    if schema != SCHEMA:
        raise UserError(f"'{path}' has schema {schema!r}; this version reads {SCHEMA}.")
    return config


def held_out(workdir: str | os.PathLike[str]) -> HeldOutNames | None:
    """Which images a run keeps out of training, as `data.inputs.Inputs.held_out_names`; None before its first start."""
    path = pathlib.Path(workdir) / 'held_out.json'
    try:
        return json.loads(path.read_text(encoding='utf-8', errors='surrogateescape'))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"'{path}' is not JSON: {error}.") from error


def write_held_out(workdir: str | os.PathLike[str], names: HeldOutNames) -> None:
    """Writes what `held_out` reads, once: later starts keep to it, even if images have been added to the data set."""
    if held_out(workdir) is None:
        write_json(pathlib.Path(workdir) / 'held_out.json', names)


def finished_step(workdir: str | os.PathLike[str]) -> int | None:
    """The step at which a run's training ended, or None while finished.json is not there."""
    path = pathlib.Path(workdir) / _FINISHED
    try:
        return int(json.loads(path.read_text())['step'])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' does not name a step: {error}. Start train.py again, which writes it.") from error


def is_finished(workdir: str | os.PathLike[str]) -> bool:
    """Whether finished.json is there and names a step."""
    try:
        return finished_step(workdir) is not None
    except UserError:
        return False


def write_finished(workdir: str | os.PathLike[str], step: int) -> None:
    """Writes finished.json, which says that the last step is on disk."""
    now = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
    write_json(pathlib.Path(workdir) / _FINISHED, {'step': step, 'time': now})


def remove_finished(workdir: str | os.PathLike[str]) -> None:
    """Removes finished.json, because the training goes on."""
    (pathlib.Path(workdir) / _FINISHED).unlink(missing_ok=True)


def read_training_log(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl as dicts, without those that a crash cut short; [] where there is no such file."""
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    lines: list[dict[str, Any]] = []
    if path.is_file():
        for text in path.read_text(encoding='utf-8', errors='replace').splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get('step'), int):
                lines.append(line)
    return lines


def training_speed(workdir: str | os.PathLike[str]) -> dict[str, float]:
    """The speed that metrics.jsonl tells of, as `draem_jax.training.throughput` names it: the median of its lines.

    It has no entry for what no line tells, such as 'mfu' where the peak of the devices is not known.
    """
    lines = read_training_log(workdir)
    values = {name: [line[name] for line in lines if line.get(name) is not None] for name in _SPEEDS}
    return {name: statistics.median(numbers) for name, numbers in values.items() if numbers}


def evaluation_folder(workdir: str | os.PathLike[str], step: int) -> pathlib.Path:
    """Where the results of a checkpoint lie."""
    return pathlib.Path(workdir) / 'evaluation' / str(step)


def _flat(config: Config) -> dict[str, Any]:
    return {f'{section}.{field}': value for section, fields in config.items() for field, value in fields.items()}
