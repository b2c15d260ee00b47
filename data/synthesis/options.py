"""Which values the options of the synthesis may have; checked before any file is read."""

from collections.abc import Sequence

from data.synthesis import masks
from data.synthesis.operations import OPERATIONS
from draem_jax.errors import UserError


def check_options(
    *,
    anomaly_probability: float,
    rotation_probability: float,
    rotation_degrees: float,
    opacity: tuple[float, float],
    operations: Sequence[str],
    operation_count: int,
    mask_source: str,
    mask_threshold: tuple[float, float],
    max_cells_log2: int,
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
    for field, value in (('anomaly_probability', anomaly_probability), ('rotation_probability', rotation_probability)):
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
    _require(isinstance(match_grey, bool), 'match_grey', match_grey, 'True or False')
    _require(0 <= max_cells_log2 <= 8, 'max_cells_log2', max_cells_log2, '0 to 8, for 1 to 256 cells')
    _require(min_cell_size >= 2, 'min_cell_size', min_cell_size, 'at least 2 pixels, for noise is 0 on its lattice')
    for field, value in (('foreground_threshold', foreground_threshold), ('label_correction', label_correction)):
        _require(0 <= value < 255, field, value, 'levels from 0 (off) to 254')


def _require(condition: bool, field: str, value: object, expected: str) -> None:
    if not condition:
        raise UserError(f'synthesis.{field}: expected {expected}, found {value!r}.')


def _require_range(field: str, value: tuple[float, float], low: float, high: float) -> None:
    ordered = len(value) == 2 and low <= value[0] <= value[1] <= high
    _require(ordered, field, value, f'(lowest, highest) within {low} and {high}')
