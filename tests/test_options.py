"""The options of the synthesis: impossible values are named in one line."""

import inspect

import pytest

from configs import default
from data.synthesis.operations import OPERATIONS
from data.synthesis.options import check_options
from draem_jax.errors import UserError

PRESETS = {name: dict(default.get_config(name).synthesis) for name in default.PRESETS}


@pytest.mark.parametrize('options', PRESETS.values(), ids=PRESETS)
def test_presets_pass_their_own_check(options):
    check_options(**options)
    assert set(options['operations']) <= set(OPERATIONS)
    assert options.keys() == inspect.signature(check_options).parameters.keys()


@pytest.mark.parametrize(
    ('field', 'value', 'expected'),
    [
        ('anomaly_probability', 1.5, 'between 0 and 1'),
        ('rotation_probability', -0.1, 'between 0 and 1'),
        ('rotation_degrees', 270.0, 'between 0 and 180'),
        ('mask_rotation_degrees', -1.0, 'between 0 and 180'),
        ('opacity', (0.8, 0.2), 'lowest, highest'),
        ('opacity', (0.0, 0.0), 'above 0'),
        ('opacity', (0.5,), 'lowest, highest'),
        ('operations', ('invert', 'blur', 'rotate'), 'posterize'),
        ('operations', ('invert', 'invert', 'rotate'), 'every name once'),
        ('operations', ('invert', 'rotate'), '0 to 2'),
        ('operation_count', 11, '0 to 10'),
        ('mask_source', 'circle', 'perlin, simplex, rectangle, union'),
        ('foreground_threshold', 255, '0 (off) to 254'),
        ('label_correction', -1, '0 (off) to 254'),
        ('mask_threshold', (-0.1, 0.5), 'within 0'),
        ('mask_threshold', (1.0, 1.0), 'below 1'),
        ('max_cells_log2', 20, '0 to 8'),
        ('min_cell_size', 1, 'at least 2'),
    ],
)
def test_impossible_options_name_the_field_and_what_is_possible(field, value, expected):
    with pytest.raises(UserError, match=r'^synthesis\.\w+: expected .*, found .*\.$') as error:
        check_options(**(PRESETS['official'] | {field: value}))
    assert expected in str(error.value)
    assert '\n' not in str(error.value)
