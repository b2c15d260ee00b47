"""What values the options of the synthesis may have, said before a file is read."""

from data.synthesis import masks
from data.synthesis.operations import OPERATIONS
from draem_jax.errors import UserError


def check_options(
    *,
    anomaly_probability,
    rotation_probability,
    rotation_degrees,
    opacity,
    operations,
    operation_count,
    mask_source,
    mask_threshold,
    max_cells_log2,
    min_cell_size,
    mask_rotation_degrees,
    match_grey,
    foreground_threshold,
    label_correction,
):
    """Raises UserError, one line naming the config field, for values that make_example cannot work with."""

    def require(condition, field, found, expected):
        if not condition:
            raise UserError(f'synthesis.{field}: expected {expected}, found {found!r}.')

    def require_range(field, found, low, high):
        ordered = len(found) == 2 and low <= found[0] <= found[1] <= high
        require(ordered, field, found, f'(lowest, highest) within {low} and {high}')

    for field, value in (('anomaly_probability', anomaly_probability), ('rotation_probability', rotation_probability)):
        require(0.0 <= value <= 1.0, field, value, 'a probability between 0 and 1')
    for field, value in (('rotation_degrees', rotation_degrees), ('mask_rotation_degrees', mask_rotation_degrees)):
        require(0.0 <= value <= 180.0, field, value, 'degrees between 0 and 180')
    require_range('opacity', opacity, 0.0, 1.0)
    require(opacity[1] > 0.0, 'opacity', opacity, 'a highest value above 0, or no anomaly can be seen')
    known = ', '.join(OPERATIONS)
    for name in operations:
        require(name in OPERATIONS, 'operations', name, f'names out of {known}')
    require(len(set(operations)) == len(operations), 'operations', operations, 'every name once')
    require(
        0 <= operation_count <= len(operations),
        'operation_count',
        operation_count,
        f'0 to {len(operations)}, the number of synthesis.operations, which are drawn without replacement',
    )
    require(mask_source in masks.SOURCES, 'mask_source', mask_source, f'one of {", ".join(masks.SOURCES)}')
    # Below 0 the corners that the rotation uncovers would count; no noise exceeds 1.
    require_range('mask_threshold', mask_threshold, 0.0, 1.0)
    require(mask_threshold[0] < 1.0, 'mask_threshold', mask_threshold, 'a lowest value below 1, which no noise exceeds')
    require(isinstance(match_grey, bool), 'match_grey', match_grey, 'True or False')
    require(0 <= max_cells_log2 <= 8, 'max_cells_log2', max_cells_log2, '0 to 8, for 1 to 256 cells')
    require(min_cell_size >= 2, 'min_cell_size', min_cell_size, 'at least 2 pixels, for noise is 0 on its lattice')
    for field, value in (('foreground_threshold', foreground_threshold), ('label_correction', label_correction)):
        require(0 <= value < 255, field, value, 'levels from 0 (off) to 254')
