"""Thresholds from normal images that the networks have not been trained on: `calibration.json`.

A score says how anomalous an image looks, but not whether to reject it: that takes a threshold. Held-out normal images
set it, so that a wanted part of them (or of their pixels) reaches it. Defects play no part. How precisely that many
normal images determine the part is computed and written beside the threshold; `thresholds` says how.
"""

import json
import os
import pathlib
import reprlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from draem_jax import processes, run_directory
from draem_jax.detection import run_settings, thresholds
from draem_jax.detection.run_settings import is_bit_depth, is_image_size, is_integer
from draem_jax.errors import UserError

Calibration = dict[str, Any]  # What `calibrate` returns.
Settings = dict[str, Any]  # What `Detector.settings` returns: the circumstances on which scores depend.

SCHEMA = 1


class Measuring(Protocol):
    """The methods of a `Detector` that `calibrate_run` calls; a protocol, because `detector` imports this module."""

    def measure(self, pictures: Iterable[np.ndarray]) -> Iterator[tuple[float, np.ndarray]]: ...

    def settings(self) -> Settings: ...


def _is_number(value: object, least: float, largest: float) -> bool:
    # NaN is in no range.
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= largest


def _is_interval(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(rate, 0, 1) for rate in value)


# (whether a value is allowed, what is expected), of what `write` writes and somebody uses
_Rule = tuple[Callable[[Any], bool], str]
_count: _Rule = (lambda value: is_integer(value, 0), 'an integer, 0 or more')
_rate: _Rule = (lambda value: _is_number(value, 0, 1), 'a number in [0, 1]')
_RULES: dict[str, _Rule] = {
    'normals': (lambda value: is_integer(value, 1), 'an integer, 1 or more'),
    'step': _count,
    'score_window': _count,
    'tile': _count,
}
_NEWER_RULES: dict[str, _Rule] = {  # Files of earlier versions have no such entries.
    'image_size': (is_image_size, '[height, width]'),
    'antialias': (lambda value: isinstance(value, bool), 'true or false'),
    'dtype': (lambda value: isinstance(value, str), 'the name of a type'),
    'bit_depth': (is_bit_depth, '0, or 9 to 16'),
    'score_top': _rate,
    'anomaly_map': (lambda value: isinstance(value, str), 'the name of a map'),
}
_LEVEL_RULES: dict[str, _Rule] = {
    # Where normal images have a score of 1 it is the next number; a mean may exceed that by a rounding or two.
    'threshold': (lambda value: _is_number(value, 0, thresholds.HIGHEST + 1e-6), 'a number in [0, 1]'),
    'target_fpr': _rate,
    'expected_fpr': _rate,
    'confidence': _rate,
    'note': (lambda value: value is None or isinstance(value, str), 'a sentence or null'),
}
_INTERVAL_RULES: dict[str, _Rule] = {
    'image': (_is_interval, 'two numbers in [0, 1]'),
    'pixel': (lambda value: value is None or _is_interval(value), 'two numbers in [0, 1], or null'),
}


def check_rates(**rates: float) -> None:
    """Raises UserError, which names the rate, unless every false-positive rate is in (0, 1)."""
    for name, rate in rates.items():
        if not _is_number(rate, 0, 1) or rate in (0, 1):
            raise UserError(f'--{name}={rate!r}: expected a false-positive rate in (0, 1), such as 0.05.')


def calibrate(
    measured: Iterable[tuple[float, np.ndarray]], *, target_fpr: float, pixel_target_fpr: float
) -> Calibration:
    """Both thresholds from normal images.

    Args:
        measured: (score, float32 [H, W] map in [0, 1]) of each image, from `Detector.measure`.
        target_fpr: wanted part of normal images that are taken for defective, in (0, 1).
        pixel_target_fpr: likewise of the pixels of normal images.

    Returns:
        dict: normals (their number), image (as from `thresholds.image_threshold`), pixel (as from
        `thresholds.pixel_threshold`).

    Raises:
        UserError: there are no images, or a rate is not in (0, 1).
    """
    check_rates(target_fpr=target_fpr, pixel_target_fpr=pixel_target_fpr)
    scores, counts, sizes = [], [], []
    for score, anomaly_map in measured:
        scores.append(score)
        counts.append(thresholds.counts_above(anomaly_map))
        sizes.append(anomaly_map.size)
    if not scores:
        raise UserError('No normal images to calibrate on.')
    return {
        'normals': len(scores),
        'image': thresholds.image_threshold(scores, target_fpr),
        'pixel': thresholds.pixel_threshold(counts, sizes, pixel_target_fpr),
    }


def calibrate_run(
    workdir: str | os.PathLike[str],
    trained: Measuring,
    pictures: Iterable[np.ndarray],
    *,
    source: str,
    target_fpr: float,
    pixel_target_fpr: float,
) -> Calibration:
    """Calibrates a run and writes `<workdir>/calibration.json`; of several processes, the main one writes.

    Args:
        workdir: directory of the run.
        trained: its `Detector`.
        pictures: uint8 [H, W, 3] normal images that the run was not trained on.
        source: says in words which images they are.
        target_fpr, pixel_target_fpr: wanted false-positive rates of images and of pixels, in (0, 1).

    Returns:
        The calibration, as from `calibrate`; `describe` puts it in a sentence.
    """
    calibration = calibrate(trained.measure(pictures), target_fpr=target_fpr, pixel_target_fpr=pixel_target_fpr)
    settings = trained.settings()
    if processes.is_main():
        write(workdir, calibration, source=source, **settings)
    return calibration


