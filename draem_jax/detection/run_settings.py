"""What a detector needs to know of a run: read from its config.json, and checked, for anybody may have edited it."""

import dataclasses
import math
import os
import pathlib
import reprlib
from collections.abc import Callable
from typing import Any, TypeGuard

from draem_jax import run_directory
from draem_jax.errors import UserError

# (whether a value is allowed, what is expected, the value of runs that are older than the field)
_Rule = tuple[Callable[[Any], bool], str, Any]
_REQUIRED = object()


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """How a run looks at images.

    Attributes:
        model: keywords of `networks.make_model`.
        image_size: (height, width) of the networks' input.
        antialias: as in `images.resize`.
        bit_depth: as in `images.read_image`.
        score_window, score_top: as in `scoring.make_predict`.
        batch_size: images per step over all devices on an accelerator.
    """

    model: dict[str, Any]
    image_size: tuple[int, int]
    antialias: bool
    bit_depth: int
    score_window: int
    score_top: float
    batch_size: int


def is_integer(value: object, least: int) -> bool:
    """Whether a value from JSON is an integer, no boolean, and not below `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value from JSON is a number, finite and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_image_size(value: object) -> bool:
    """Whether a value from JSON is a list of a height and a width."""
    return isinstance(value, list) and len(value) == 2 and all(is_integer(side, 1) for side in value)


def is_bit_depth(value: object) -> bool:
    """Whether a value from JSON is a `bit_depth` of `images.read_image`."""
    return is_integer(value, 0) and value in (0, *range(9, 17))


_bool: tuple[Callable[[Any], bool], str] = (lambda value: isinstance(value, bool), 'true or false')
_at_least_1: tuple[Callable[[Any], bool], str] = (lambda value: is_integer(value, 1), 'an integer, 1 or more')


def _one_of(*names: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in names, ' or '.join(f'"{name}"' for name in names)


_RULES: dict[str, dict[str, _Rule]] = {
    'model': {
        'reconstructive_width': (*_at_least_1, _REQUIRED),
        'discriminative_width': (*_at_least_1, _REQUIRED),
        'dtype': (
            lambda value: value in ('auto', 'float32', 'bfloat16'),
            '"auto", "float32" or "bfloat16"',
            _REQUIRED,
        ),
        'remat': (*_bool, False),
        'networks': (*_one_of('both', 'discriminative', 'reconstructive'), 'both'),
        'anomaly_map': (*_one_of('segmentation', 'ssim', 'msgms'), 'segmentation'),
        'padding': (*_one_of('zeros', 'reflect'), 'zeros'),
        'anomaly_prior': (lambda value: is_number(value) and 0 < value < 1, 'a number in (0, 1)', 0.5),
        'sees_difference': (*_bool, False),
        'high_pass_sigma': (lambda value: is_number(value) and 0 <= value <= 100, 'a number in [0, 100]', 0.0),
    },
    'dataset': {
        'image_size': (
            lambda value: is_image_size(value) and all(side % 32 == 0 for side in value),
            '[height, width], both multiples of 32',
            _REQUIRED,
        ),
        'antialias': (*_bool, _REQUIRED),
        'bit_depth': (is_bit_depth, '0, or 9 to 16', 0),
    },
    'evaluation': {
        'score_window': (lambda value: is_integer(value, 1) and value % 2 == 1, 'an odd integer', _REQUIRED),
        'score_top': (lambda value: is_number(value) and 0 <= value <= 1, 'a number in [0, 1]', 0.0),
        'batch_size': (*_at_least_1, _REQUIRED),
    },
}


def read(run: str | os.PathLike[str]) -> RunSettings:
    """Reads them.

    Args:
        run: directory that train.py wrote to.

    Raises:
        UserError: there is no run, or a value in its config.json is missing or out of its range.
    """
    path = pathlib.Path(run) / 'config.json'
    config = run_directory.read_config(run)
    found: dict[str, dict[str, Any]] = {}
    for section, rules in _RULES.items():
        values = config.get(section)
        if not isinstance(values, dict):
            raise _unexpected(path, section, values, 'an object with a value for each field')
        found[section] = {}
        for field, (is_allowed, expected, earlier) in rules.items():
            value = values.get(field, earlier)
            if value is _REQUIRED or not is_allowed(value):
                raise _unexpected(path, f'{section}.{field}', values.get(field), expected)
            found[section][field] = value
    if unknown := sorted(config['model'].keys() - _RULES['model'].keys()):
        raise UserError(f"'{path}' has model.{unknown[0]}, which this version does not know. Is there a newer one?")
    dataset, evaluation = found['dataset'], found['evaluation']
    height, width = dataset.pop('image_size')
    return RunSettings(found['model'], (height, width), **dataset, **evaluation)


def _unexpected(path: pathlib.Path, name: str, value: object, expected: str) -> UserError:
    return UserError(
        f"'{path}': {name} is {reprlib.repr(value)}, expected {expected}. Put back the config.json that train.py wrote."
    )
