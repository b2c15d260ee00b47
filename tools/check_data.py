"""Reads a data set through before a long run, and says what is wrong with it.

    python tools/check_data.py --config=configs/mvtec.py:bottle --config.dataset.root=MVTEC_AD

Prints how many images and masks there are per split and type of defect, and their sizes; then every file that cannot be
read, masks that are empty, missing, of another size or vanish when they are resized, masks that can be read in several
ways, images that nobody reads, 16-bit images of fewer bits, and pictures that occur twice. The exit code is 1 if any of
these is an error. Nothing is written.
"""

import itertools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))  # Python looks only in tools/.

from absl import flags
from ml_collections import ConfigDict

import data
from commands import command_line, config_checks
from data import inspection, prepared
from data.inspection import ERROR, WARNING, Finding, Report, format_size
from data.sets.in_place import NORMAL
from draem_jax.errors import UserError
from draem_jax.terminal import align


def main() -> int:
    return check_data(flags.FLAGS.config)


def check_data(config: ConfigDict | None) -> int:
    """Checks the data set of a config; returns the exit code."""
    if config is None:
        raise UserError('Which data set? Pass --config=configs/<name>.py, such as --config=configs/folder.py.')
    config_checks.check_fields(config)
    options = config_checks.expand_home(config).dataset
    errors = 0
    builders = data.make_builders(options.name, options.category, options.root, options.options)
    for category, builder in builders.items():
        if len(builders) > 1:
            print(f'{category}:')
        prepared.prepare(builder)
        report = inspection.check(builder, size=tuple(options.image_size), bit_depth=options.bit_depth)
        print(describe(report))
        errors += report.number(ERROR)
    return 1 if errors else 0


def describe(report: Report, limit: int = 20) -> str:
    """The report as lines for a terminal.

    Args:
        report: from `inspection.check`.
        limit: how many findings of one kind are listed; the others are counted.
    """
    rows = [('split', 'defect type', 'images', 'masks')]
    for (split, defect_type), (number, masks) in sorted(report.counts.items()):
        rows.append((split, defect_type, str(number), '' if defect_type == NORMAL else str(masks)))
    lines = [*align(rows, left=2), _describe_sizes(report.sizes)]
    for (severity, kind), group in itertools.groupby(sorted(report.findings, key=_group_of), key=_group_of):
        findings = list(group)
        lines += [f'{severity}, {kind}: {finding.text}' for finding in findings[:limit]]
        if len(findings) > limit:
            lines.append(f'{severity}, {kind}: ... and {len(findings) - limit} more')
    lines.append(f'{report.number(ERROR)} error(s), {report.number(WARNING)} warning(s).')
    return '\n'.join(lines)


def _group_of(finding: Finding) -> tuple[str, str]:
    return finding.severity, finding.kind


def _describe_sizes(sizes: dict[tuple[int, int], int], limit: int = 3) -> str:
    """The sizes in one line: the most frequent first, or where there are more than `limit` their range."""
    if len(sizes) <= limit:
        ordered = sorted(sizes.items(), key=lambda item: -item[1])
        return 'Sizes (width x height): ' + ', '.join(f'{number} of {format_size(size)}' for size, number in ordered)
    heights, widths = zip(*sizes, strict=True)
    return (
        f'Sizes: {len(sizes)} different ones, widths {min(widths)} to {max(widths)}, heights {min(heights)} to '
        f'{max(heights)} pixels'
    )


if __name__ == '__main__':
    command_line.define_config_file()
    command_line.main(main)
