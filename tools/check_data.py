"""Reads a data set through before a long run, and says what is wrong with it.

    python tools/check_data.py --config=configs/mvtec.py:bottle --config.dataset.root=MVTEC_AD

Prints how many images and masks there are per split and type of defect, and their sizes; then every file that cannot be
read, masks that are empty, missing or of another size, and pictures that occur twice. Exit code 1 if any of it is an
error. Nothing is written.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))  # Where the packages are.

from absl import flags

import data
from commands import command_line
from data import inspection, streaming
from draem_jax.errors import UserError


def main():
    return check_data(flags.FLAGS.config)


def check_data(config):
    """Checks the data set of a config; returns the exit code."""
    if config is None:
        raise UserError('Which data set? Pass --config=configs/<name>.py, such as --config=configs/folder.py.')
    options = config.dataset
    errors = 0
    builders = data.make_builders(options.name, options.category, options.root, options.options)
    for category, builder in builders.items():
        if len(builders) > 1:
            print(f'{category}:')
        streaming.prepare(builder)
        report = inspection.check(builder)
        print(inspection.describe(report))
        errors += report.number(inspection.ERROR)
    return 1 if errors else 0


if __name__ == '__main__':
    command_line.define_config_file()
    command_line.main(main)
