"""Checks a config for everything that shows before a file is read or a device is touched."""

import math
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import default
from draem_jax.errors import UserError

# (whether a value is allowed, what is expected)
Rule = tuple[Callable[[Any], bool], str]

_TOO_LARGE = 2**31  # for an integer: steps and seeds are counted in 32 bits
# Fields that hold a path to read from, which may begin with the user's home folder, '~'.
_PATHS = ('dataset.root', 'dataset.texture_root', 'dataset.defect_root', 'dataset.cache_folder', 'training.warm_start')

_positive: Rule = (lambda value: value > 0, 'a number above 0')
_at_least_0: Rule = (lambda value: value >= 0, '0 or more')
_at_least_1: Rule = (lambda value: value >= 1, '1 or more')


def _one_of(*names: str) -> Rule:
    return lambda value: value in names, f'{", ".join(map(repr, names[:-1]))} or {names[-1]!r}'


# data.synthesis.options.check_options checks the section `synthesis`.
_RULES: dict[str, Rule] = {
    'dataset.image_size': (
        lambda size: len(size) == 2 and all(side >= 32 and side % 32 == 0 for side in size),
        '(height, width), both multiples of 32',
    ),
    'dataset.validation_fraction': (lambda value: 0 <= value < 1, 'in [0, 1)'),
    'dataset.test_fraction': (lambda value: 0 <= value < 1, 'in [0, 1)'),
    'dataset.texture_source': (
        lambda value: value in ('folder', 'dtd', 'procedural', 'colour', 'self'),
        "'folder', 'dtd', 'procedural', 'colour' or 'self'",
    ),
    'dataset.bit_depth': (lambda value: value in (0, *range(9, 17)), '0, or 9 to 16 bits'),
    'dataset.cache': (lambda value: value in ('memory', 'disk', 'none'), "'memory', 'disk' or 'none'"),
    'dataset.cache_limit_gb': _positive,
    'dataset.texture_count': _at_least_0,
    'model.reconstructive_width': _at_least_1,
    'model.discriminative_width': _at_least_1,
    'model.dtype': (lambda value: value in ('auto', 'float32', 'bfloat16'), "'auto', 'float32' or 'bfloat16'"),
    'model.networks': _one_of('both', 'discriminative', 'reconstructive'),
    'model.anomaly_map': _one_of('segmentation', 'ssim', 'msgms'),
    'model.padding': _one_of('zeros', 'reflect'),
    'model.anomaly_prior': (lambda value: 0 < value < 1, 'a probability above 0 and below 1'),
    'model.high_pass_sigma': (lambda value: 0 <= value <= 100, '0 to 100 pixels'),
    'loss.l2': _at_least_0,
    'loss.ssim': _at_least_0,
    'loss.msgms': _at_least_0,
    'loss.focal': _at_least_0,
    'loss.mask_l1': _at_least_0,
    'loss.gamma': _at_least_0,
    'optimizer.learning_rate': _positive,
    'optimizer.decay_factor': _positive,
    'optimizer.decay_at': (
        lambda values: list(values) == sorted(set(values)) and all(0 < value < 1 for value in values),
        'fractions in (0, 1), ascending',
    ),
    'optimizer.warmup_steps': _at_least_0,
    'optimizer.schedule': _one_of('steps', 'cosine'),
    # The seeds above belong to the validation and to the simulated test.
    'training.seed': (lambda value: 0 <= value < 2**31 - 3, 'in [0, 2^31 - 3)'),
    'training.batch_size': _at_least_1,
    'training.accumulation_slices': _at_least_1,
    'training.ema_decay': (lambda value: 0 <= value < 1, 'in [0, 1)'),
    'training.epochs': _at_least_1,
    'training.steps': _at_least_0,
    'training.log_every_steps': _at_least_0,
    'training.validate_every_steps': _at_least_0,
    'training.picture_every_steps': _at_least_0,
    'training.checkpoint_every_steps': _at_least_0,
    'training.keep_checkpoints': _at_least_1,
    'training.validation_examples': _at_least_1,
    'evaluation.batch_size': _at_least_1,
    'evaluation.score_window': (lambda value: value >= 1 and value % 2 == 1, 'odd and 1 or more'),
    'evaluation.score_top': (lambda value: 0 <= value <= 1, 'in [0, 1]'),
    'evaluation.mask_rule': (lambda value: value in ('half', 'full'), "'half' or 'full'"),
    'evaluation.aupro_max_fpr': (lambda value: 0 < value <= 1, 'in (0, 1]'),
    'evaluation.target_fpr': (lambda value: 0 < value < 1, 'in (0, 1)'),
    'evaluation.pixel_target_fpr': (lambda value: 0 < value < 1, 'in (0, 1)'),
    'evaluation.sheet_rows': _at_least_0,
}


