"""Which values the options of the synthesis may have; checked before any file is read."""

from collections.abc import Sequence

from data.synthesis import masks
from data.synthesis.geometry import FILLS
from data.synthesis.operations import OPERATIONS
from draem_jax.errors import UserError


def check_options(
    *,
    anomaly_probability: float,
    rotation_probability: float,
    rotation_degrees: float,
    rotation_fill: str,
    quarter_turns: bool,
    flips: bool,
    opacity: tuple[float, float],
    operations: Sequence[str],
    operation_count: int,
    normal_patch_probability: float,
    real_defect_probability: float,
    mask_source: str,
    mask_threshold: tuple[float, float],
    max_cells_log2: int,
    min_cells_log2: int,
    min_cell_size: int,
    mask_rotation_degrees: float,
    match_grey: bool,
    foreground_threshold: int,
    label_correction: int,
) -> None:
    """Checks the options of `make_example`.

    Raises:
        UserError: one line that names the config field.
    """
    for field, value in (
        ('anomaly_probability', anomaly_probability),
        ('rotation_probability', rotation_probability),
        ('normal_patch_probability', normal_patch_probability),
        ('real_defect_probability', real_defect_probability),
    ):
        _require(0.0 <= value <= 1.0, field, value, 'a probability between 0 and 1')
    for field, value in (('rotation_degrees', rotation_degrees), ('mask_rotation_degrees', mask_rotation_degrees)):
        _require(0.0 <= value <= 180.0, field, value, 'degrees between 0 and 180')
    _require_range('opacity', opacity, 0.0, 1.0)
    _require(opacity[1] > 0.0, 'opacity', opacity, 'a highest value above 0, or no anomaly can be seen')
    known = ', '.join(OPERATIONS)
    for name in operations:
        _require(name in OPERATIONS, 'operations', name, f'names out of {known}')
    _require(len(set(operations)) == len(operations), 'operations', operations, 'every name once')
    _require(
        0 <= operation_count <= len(operations),
        'operation_count',
        operation_count,
        f'0 to {len(operations)}, the number of synthesis.operations, which are drawn without replacement',
    )
    _require(mask_source in masks.SOURCES, 'mask_source', mask_source, f'one of {", ".join(masks.SOURCES)}')
    # Below 0 the corners would count, which a rotation fills with 0; no noise exceeds 1.
    _require_range('mask_threshold', mask_threshold, 0.0, 1.0)
    _require(
        mask_threshold[0] < 1.0, 'mask_threshold', mask_threshold, 'a lowest value below 1, which no noise exceeds'
    )
    _require(rotation_fill in FILLS, 'rotation_fill', rotation_fill, f'one of {", ".join(FILLS)}')
    for field, is_on in (('match_grey', match_grey), ('quarter_turns', quarter_turns), ('flips', flips)):
        _require(isinstance(is_on, bool), field, is_on, 'True or False')
    _require(0 <= max_cells_log2 <= 8, 'max_cells_log2', max_cells_log2, '0 to 8, for 1 to 256 cells')
    _require(0 <= min_cells_log2 <= max_cells_log2, 'min_cells_log2', min_cells_log2, '0 to synthesis.max_cells_log2')
    _require(min_cell_size >= 2, 'min_cell_size', min_cell_size, 'at least 2 pixels, for noise is 0 on its lattice')
    for field, value in (('foreground_threshold', foreground_threshold), ('label_correction', label_correction)):
        _require(0 <= value < 255, field, value, 'levels from 0 (off) to 254')


def _require(condition: bool, field: str, value: object, expected: str) -> None:
    if not condition:
        raise UserError(f'synthesis.{field}: expected {expected}, found {value!r}.')


def _require_range(field: str, value: tuple[float, float], low: float, high: float) -> None:
    ordered = len(value) == 2 and low <= value[0] <= value[1] <= high
    _require(ordered, field, value, f'(lowest, highest) within {low} and {high}')
