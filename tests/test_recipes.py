"""The benchmark of recipes: its grid, cells that are resumed, what they cost, and the tables from hand-made results."""

import json
import os
import pathlib
import sys
import textwrap
import threading
import time
import types

import numpy as np
import pytest

from benchmarks import held_out_defects, recipe_cells, recipe_cost, recipe_table, recipes
from configs import default
from data.sets.simulated import fields
from draem_jax import checkpoints, run_directory
from draem_jax.errors import Preempted, UserError


@pytest.fixture
def plus(monkeypatch):
    """A configs/plus.py with four recipes."""
    recipes_there = {
        '': {'training.batch_size': 16, 'optimizer.learning_rate': 1e-3},
        'fast': {'optimizer.learning_rate': 1e-3},
        'light': {'model.reconstructive_width': 8, 'training.batch_size': 32},
        'self': {'dataset.texture_source': 'self'},
    }

    def get_config(arg=''):
        if arg not in recipes_there:
            raise ValueError(f'configs/plus.py:{arg}: expected something else.')
        config = default.get_config()
        config.update_from_flattened_dict(recipes_there[arg])
        return config

    monkeypatch.setitem(sys.modules, 'configs.plus', types.SimpleNamespace(get_config=get_config))


def plan(tmp_path, *arguments):
    for data_set in recipes.SETS.values():
        (tmp_path / 'data' / data_set.folder).mkdir(parents=True, exist_ok=True)
    folders = {'root': 'data', 'textures': 'textures', 'workdir': 'runs', 'out': 'out'}
    return recipes.plan(recipes.parse([*(f'--{flag}={tmp_path / name}' for flag, name in folders.items()), *arguments]))


def flags_of(cell):
    return dict(word.removeprefix('--').split('=', 1) for word in cell.train[2:])


# The grid.


def test_all_recipes_and_sets_of_a_seed_come_before_the_next_seed(tmp_path, plus):
    cells = plan(tmp_path, '--sets=screw,magnetic_tile', '--recipes=official,fast', '--seeds=3,1')
    assert [(cell.facts['seed'], cell.facts['recipe'], cell.facts['set']) for cell in cells] == [
        (seed, recipe, name)
        for seed in (3, 1)
        for recipe in ('official', 'fast')
        for name in ('screw', 'magnetic_tile')
    ]
    assert cells[1].record == tmp_path / 'out' / 'magnetic_tile_1500' / 'official_s3.json'


def test_a_missing_data_set_is_named_and_left_out(tmp_path, capsys):
    plan(tmp_path)
    (tmp_path / 'data' / 'mvtec_ad' / 'screw').rmdir()
    flags = recipes.parse([f'--{name}={tmp_path / "data"}' for name in ('root', 'textures', 'workdir')])
    assert {cell.facts['set'] for cell in recipes.plan(flags)} == {'magnetic_tile', 'ball_screw_time'}
    assert 'screw is left out: no folder' in capsys.readouterr().out


def test_what_a_recipe_sets_itself_wins(tmp_path, plus):
    cells = plan(tmp_path, '--sets=screw', '--recipes=official,light,fast@4-2,plus,self', '--seeds=0', '--steps=1000')
    official, light, narrow, ours, of_itself = map(flags_of, cells)
    widths = ('config.model.reconstructive_width', 'config.model.discriminative_width')
    assert [tuple(flags[width] for width in widths) for flags in (official, light, narrow)] == [
        ('16', '8'),
        ('8', '8'),
        ('4', '2'),
    ]
    # The same number of examples in batches of 8, 32, 8 and 16.
    steps = [flags['config.training.steps'] for flags in (official, light, narrow, ours)]
    assert steps == ['1000', '250', '1000', '500']
    files = [pathlib.Path(flags['config']).name for flags in (official, light, narrow, ours)]
    assert files == ['default.py:official', 'plus.py:light', 'plus.py:fast', 'plus.py']
    assert cells[1].facts['changes'] == {'model.reconstructive_width': 8, 'training.batch_size': 32}
    assert 'config.dataset.texture_root' in official
    assert 'config.dataset.texture_root' not in of_itself  # train.py refuses textures that it would not use.


@pytest.mark.parametrize('steps', [7, 1000, 1005])
def test_ten_checkpoints_at_most_and_the_last_among_them(tmp_path, steps):
    (cell,) = plan(tmp_path, '--sets=screw', '--seeds=0', f'--steps={steps}')
    flags = flags_of(cell)
    every, last = int(flags['config.training.checkpoint_every_steps']), int(flags['config.training.steps'])
    assert len({*range(every, last + 1, every), last}) <= int(flags['config.training.keep_checkpoints'])


