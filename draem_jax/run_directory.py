"""The directory of a run: what lies where, and what is written there as JSON.

config.json              the resolved config, with a schema version
checkpoints/<step>/      see draem_jax.checkpoints
held_out.json            which normal images are kept out of training
damaged/<step>/          checkpoints that could not be restored, put aside
metrics.jsonl            one line for each log step; TensorBoard event files beside it
calibration.json         see draem_jax.detection.calibration
finished.json            the last step and the time, written last
evaluation/<step>/       results; curve.csv and curve.svg beside these folders
train.lock               see draem_jax.run_lock; only while a training is under way
predictions/             see draem_jax.detection.predictions
profile/                 traces, from train.py --profile_steps
"""

import contextlib
import errno
import json
import math
import os
import pathlib
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    'dataset.defect_root',
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
    # Two containers may have the same process ids and one folder.
    partial = path.with_name(f'.{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial')
    try:
        # Names of image files in other encodings are written back byte for byte.
        partial.write_text(text, encoding='utf-8', errors='surrogateescape', newline='')
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a value as strict JSON, by way of `write_text`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def read_json(path: str | os.PathLike[str], advice: str) -> Any:
    """The value that a file of JSON holds.

    Args:
        path: of the file. Names of image files in other encodings come back as `write_text` took them.
        advice: a sentence that says what to do about a file that cannot be read; it ends the error.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding='utf-8', errors='surrogateescape'))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except PermissionError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror}. Make it readable for this user.") from error
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror}. {advice}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is not JSON: {error}. {advice}") from error


def check_writable(folder: str | os.PathLike[str], advice: str) -> None:
    """Raises UserError, which ends with the advice, unless files can be written to a folder that may not exist yet."""
    for existing in (pathlib.Path(folder), *pathlib.Path(folder).absolute().parents):
        if os.path.lexists(existing):
            break
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"Cannot write to '{folder}': {error.strerror}, '{existing}'. {advice}") from error


@contextlib.contextmanager
def explaining_a_full_disk(folder: str | os.PathLike[str], advice: str) -> Iterator[None]:
    """Turns any error that a full disk raises in the `with` block into a UserError.

    Args:
        folder: where the block writes to.
        advice: what to do about it; it ends the error.
    """
    try:
        yield
    except (OSError, ValueError) as error:  # The storage below Orbax raises the latter.
        full = [text for text in map(os.strerror, (errno.ENOSPC, errno.EDQUOT)) if text in str(error)]
        if not full or isinstance(error, UserError):
            raise
        raise UserError(f"{full[0]}: writing to '{folder}' failed. {advice}") from error


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
    if os.path.lexists(path):
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
    """The config that a run was started with, without its schema version.

    Its sections are dicts; which fields they hold, and of what types, is not checked.
    """
    path = pathlib.Path(workdir) / 'config.json'
    advice = 'Put back the file that train.py wrote, or start a new run in another --workdir.'
    try:
        config = read_json(path, advice)
    except FileNotFoundError as error:
        raise UserError(
            f"No 'config.json' in '{workdir}': it is not the directory of a run. Pass what train.py wrote to."
        ) from error
    schema = config.pop('schema', None) if isinstance(config, dict) else None
    if schema != SCHEMA or isinstance(schema, bool):
        raise UserError(f"'{path}' has schema {schema!r}; this version reads {SCHEMA}. {advice}")
    for section, fields in config.items():
        if not isinstance(fields, dict):
            raise UserError(
                f"'{path}' is damaged: its section '{section}' is {fields!r}, not a set of fields. {advice}"
            )
    return config


def held_out(workdir: str | os.PathLike[str]) -> HeldOutNames | None:
    """Which images a run keeps out of training, as `data.inputs.Inputs.held_out_names`; None before its first start."""
    path = pathlib.Path(workdir) / 'held_out.json'
    advice = (
        'Put back the file that train.py wrote. Or delete it: as long as the data set is the same, the next start '
        'holds out the same images.'
    )
    try:
        names = read_json(path, advice)
    except FileNotFoundError:
        return None
    if not isinstance(names, dict) or not all(map(_is_split, names.values())):
        raise UserError(
            f"'{path}' does not say which images are held out: expected names of files for 'validation' and 'test' of "
            f'each category. {advice}'
        )
    return names


def check_held_out(workdir: str | os.PathLike[str], categories: Iterable[str]) -> None:
    """Raises UserError where held_out.json is there, but lacks a category of the data set."""
    pinned = held_out(workdir)
    lacking = [category for category in categories if pinned is not None and category not in pinned]
    if pinned is not None and lacking:
        found = ', '.join(map(repr, pinned)) or 'none'
        raise UserError(
            f"'{pathlib.Path(workdir) / 'held_out.json'}' is of other categories than the data set: it lacks "
            f'{lacking[0]!r}, found {found}. Put back the file that train.py wrote for this run.'
        )


def _is_split(value: object) -> bool:
    """Whether a value is {'validation': names, 'test': names}."""
    return isinstance(value, dict) and all(
        isinstance(value.get(purpose), list) and all(isinstance(name, str) for name in value[purpose])
        for purpose in ('validation', 'test')
    )


def write_held_out(workdir: str | os.PathLike[str], names: HeldOutNames) -> None:
    """Writes what `held_out` reads, once: later starts keep to it, even if images have been added to the data set."""
    if held_out(workdir) is None:
        write_json(pathlib.Path(workdir) / 'held_out.json', names)


def finished_step(workdir: str | os.PathLike[str]) -> int | None:
    """The step at which a run's training ended, or None while finished.json is not there."""
    path = pathlib.Path(workdir) / _FINISHED
    advice = 'Start train.py again with the same flags, which writes it.'
    try:
        finished = read_json(path, advice)
    except FileNotFoundError:
        return None
    step = finished.get('step') if isinstance(finished, dict) else None
    if not _is_step(step):
        raise UserError(f"'{path}' does not name a step. {advice}")
    return step


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
    """The lines of metrics.jsonl that `parse_log_line` understands; [] where there is no such file.

    Raises:
        UserError: the file cannot be read.
    """
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    try:
        text = path.read_text(encoding='utf-8', errors='replace')
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror}. Make it readable, or move it away.") from error
    return [line for line in map(parse_log_line, text.splitlines()) if line is not None]


def parse_log_line(text: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl as {'step': int, name: finite number or None}.

    None where it cannot be understood: a crash has cut it short, or it holds something else. A log is worth less than
    its run, so such a line is left out, not mended.
    """
    try:
        line = json.loads(text)
        if not isinstance(line, dict) or not _is_step(line.get('step')):
            return None
        is_understood = all(value is None or _is_finite(value) for value in line.values())
    except (ValueError, RecursionError, OverflowError):  # The last two: deep brackets, and integers beyond any float.
        return None
    return line if is_understood else None


def _is_step(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
