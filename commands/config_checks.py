"""Checks a config for everything that shows before a file is read or a device is touched."""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import default
from draem_jax.errors import UserError

# (whether a value is allowed, what is expected)
Rule = tuple[Callable[[Any], bool], str]

_positive: Rule = (lambda value: value > 0, 'a number above 0')
_at_least_0: Rule = (lambda value: value >= 0, '0 or more')
_at_least_1: Rule = (lambda value: value >= 1, '1 or more')
# data.synthesis.options.check_options checks the section `synthesis`.
_RULES: dict[str, Rule] = {
    'dataset.image_size': (
        lambda size: len(size) == 2 and all(isinstance(side, int) and side >= 32 and side % 32 == 0 for side in size),
        '(height, width), both multiples of 32',
    ),
    'dataset.validation_fraction': (lambda value: 0 <= value < 1, 'in [0, 1)'),
    'dataset.test_fraction': (lambda value: 0 <= value < 1, 'in [0, 1)'),
    'dataset.texture_source': (
        lambda value: value in ('folder', 'dtd', 'procedural', 'colour', 'self'),
        "'folder', 'dtd', 'procedural', 'colour' or 'self'",
    ),
    'dataset.cache': (lambda value: value in ('memory', 'disk', 'none'), "'memory', 'disk' or 'none'"),
    'dataset.cache_limit_gb': _positive,
    'dataset.texture_count': _at_least_0,
    'model.reconstructive_width': _at_least_1,
    'model.discriminative_width': _at_least_1,
    'model.dtype': (lambda value: value in ('auto', 'float32', 'bfloat16'), "'auto', 'float32' or 'bfloat16'"),
    'model.remat': (lambda value: isinstance(value, bool), 'True or False'),
    'loss.l2': _at_least_0,
    'loss.ssim': _at_least_0,
    'loss.focal': _at_least_0,
    'loss.gamma': _at_least_0,
    'optimizer.learning_rate': _positive,
    'optimizer.decay_factor': _positive,
    'optimizer.decay_at': (
        lambda values: list(values) == sorted(set(values)) and all(0 < value < 1 for value in values),
        'fractions in (0, 1), ascending',
    ),
    'optimizer.warmup_steps': _at_least_0,
    # The seeds above belong to the validation and to the simulated test.
    'training.seed': (lambda value: 0 <= value < 2**31 - 3, 'in [0, 2^31 - 3)'),
    'training.batch_size': _at_least_1,
    'training.accumulation_slices': _at_least_1,
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
    'evaluation.mask_rule': (lambda value: value in ('half', 'full'), "'half' or 'full'"),
    'evaluation.aupro_max_fpr': (lambda value: 0 < value <= 1, 'in (0, 1]'),
    'evaluation.target_fpr': (lambda value: 0 < value < 1, 'in (0, 1)'),
    'evaluation.pixel_target_fpr': (lambda value: 0 < value < 1, 'in (0, 1)'),
    'evaluation.sheet_rows': _at_least_0,
    'evaluation.report': (lambda value: isinstance(value, bool), 'True or False'),
}


def check_name(path: str) -> None:
    """Raises UserError unless `path`, 'section.field', is a field of configs/default.py."""
    known = default.get_config()
    section, _, field = path.partition('.')
    if section not in known:
        raise UserError(f'Unknown section config.{section}. Known: {", ".join(known)}.')
    if field not in known[section]:
        raise UserError(f'Unknown field config.{path}. Known: {", ".join(known[section])}.')


def config_of_run(values: dict[str, Any], changes: Mapping[str, Any]) -> ConfigDict:
    """The config of an existing run, checked.

    Args:
        values: nested dict, from `run_directory.read_config`. Fields that are newer than the run take their defaults:
            the default of a new field always means what was done before the field existed.
        changes: {'section.field': value} that replace some.

    Returns:
        ConfigDict with the fields of configs/default.py.

    Raises:
        UserError: as `check`.
    """
    config = ConfigDict(values)
    for section, fields in default.get_config().items():
        for field, value in fields.items():
            if section in config and field not in config[section]:
                config[section][field] = value
    config.update_from_flattened_dict(changes)
    check(config)
    return config


def check(config: ConfigDict | None) -> None:
    """Raises UserError, in one line, for the first field that is missing, unknown or out of its range."""
    if config is None:
        raise UserError('Which experiment? Pass --config=configs/<name>.py, such as --config=configs/quickstart.py.')
    known = default.get_config()
    for section in known:
        if section not in config:
            raise UserError(f'The config has no section {section!r}; configs/default.py lists them all.')
        for field in known[section]:
            if field not in config[section]:
                raise UserError(f'The config has no field {section}.{field}; configs/default.py explains it.')
    for section in config:
        for field in config[section] if section in known else ('',):
            check_name(f'{section}.{field}')
    for path, (is_allowed, expected) in _RULES.items():
        section, field = path.split('.')
        value = config[section][field]
        try:
            allowed = is_allowed(value)
        except TypeError:
            allowed = False
        if not allowed:
            raise UserError(f'--config.{path}={value!r}: expected {expected}.')
    source, root = config.dataset.texture_source, config.dataset.texture_root
    if source == 'folder' and not root:
        raise UserError(
            'No textures to make anomalies from: pass --config.dataset.texture_root=FOLDER (any images; DTD in '
            'the paper) or --config.dataset.texture_source=procedural to draw them.'
        )
    if root and source not in ('folder', 'dtd'):
        raise UserError(
            f"--config.dataset.texture_root='{root}' would not be used, for texture_source is '{source}'. "
            'Pass --config.dataset.texture_source=folder to use it.'
        )