@pytest.mark.parametrize(
    ('argument', 'expected'),
    [
        ('--sets=nonsense', "no data set 'nonsense'"),
        ('--recipes=nonsense', 'expected something else'),
        ('--recipes=fast@16', 'two widths'),
        ('--recipes=fast,,', 'commas between'),
        ('--seeds=one', '--seeds=one'),
        ('--widths=16', 'two widths'),
        ('--widths=16,0', 'from 1 on'),
        ('--steps=0', '1 or more'),
    ],
)
def test_mistakes_on_the_command_line_are_told(tmp_path, plus, argument, expected):
    with pytest.raises(UserError, match=expected):
        plan(tmp_path, argument)


# The cells, with short scripts in place of train.py and the measurement.

TRAIN = """
import json, os, pathlib, sys, time
workdir = pathlib.Path(sys.argv[1])
with (workdir / 'starts').open('a') as file:
    file.write(str(sorted(os.sched_getaffinity(0))) + chr(10))
{behaviour}
print('First step after 0 s.', flush=True)
(workdir / 'checkpoints' / '4').mkdir(parents=True, exist_ok=True)
(workdir / 'metrics.jsonl').open('a').write('{{"step": 4}}' + chr(10))
time.sleep(0.5)
(workdir / 'finished.json').write_text('{{"step": 4}}')
"""
MEASURE = """
import json, pathlib, sys
line = {'step': 4, 'image_auroc': 0.75, 'image_auroc_by_kind': {'line': 0.75}, 'pixel_auroc': 0.9, 'pixel_ap': 0.5}
(pathlib.Path(sys.argv[1]) / 'measured.json').write_text(json.dumps({'device': None, 'curve': [line]}))
"""
EVALUATE = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1]) / 'test' / 'evaluation' / '4'
folder.mkdir(parents=True)
names = ('image_auroc', 'image_ap', 'pixel_auroc', 'pixel_ap', 'aupro', 'image_f1_max')
(folder / 'results.json').write_text(json.dumps({'metrics': {name: 0.5 for name in names}}))
"""


def scripted(tmp_path, name, behaviour=''):
    """A cell whose training does what `behaviour`, lines of Python, says."""
    workdir = tmp_path / name
    scripts = [TRAIN.format(behaviour=textwrap.dedent(behaviour)), MEASURE, EVALUATE]
    commands = [[sys.executable, '-c', script, str(workdir)] for script in scripts]
    facts = {'recipe': name, 'set': 'screw', 'seed': 0, 'steps': 4, 'updates': 4}
    return recipe_cells.Cell(facts, workdir, tmp_path / 'out' / f'{name}.json', *commands)


def run_grid(cells, test=False):
    slots = recipe_cells.core_slots(2)
    return recipes.run_grid(
        cells, types.SimpleNamespace(test=test), lambda rest, work: recipe_cells.launch(rest, work, slots)
    )


def starts(cell):
    return (cell.workdir / 'starts').read_text().splitlines()


def test_a_failed_cell_is_named_the_others_go_on_and_the_next_start_makes_what_is_missing(tmp_path, capsys):
    fails = (
        'if not (workdir / "checkpoints").exists():\n    (workdir / "checkpoints").mkdir()\n    sys.exit("Error: no")'
    )
    cells = [scripted(tmp_path, 'bad', fails), scripted(tmp_path, 'good')]
    assert run_grid(cells) == 1
    assert 'bad, seed 0: exit code 1: no' in capsys.readouterr().out
    assert [cell.record.exists() for cell in cells] == [False, True]
    assert run_grid(cells) == 0
    assert [len(starts(cell)) for cell in cells] == [2, 1]
    parts = json.loads((cells[0].workdir / 'spent.json').read_text())
    record = cells[0].read()
    assert len(parts) == 2
    assert record['core_seconds'] == pytest.approx(sum(part['core_seconds'] for part in parts))
    assert record['held_out']['image_auroc_by_kind'] == {'line': 0.75}
    assert record['test'] is None
    assert all(core.count(',') == 0 for cell in cells for core in starts(cell))  # Each had one core for itself.


def test_a_run_that_is_trained_is_only_measured(tmp_path):
    cell = scripted(tmp_path, 'cell')
    run_grid([cell])
    cell.record.unlink()
    assert run_grid([cell]) == 0
    assert cell.record.exists()
    assert len(starts(cell)) == 1


def test_processor_time_before_the_first_step_is_counted_apart(tmp_path):
    behaviour = """
        def work(seconds):
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass

        work(0.6)
        print('First step after 0 s.', flush=True)
        work(0.8)
    """
    cell = scripted(tmp_path, 'cell', behaviour)
    run_grid([cell])
    record = cell.read()
    assert record['core_seconds'] == pytest.approx(1.4, abs=0.3)
    assert 0.6 <= record['start_up_core_seconds'] < 1.2  # It is looked for four times a second.
    training = record['core_seconds'] - record['start_up_core_seconds']
    assert record['held_out']['core_seconds'] == pytest.approx(training, abs=0.1)


def test_a_stopped_cell_is_left_to_do(tmp_path):
    waits = 'import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\nprint("ready")\ntime.sleep(60)'
    cell = scripted(tmp_path, 'cell', waits)
    stop = threading.Event()
    cell.workdir.mkdir()

    def stop_when_ready():
        while not cell.log.exists() or b'\nready' not in cell.log.read_bytes():
            time.sleep(0.02)
        stop.set()

    threading.Thread(target=stop_when_ready).start()
    with pytest.raises(Preempted):
        recipe_cells.train_and_measure(cell, recipe_cells.Slot(None, {}), stop)
    (part,) = json.loads((cell.workdir / 'spent.json').read_text())
    assert part['end'] - part['start'] < 30
    assert not cell.record.exists()


def test_core_seconds_of_a_step_leave_out_what_came_before_the_first_step_and_after_this_one():
    parts = [
        # 80 s of training, of which steps 20 and 30 were lost.
        {'core_seconds': 90, 'start_up_core_seconds': 10, 'steps': {'10': 40, '20': 60, '30': 80}},
        {'core_seconds': 5, 'steps': {}},  # ended before its first step
        {'core_seconds': 90, 'start_up_core_seconds': 30, 'steps': {'20': 50, '30': 70}},
    ]
    at = [recipe_cost.training_core_seconds(parts, step) for step in (10, 20, 30, 40)]
    assert at == [30, 80 + 20, 80 + 40, None]


def test_a_part_that_was_killed_ends_with_the_last_file_of_its_training(tmp_path):
    (tmp_path / 'spent.json').write_text(json.dumps([{'start': 1000.0, 'commit': 'a'}]))
    (tmp_path / 'metrics.jsonl').write_text('')
    os.utime(tmp_path / 'metrics.jsonl', (1250, 1250))
    (part,) = recipe_cost.read_parts(tmp_path)
    assert (part['end'], part['core_seconds'], part['is_guess']) == (1250, 250, True)


def test_the_test_waits_for_the_whole_grid_and_is_filled_in_once(tmp_path):
    cells = [scripted(tmp_path, name) for name in ('one', 'two')]
    run_grid(cells[:1])
    with pytest.raises(UserError, match='1 of 2 cells have no results'):
        run_grid(cells, test=True)
    assert not (cells[0].workdir / 'test').exists()
    run_grid(cells)
    assert run_grid(cells, test=True) == 0
    names = ('image_auroc', 'image_ap', 'pixel_auroc', 'pixel_ap', 'aupro')
    assert [cell.read()['test'] for cell in cells] == [dict.fromkeys(names, 0.5)] * 2
    assert run_grid(cells, test=True) == 0  # A second evaluation would fail: its folder is there.


# The tables.


def record(recipe, name, seed, image_auroc, pixel_ap, core_seconds=100, test=None):
    point = {'image_auroc': image_auroc, 'pixel_auroc': 0.9, 'pixel_ap': pixel_ap}
    curve = [
        {
            'step': 10 * tenth,
            'core_seconds': core_seconds * tenth / 10,
            **point,
            'image_auroc': image_auroc * tenth / 10,
        }
        for tenth in range(1, 11)
    ]
    facts = {'recipe': recipe, 'set': name, 'seed': seed, 'steps': 100, 'updates': 100}
    return {**facts, 'curve': curve, 'held_out': curve[-1], 'test': test}


def rows(table):
    """{title of a column: cell} of each row of a Markdown table."""
    lines = [[cell.strip() for cell in line.strip('| ').split('|')] for line in table.splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


RECORDS = [
    record('official', 'a', 0, 0.60, 0.10),
    record('official', 'a', 1, 0.70, 0.10, core_seconds=120),
    record('official', 'b', 0, 0.80, 0.20),
    record('official', 'b', 1, 0.80, 0.20),
    # On a 0.06 above official with a spread of 0.0707; on b 0.01 above it with a spread of 0.
    record('fast', 'a', 0, 0.71, 0.10),
    record('fast', 'a', 1, 0.71, 0.10),
    record('fast', 'b', 0, 0.81, 0.10),
    record('fast', 'b', 1, 0.81, 0.10),
    # On a the pixels alone are better than those of fast; there is no b with seed 1.
    record('fast+grain', 'a', 0, 0.60, 0.21),
    record('fast+grain', 'a', 1, 0.60, 0.23),
    record('fast+grain', 'b', 0, 0.99, 0.99),
]


def test_the_table_holds_means_spreads_and_where_a_recipe_helps():
    official, fast, grain = rows(recipe_table.held_out_table(recipe_table.Grid(RECORDS)))
    assert [official['recipe'], fast['recipe'], grain['recipe']] == ['official', 'fast', 'fast+grain']
    assert official['a image AUROC'] == '0.650 ± 0.071'  # 0.1 / sqrt(2)
    assert official['a core-s'] == '110'
    assert official['mean image AUROC'] == '0.725 ± 0.035'  # of 0.70 and 0.75
    assert grain['a pixel AP'] == '0.220 ± 0.014'
    assert grain['b image AUROC'] == '0.990'
    assert grain['mean image AUROC'] == '0.795'  # Only seed 0 has both sets: 0.60 and 0.99.
    assert [row['helps on'] for row in (official, fast, grain)] == ['-', '1 of 2', '1 of 1']


def test_cells_that_are_missing_are_dashes():
    *_, lone = rows(recipe_table.held_out_table(recipe_table.Grid([*RECORDS, record('light', 'b', 0, 0.5, 0.5)])))
    assert (lone['a image AUROC'], lone['a core-s'], lone['mean pixel AP'], lone['helps on']) == ('-', '-', '-', '-')


@pytest.mark.parametrize(
    ('recipe', 'base'),
    [
        ('official', None),
        ('fast', 'official'),
        ('fast+grain+ema', 'fast+grain'),
        ('fast+grain@8-16', 'fast+grain'),
        ('official@8-16', 'official'),
    ],
)
def test_a_recipe_is_compared_with_itself_less_its_last_part(recipe, base):
    assert recipe_table.base(recipe) == base


def test_the_test_columns_appear_once_they_are_filled():
    assert 'Test\n\n' not in recipe_table.markdown(RECORDS)
    tested = record('official', 'c', 0, 0.5, 0.5, test={'image_auroc': 0.61, 'pixel_auroc': 0.72, 'pixel_ap': None})
    assert 'Test\n\n' in recipe_table.markdown([*RECORDS, tested])
    official, *others = rows(recipe_table.test_table(recipe_table.Grid([*RECORDS, tested])))
    assert [official[f'c {name}'] for name in ('image AUROC', 'pixel AUROC', 'pixel AP')] == ['0.610', '0.720', '-']
    assert {row['c image AUROC'] for row in others} == {'-'}


def test_the_curve_has_the_mean_of_the_seeds_at_each_fifth():
    official, *_ = rows(recipe_table.curve_table(recipe_table.Grid(RECORDS), 'a'))
    assert official['20 %'] == '0.130 / 22'  # a fifth of 0.65, and of 110 seconds
    assert official['100 %'] == '0.650 / 110'


def test_everything_is_made_from_the_files_alone(tmp_path):
    assert 'No results' in recipe_table.write(tmp_path)
    for one in RECORDS:
        run_directory.write_json(tmp_path / f'{one["set"]}_100' / f'{one["recipe"]}_s{one["seed"]}.json', one)
    recipe_table.write(tmp_path)
    assert (tmp_path / 'table.md').read_text() == recipe_table.markdown(RECORDS)
    assert 'fast+grain' in (tmp_path / 'curves_b_100.svg').read_text()


# The drawn defects.


def drawn_by_the_old_formula(normal, kind, index):
    """As it was when all canvases were square."""
    rng = np.random.default_rng([7, ('line', 'spot', 'stain', 'rough').index(kind), index])
    change = rng.uniform(0.15, 0.6) * (-1 if rng.random() < 0.7 else 1)
    if kind == 'line':
        angle = rng.uniform(0, np.pi)
        distance, taper = fields.curve(rng, rng.uniform(30, 90), angle=angle, bend=0.15)
        strength = fields.smoothstep(rng.uniform(1.2, 2.5), 0.3, np.abs(distance)) * taper
    else:
        radius = rng.uniform(*{'spot': (3, 8), 'stain': (12, 40), 'rough': (8, 25)}[kind])
        shape = fields.blob(rng, fields.draw_place(rng), radius, roughness=0.25, elongation=rng.uniform(1, 2))
        strength = fields.smoothstep(-0.1, {'spot': 0.3, 'stain': 0.6, 'rough': 0.2}[kind], shape)
        if kind == 'rough':
            strength = strength * (0.6 * fields.smooth_noise(rng, 24) + 0.6 * rng.normal(size=shape.shape))
    return np.rint(np.clip(normal * (1 + change * strength[..., None]), 0, 255)).astype(np.uint8)


@pytest.mark.parametrize('kind', held_out_defects.KINDS)
def test_square_images_are_drawn_on_as_before(kind):
    normal = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    for index in range(3):
        picture, mask = held_out_defects.draw_one(normal, kind, index)
        np.testing.assert_array_equal(picture, drawn_by_the_old_formula(normal, kind, index))
        assert (picture != normal).any(-1)[mask].mean() > 0.8
        assert 0 < mask.mean() < 0.5


@pytest.mark.parametrize(('size', 'canvas'), [((64, 160), (128, 320)), ((384, 96), (512, 128)), ((96, 96), (128, 128))])
def test_a_round_defect_stays_round_on_images_of_any_proportions(monkeypatch, size, canvas):
    y, x = np.mgrid[:128, :128] - 63.5
    disc = (np.hypot(y, x) < 32).astype(float)
    monkeypatch.setattr(held_out_defects, 'draw', lambda rng, kind: (disc, disc))
    assert held_out_defects.canvas_size(size) == canvas
    drawn = held_out_defects.draw_all(np.full((3, *canvas, 3), 128, np.uint8), size, antialias=True)
    starts = set()
    for mask in drawn.masks[drawn.kinds != 'good']:
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        # At an odd place of the canvas a side may be a pixel longer.
        assert [1 + np.ptp(rows), 1 + np.ptp(columns)] == pytest.approx([min(size) / 2] * 2, abs=1)
        starts.add((rows[0], columns[0]))
    assert len(starts) == 1 if size[0] == size[1] else len(starts) > 10
    assert not drawn.masks[drawn.kinds == 'good'].any()
    assert drawn.pictures.shape == (3 + 4 * 2 * 3, *size, 3)


def test_a_defect_that_its_field_cuts_does_not_end_in_a_straight_line():
    ones = np.ones((128, 128))
    for part in (0, 0.5, 0.999):
        canvas = held_out_defects.lay(ones, (128, 320), part)
        assert np.abs(np.diff(canvas, axis=1)).max() < 0.15
        assert canvas.max() == 1
    assert held_out_defects.lay(ones, (128, 320), 0)[0, 0] == 1  # There the image itself ends.


def test_each_checkpoint_is_measured_on_the_same_drawn_images(monkeypatch):
    masks = np.zeros((9, 4, 4), bool)
    masks[1:, :2, :1] = True
    kinds = np.array(['good', *np.repeat(held_out_defects.KINDS, 2)])
    pictures = np.zeros((9, 4, 4, 3), np.uint8)
    pictures[masks] = 255
    monkeypatch.setattr(
        held_out_defects, 'open_run', lambda workdir: (None, held_out_defects.Drawn(pictures, masks, kinds))
    )

    def predict(finds_all, images):
        maps = images[..., 0] * float(finds_all)
        return {'map': maps, 'score': maps.max(axis=(1, 2))}

    monkeypatch.setattr(held_out_defects, 'make_predict', lambda config: (predict, None))
    monkeypatch.setattr(checkpoints, 'list_steps', lambda workdir, needs_some: [10, 20])
    monkeypatch.setattr(checkpoints, 'restore_variables', lambda workdir, shapes, step: (step, step == 20))
    blind, perfect = held_out_defects.measure_steps('run')
    assert [blind['step'], perfect['step']] == [10, 20]
    assert [perfect[name] for name in ('image_auroc', 'pixel_auroc', 'pixel_ap')] == [1, 1, 1]
    assert (blind['image_auroc'], blind['pixel_auroc']) == (0.5, 0.5)
    assert blind['pixel_ap'] == pytest.approx(8 * 2 / (9 * 16))  # the share of defective pixels
    assert blind['image_auroc_by_kind'] == dict.fromkeys(held_out_defects.KINDS, 0.5)