def check_name(path: str, hint: str = '') -> None:
    """Raises UserError, which ends with the hint, unless `path`, 'section.field', is a field of configs/default.py."""
    known = default.get_config()
    section, _, field = path.partition('.')
    if section not in known:
        raise UserError(f'Unknown section config.{section}. Known: {", ".join(known)}.{hint}')
    if field not in known[section]:
        raise UserError(f'Unknown field config.{path}. Known: {", ".join(known[section])}.{hint}')


def config_of_run(values: dict[str, Any], changes: Mapping[str, Any], file: str = 'config.json') -> ConfigDict:
    """The config of an existing run, checked.

    Args:
        values: nested dict, from `run_directory.read_config`. Fields that are newer than the run take their defaults:
            the default of a new field always means what was done before the field existed.
        changes: {'section.field': value} that replace some.
        file: where the values come from, for the error.

    Returns:
        ConfigDict with the fields of configs/default.py.

    Raises:
        UserError: as `check`.
    """
    merged = {section: dict(fields) for section, fields in values.items()}
    for section, fields in default.get_config().to_dict().items():
        if section in merged:
            merged[section] = {**fields, **merged[section]}
    for path, value in changes.items():
        section, field = path.split('.')
        if section in merged:
            merged[section][field] = value
    check(merged, file=file, changed=changes)
    return expand_home(ConfigDict(merged))


def expand_home(config: ConfigDict) -> ConfigDict:
    """A copy of a checked config whose paths name the user's home folder in place of a leading '~'."""
    config = config.copy_and_resolve_references()
    for path in _PATHS:
        section, field = path.split('.')
        config[section][field] = os.path.expanduser(config[section][field])
    return config


def check(
    config: ConfigDict | Mapping[str, Any] | None, *, file: str | None = None, changed: Collection[str] = ()
) -> None:
    """Raises UserError as `check_fields`, and unless there are textures to make anomalies from."""
    check_fields(config, file=file, changed=changed)
    assert config is not None
    source, root = config['dataset']['texture_source'], config['dataset']['texture_root']
    if source == 'folder' and not root:
        raise UserError(
            'No textures to make anomalies from: pass --config.dataset.texture_root=FOLDER (any images; DTD in '
            'the paper) or --config.dataset.texture_source=procedural to draw them.'
        )
    _check_networks(config['model'])
    _check_real_defects(config)
    if root and source not in ('folder', 'dtd'):
        raise UserError(
            f"--config.dataset.texture_root='{root}' would not be used, for texture_source is '{source}'. "
            'Pass --config.dataset.texture_source=folder to use it.'
        )


