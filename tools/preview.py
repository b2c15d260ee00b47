"""Shows the training examples that a config makes, before hours of training on them.

    python tools/preview.py --config=configs/folder.py --config.dataset.root=FOLDER --out=sheet.png

Writes a labelled contact sheet: the normal image, the texture, the texture after its operations, the mask, and the
result, with opacity, area and operations above each row. It shows only examples with a visible mask, and prints how
many there are.
"""

import pathlib
import sys
from collections.abc import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))  # Python looks only in tools/.

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from commands import command_line, config_checks
from data import inputs, pipeline
from data.synthesis.options import check_options
from draem_jax import images, pictures, storage
from draem_jax.errors import UserError

COLUMNS = ('normal image', 'texture', 'augmented texture', 'mask', 'result')
LOOKED_AT = 200  # How many examples the printed figures are about.


def main() -> None:
    preview(flags.FLAGS.config, flags.FLAGS.out, rows=flags.FLAGS.rows, first=flags.FLAGS.first)


def preview(config: ConfigDict, out: str, *, rows: int = 8, first: int = 0) -> None:
    """Writes the sheet and prints how many masks are visible and how large they are.

    Args:
        config: has the fields of configs/default.py.
        out: path of the PNG file; its folder must exist.
        rows: how many examples to show.
        first: position of the first example to look at.

    Raises:
        UserError: something in the config or the files is wrong.
    """
    config_checks.check(config)
    config = config_checks.expand_home(config)
    check_options(**config.synthesis)
    out = storage.local_path(out, '--out')
    for folder in filter(None, (config.dataset.root, config.dataset.texture_root)):
        if pathlib.Path(out).resolve().is_relative_to(pathlib.Path(folder).resolve()):
            raise UserError(f"--out={out} lies in '{folder}', where it would be read as an image. Take another place.")
    if not pathlib.Path(out).resolve().parent.is_dir():
        raise UserError(f"No folder '{pathlib.Path(out).parent}' to write --out={out} to.")
    loaded = inputs.load(**config.dataset)
    print(loaded)
    examples = pipeline.examples(
        loaded.normals,
        loaded.textures,
        seed=config.training.seed,
        positions=range(first, first + max(LOOKED_AT, 4 * rows)),
        trace=True,
        real_defects=loaded.real_defects,
        **config.synthesis,
    )
    areas = examples['mask'].mean(axis=(1, 2, 3))
    shown = areas.nonzero()[0]
    print(describe(examples['opacity'] > 0, areas))
    if not len(shown):
        print(f'No example has a visible anomaly, so there is nothing to show: {out} is not written.')
        return
    sheet = pictures.sheet([_row(examples, k, first, config.synthesis.operations) for k in shown[:rows]], COLUMNS)
    try:
        images.write_png(out, sheet)
    except OSError as error:
        raise UserError(f"Cannot write --out='{out}': {error.strerror}.") from error
    print(f'{min(rows, len(shown))} of them: {out}')


def describe(anomalous: np.ndarray, areas: np.ndarray) -> str:
    """One line about masks.

    Args:
        anomalous: bool [N], whether an example should have a mask.
        areas: [N], the part of the image that its mask covers.
    """
    line = f'Of {len(areas)} examples {(~anomalous).sum()} are clean on purpose, '
    line += f'{(anomalous & (areas == 0)).sum()} have a mask that came out empty'
    if (areas > 0).any():
        low, middle, high = np.percentile(100 * areas[areas > 0], [5, 50, 95])
        line += f'; the others cover {middle:.1f} % of the image in the median, {low:.1f} to {high:.1f} % (5 to 95 %)'
    return line + '.'


def _row(
    examples: dict[str, np.ndarray], k: int, first: int, operations: Sequence[str]
) -> tuple[str, list[np.ndarray]]:
    names = ', '.join(operations[index] for index in examples['order'][k]) or 'no operation'
    area = 100 * examples['mask'][k].mean()
    caption = f'example {first + k}: opacity {examples["opacity"][k]:.2f}, area {area:.1f} %, {names}'
    cells = [examples[name][k] for name in ('image', 'texture', 'augmented_texture')]
    return caption, [*cells, 255 * examples['mask'][k, ..., 0], examples['augmented'][k]]


if __name__ == '__main__':
    command_line.define_config_file()
    flags.DEFINE_string('out', None, 'PNG file to write.', required=True)
    flags.DEFINE_integer('rows', 8, 'How many examples to show.', lower_bound=1)
    flags.DEFINE_integer('first', 0, 'Position of the first example to look at.', lower_bound=0)
    command_line.main(main)
