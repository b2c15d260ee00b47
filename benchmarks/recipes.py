"""What quality a minute of training buys: recipes against `official` at the same budget, on real data sets.

    python -m benchmarks.recipes --root=DATASETS --textures=DTD/images --workdir=RUNS --steps=1500 \
        --sets=magnetic_tile,screw,ball_screw_time --recipes=official,fast,fast+grain --seeds=0,1

A recipe is the argument of configs/plus.py, `plus` the file without one, and `official` configs/default.py; @8-16 after
it gives the networks these widths in place of --widths. Each cell of the grid, a recipe on a data set with a seed, is
one training, pinned to a core of its own. Its checkpoints then look for defects that are drawn on held-out normal
images (`benchmarks.held_out_defects`): choices are made on these. Started again, the benchmark skips what is done and
goes on with the rest. --test, once the grid is complete, evaluates the last checkpoints on the test images; nothing
else reads them.

--steps counts updates of 8 examples of 64 x 64 pixels: fewer are made of larger examples, and of larger batches. What a
cell cost is measured: processor seconds of all threads, those until the first step (imports, reading, compiling) apart,
and seconds by the clock. The results are JSON files in --out, from which `benchmarks.recipe_table` makes the tables.
"""

import argparse
import dataclasses
import importlib
import pathlib
import sys