def _check_networks(model: Mapping[str, Any]) -> None:
    """Raises UserError where a field asks for what the chosen networks do not have."""
    chosen, made_of = model['networks'], model['anomaly_map']
    if chosen == 'reconstructive' and made_of == 'segmentation':
        raise UserError(
            "--config.model.networks='reconstructive' gives no segmentation: "
            "expected --config.model.anomaly_map='ssim' or 'msgms'."
        )
    if chosen != 'discriminative':
        return
    if made_of != 'segmentation':
        raise UserError(
            f"--config.model.anomaly_map='{made_of}' compares the image with its reconstruction, and "
            "--config.model.networks='discriminative' makes none: expected 'segmentation'."
        )
    for field in ('sees_difference', 'high_pass_sigma'):
        if model[field]:
            raise UserError(
                f'--config.model.{field}={model[field]} is about the reconstruction, and '
                "--config.model.networks='discriminative' makes none. Leave it out."
            )


def _check_real_defects(config: ConfigDict | Mapping[str, Any]) -> None:
    """Raises UserError unless real defects have both a folder and a probability, or neither."""
    root, probability = config['dataset']['defect_root'], config['synthesis']['real_defect_probability']
    if root and probability == 0:
        raise UserError(
            f"--config.dataset.defect_root='{root}' would not be used, for synthesis.real_defect_probability is 0. "
            'Pass --config.synthesis.real_defect_probability, such as 0.2.'
        )
    if not root and probability != 0:
        raise UserError(
            f'--config.synthesis.real_defect_probability={probability}: pass --config.dataset.defect_root=FOLDER, '
            'a data set with defects and their masks.'
        )


def check_fields(
    config: ConfigDict | Mapping[str, Any] | None, *, file: str | None = None, changed: Collection[str] = ()
) -> None:
    """Raises UserError, in one line, for the first field that is missing, unknown, of another type or out of range.

    Args:
        config: sections of fields; None where the user has named none.
        file: the config.json that holds the values, unless they come from the command line.
        changed: fields whose values come from the command line all the same.
    """
    if config is None:
        raise UserError('Which experiment? Pass --config=configs/<name>.py, such as --config=configs/quickstart.py.')
    known = default.get_config().to_dict()
    of_file = f" '{file}' is damaged." if file else ''
    for section in known:
        if section not in config or not isinstance(config[section], Mapping | ConfigDict):
            raise UserError(f'The config has no section {section!r}; configs/default.py lists them all.{of_file}')
        for field in known[section]:
            if field not in config[section]:
                raise UserError(f'The config has no field {section}.{field}; configs/default.py explains it.{of_file}')
    for section in config:
        for field in config[section] if section in known else ('',):
            check_name(f'{section}.{field}', of_file)
    for section, fields in known.items():
        for field, usual in fields.items():
            path, value = f'{section}.{field}', config[section][field]
            expected = _expected_type(value, usual)
            if expected is None and path in _RULES and not _RULES[path][0](value):
                expected = _RULES[path][1]
            if expected and file and path not in changed:
                raise UserError(
                    f"'{file}' has {path}={value!r}: expected {expected}. Mend the file, or pass --config.{path}=VALUE."
                )
            if expected:
                raise UserError(f'--config.{path}={value!r}: expected {expected}.')


def _expected_type(value: object, usual: object) -> str | None:
    """What is expected where a value has another type than the usual value of its field; None where it is as expected.

    A field of floats takes integers, but no field takes numbers that are not finite. A tuple may be a list, as it is
    once it was written as JSON, and of any length.
    """
    if isinstance(usual, bool):
        return None if isinstance(value, bool) else 'True or False'
    if isinstance(usual, int):
        if not isinstance(value, int) or isinstance(value, bool):
            return 'an integer'
        return None if abs(value) < _TOO_LARGE else 'an integer below 2^31'
    if isinstance(usual, float):
        if not isinstance(value, int | float) or isinstance(value, bool):
            return 'a number'
        return None if _is_finite(value) else 'a finite number'
    if isinstance(usual, str):
        return None if isinstance(value, str) else 'text'
    assert isinstance(usual, tuple), f'no rule for {type(usual).__name__}'
    if not isinstance(value, tuple | list):
        return 'several values, such as (1, 2)'
    inner = next((found for one in value if (found := _expected_type(one, usual[0]))), None)
    return inner and f'{inner} in each place'


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False