def write(workdir: str | os.PathLike[str], calibration: Calibration, *, source: str, **settings: Any) -> None:
    """Writes `<workdir>/calibration.json`.

    Args:
        workdir: directory of the run.
        calibration: from `calibrate`.
        source: says in words which images they were.
        **settings: of the detector that gave the scores, from `Detector.settings`; others would give other scores.
    """
    try:
        run_directory.write_json(_path(workdir), {'schema': SCHEMA, **settings, 'source': source, **calibration})
    except OSError as error:
        raise UserError(f"Cannot write '{_path(workdir)}': {error.strerror or error}.") from error


def read(workdir: str | os.PathLike[str]) -> Calibration | None:
    """What `write` wrote, or None where there is no such file.

    Raises:
        UserError: the file is there, but it is not what this version writes.
    """
    path = _path(workdir)
    try:
        calibration = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"'{path}' is not a calibration that can be read: {error.strerror or error}. Make it "
            'readable, delete it, or write it anew with tools/calibrate.py.'
        ) from error
    except (ValueError, RecursionError) as error:
        raise _no_calibration(path, 'it is not JSON') from error
    if not isinstance(calibration, dict):
        raise _no_calibration(path, f'it holds {reprlib.repr(calibration)}')
    if calibration.get('schema') != SCHEMA:
        raise _no_calibration(path, f'its schema is {reprlib.repr(calibration.get("schema"))}, not {SCHEMA}')
    present = {name: rule for name, rule in _NEWER_RULES.items() if name in calibration}
    _check(path, calibration, {**_RULES, **present})
    for level, interval_rule in _INTERVAL_RULES.items():
        if not isinstance(calibration.get(level), dict):
            raise _no_calibration(path, f'{level} is {reprlib.repr(calibration.get(level))}')
        _check(path, calibration[level], {**_LEVEL_RULES, 'interval': interval_rule}, f'{level}.')
    return calibration


def find(workdir: str | os.PathLike[str], **settings: Any) -> tuple[Calibration | None, str]:
    """The calibration that fits a checkpoint and the way in which it is used.

    A file of an earlier version lacks some settings. For these it counts as made with the config of the run.

    Args:
        workdir: directory of the run.
        **settings: as from `Detector.settings`; those that are left out are not compared.

    Returns:
        (calibration or None, sentence): the sentence describes the calibration, or says why none fits.
    """
    advice = f' (tools/calibrate.py --workdir={workdir} --normals=FOLDER makes one)'
    calibration = read(workdir)
    if calibration is None:
        return None, f'Uncalibrated: the run has no calibration.json{advice}.'
    earlier = _settings_of_run(workdir) if settings.keys() - calibration.keys() else {}
    for name, value in settings.items():
        value = list(value) if isinstance(value, tuple) else value
        other = calibration.get(name, earlier.get(name))
        # Which type 'auto' was on the devices that an earlier version calibrated on, nobody knows.
        if other != value and (name, other) != ('dtype', 'auto'):
            # calibrate.py looks at images as the run's own config says, so it could not make one for another size.
            helps = advice if name in ('step', 'tile', 'dtype') else ''
            return None, f'Uncalibrated: calibration.json is for {name} {other}, not {value}{helps}.'
    return calibration, describe(calibration)


def describe(calibration: Calibration) -> str:
    """A calibration in a few sentences: the number of normal images, and what they promise."""
    image, pixel = calibration['image'], calibration['pixel']
    low, high = image['interval']
    sentences = [
        f'Calibrated on {calibration["normals"]} normal images: {100 * image["expected_fpr"]:.2g} % of normal images '
        f'are expected to reach the threshold ({100 * low:.2g} to {100 * high:.2g} % with '
        f'{100 * image["confidence"]:g} % confidence).',
        image['note'],
    ]
    if image['threshold'] > 1:
        sentences.append('But no image can reach it, however defective, for normal images had the highest score, 1.')
    elif pixel['threshold'] > 1:
        sentences.append('But no pixel can reach the threshold of pixels, for normal ones had the highest value, 1.')
    return ' '.join(filter(None, sentences))


def _settings_of_run(workdir: str | os.PathLike[str]) -> Settings:
    """The settings that calibrations of earlier versions lack, as the run's config has them."""
    run = run_settings.read(workdir)
    return {
        'image_size': list(run.image_size),
        'antialias': run.antialias,
        'dtype': run.model['dtype'],
        'bit_depth': run.bit_depth,
        'score_top': 0.0,  # There was no other, and no other map.
        'anomaly_map': 'segmentation',
    }


def _check(path: pathlib.Path, entries: dict[str, Any], rules: dict[str, _Rule], prefix: str = '') -> None:
    """Raises UserError for the first entry that is missing or breaks its rule."""
    for name, (is_allowed, expected) in rules.items():
        if name not in entries:
            raise _no_calibration(path, f'{prefix}{name} is missing')
        if not is_allowed(entries[name]):
            found = reprlib.repr(entries[name])
            raise _no_calibration(path, f'{prefix}{name} is {found}, expected {expected}')


def _no_calibration(path: pathlib.Path, reason: str) -> UserError:
    return UserError(f"'{path}' is not a calibration: {reason}. Delete it, or write it anew with tools/calibrate.py.")


def _path(workdir: str | os.PathLike[str]) -> pathlib.Path:
    return pathlib.Path(workdir) / 'calibration.json'