from benchmarks import recipe_cells, recipe_table
from configs import default
from draem_jax.errors import Preempted, UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / 'benchmarks' / 'results' / 'recipes'
WIDTHS = ('model.reconstructive_width', 'model.discriminative_width')
BATCH_SIZE = 8  # of the examples that --steps counts


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Where a data set lies below --root, and how it is trained on."""

    folder: str
    image_size: tuple[int, int]
    score_window: int  # 21 at 256 px
    step_factor: float = 1.0  # how many times --steps it takes


SETS = {
    'magnetic_tile': DataSet('mtd/magnetic_tile', (64, 64), 5),
    'screw': DataSet('mvtec_ad/screw', (64, 64), 5),
    # As many pixels for the same --steps.
    'ball_screw_time': DataSet('bsdata/ball_screw_time', (64, 160), 5, step_factor=0.4),
    'ball_screw_position': DataSet('bsdata/ball_screw_position', (64, 160), 5, step_factor=0.4),
}


def read_recipe(recipe):
    """(value of --config, what it changes) of a recipe; the latter is {'section.field': value} against `official`."""
    switches, _, widths = recipe.partition('@')
    own_widths = dict(zip(WIDTHS, parse_widths(widths.replace('-', ','), '--recipes'), strict=True)) if widths else {}
    if switches == 'official':
        return f'{ROOT}/configs/default.py:official', own_widths
    argument = [] if switches == 'plus' else [switches]
    try:
        config = importlib.import_module('configs.plus').get_config(*argument)
    except ValueError as error:
        raise UserError(f'--recipes: {error}') from None
    official = default.get_config()
    changes = {
        f'{section}.{field}': value
        for section, fields in config.items()
        for field, value in fields.items()
        if value != official[section][field]
    }
    return ':'.join([f'{ROOT}/configs/plus.py', *argument]), changes | own_widths


def plan(flags):
    """The cells of the grid in their order: for each seed each recipe on all data sets, so that tables fill evenly.

    Args:
        flags: of the command line. A data set whose folder is missing is named and left out.

    Raises:
        UserError: an unknown data set or recipe, or numbers that are none.
    """
    seeds = _numbers(flags.seeds, '--seeds', least=0)
    widths = parse_widths(flags.widths, '--widths')
    names = []
    for name in _words(flags.sets):
        if name not in SETS:
            raise UserError(f"--sets: no data set '{name}'. Known: {', '.join(SETS)}.")
        folder = pathlib.Path(flags.root or '.', SETS[name].folder)
        if folder.is_dir():
            names.append(name)
        else:
            print(f"{name} is left out: no folder '{folder}'.")
    recipes = {recipe: read_recipe(recipe) for recipe in _words(flags.recipes)}
    return [
        make_cell(name, recipe, seed, *recipes[recipe], widths, flags)
        for seed in seeds
        for recipe in recipes
        for name in names
    ]


def make_cell(name, recipe, seed, config_file, changes, widths, flags):
    """A cell of the grid as `recipe_cells.Cell`."""
    data_set = SETS[name]
    batch_size = changes.get('training.batch_size', BATCH_SIZE)
    updates = max(1, round(flags.steps * data_set.step_factor * BATCH_SIZE / batch_size))
    fifth = -(-updates // 5)  # Looking for drawn defects takes as long as fifty steps.
    usual = {
        'dataset.image_size': data_set.image_size,
        'dataset.antialias': True,
        **dict(zip(WIDTHS, widths, strict=True)),
        'evaluation.score_window': data_set.score_window,
    }
    fixed = {
        'dataset.name': 'folder',
        'dataset.root': str(pathlib.Path(flags.root).resolve() / data_set.folder),
        'dataset.validation_fraction': 0.1,  # The same images are held out in all cells.
        'training.seed': seed,
        'training.steps': updates,
        'training.log_every_steps': fifth,
        'training.checkpoint_every_steps': fifth,
        'training.keep_checkpoints': 5,
        'training.validate_every_steps': 0,
        'training.picture_every_steps': 0,
        'evaluation.mask_rule': 'half',
        'evaluation.report': False,
        'evaluation.sheet_rows': 0,
    }
    # What the recipe changes of the usual values wins over them.
    values = usual | {field: value for field, value in changes.items() if field in usual} | fixed
    if changes.get('dataset.texture_source', 'folder') == 'folder':
        values['dataset.texture_root'] = str(pathlib.Path(flags.textures).resolve())
    part = pathlib.Path(f'{name}_{flags.steps}', f'{recipe}_s{seed}')
    facts = {
        'recipe': recipe,
        'set': name,
        'seed': seed,
        'steps': flags.steps,
        'updates': updates,
        'batch_size': batch_size,
        'widths': [values[field] for field in WIDTHS],
        'image_size': list(values['dataset.image_size']),
        'changes': {field: list(value) if isinstance(value, tuple) else value for field, value in changes.items()},
    }
    workdir = pathlib.Path(flags.workdir).resolve() / part
    here = f'--workdir={workdir}'
    train = [sys.executable, f'{ROOT}/train.py', f'--config={config_file}', here]
    return recipe_cells.Cell(
        facts,
        workdir,
        pathlib.Path(flags.out, part).with_name(f'{part.name}.json'),
        train=train + [f'--config.{field}={value}' for field, value in values.items()],
        measure=[sys.executable, '-m', 'benchmarks.recipes', f'--measure={workdir}'],
        evaluate=[sys.executable, f'{ROOT}/evaluate.py', here, f'--out={workdir / recipe_cells.TEST_FOLDER}'],
    )


def run_grid(cells, flags, launch):
    """Trains and measures the cells that have no results, or with --test evaluates those without a test.

    Args:
        cells: from `plan`.
        flags: of the command line.
        launch: as `recipe_cells.launch`, with the flags bound.

    Returns:
        The exit code: 1 if a cell failed.
    """
    missing = [cell for cell in cells if not cell.record.exists()]
    for cell in cells:
        if cell not in missing and (differing := cell.differing_facts()):
            print(
                f"Note: {cell}: '{cell.record}' is of other settings: {differing}. With another --out it is made anew."
            )
    if not flags.test:
        return launch(missing, recipe_cells.train_and_measure)
    if missing:
        names = ', '.join(map(str, missing[:3])) + (', ...' if len(missing) > 3 else '')
        raise UserError(
            f'--test: {len(missing)} of {len(cells)} cells have no results yet ({names}). Choices are made on held-out '
            'images before the test is looked at: run the grid without --test first.'
        )
    return launch([cell for cell in cells if cell.read()['test'] is None], recipe_cells.test)


def parse_widths(text, flag):
    """'16,8' -> [16, 8]."""
    widths = _numbers(text, flag, least=1)
    if len(widths) != 2:
        raise UserError(f'{flag}: expected two widths, of the reconstructive and the discriminative network: {text}.')
    return widths


def _words(text):
    words = list(dict.fromkeys(word.strip() for word in text.split(',')))
    if not all(words):
        raise UserError(f"'{text}': expected names with commas between.")
    return words


def _numbers(text, flag, least):
    words = text.split(',')
    if not all(word.isdecimal() and int(word) >= least for word in words):
        raise UserError(f'{flag}={text}: expected integers from {least} on, with commas between.')
    return [int(word) for word in words]


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', help='folder of the data sets')
    parser.add_argument('--textures', help='folder of the texture images')
    parser.add_argument('--workdir', help='folder that takes the runs')
    parser.add_argument('--out', default=str(OUT), help='folder of the results')
    parser.add_argument('--sets', default='magnetic_tile,screw,ball_screw_time', help=f'of {", ".join(SETS)}')
    parser.add_argument('--recipes', default='official', help='such as official,fast,fast+grain')
    parser.add_argument('--seeds', default='0,1')
    parser.add_argument('--steps', type=int, default=1500, help=f'updates of {BATCH_SIZE} examples')
    parser.add_argument('--widths', default='16,8', help='of the two networks, unless a recipe has its own')
    parser.add_argument('--processes', type=int, help='cells at a time; the cores by default, or 1 with --gpu')
    parser.add_argument('--gpu', action='store_true', help='train on one GPU, which several cells may share')
    parser.add_argument('--test', action='store_true', help='evaluate the complete grid on the test images')
    parser.add_argument('--table', action='store_true', help='only make the tables from the results that are there')
    parser.add_argument('--measure', metavar='CELL', help='only measure the run in this folder: a cell starts this')
    flags = parser.parse_args(arguments)
    if not (flags.table or flags.measure):
        lacking = [f'--{name}' for name in ('root', 'textures', 'workdir') if not getattr(flags, name)]
        if lacking:
            raise UserError(f'{", ".join(lacking)}: expected a folder each.')
        if flags.steps < 1 or (flags.processes is not None and flags.processes < 1):
            raise UserError('--steps and --processes: expected 1 or more.')
    return flags


def main():
    flags = parse()
    if flags.measure:
        recipe_cells.measure(flags.measure)
        return 0
    code = 0
    if not flags.table:
        slots = recipe_cells.gpu_slots(flags.processes or 1) if flags.gpu else recipe_cells.core_slots(flags.processes)
        code = run_grid(plan(flags), flags, lambda cells, work: recipe_cells.launch(cells, work, slots))
    print(recipe_table.write(flags.out))
    return code


if __name__ == '__main__':
    try:
        sys.exit(main())
    except UserError as error:
        raise SystemExit(f'Error: {error}') from None
    except Preempted as reason:
        print(reason)
        sys.exit(reason.exit_code)
