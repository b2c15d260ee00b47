"""A sweep over several configs: how they are read, where their cells lie, and what the table takes."""

import csv
import json

import pytest
from scripted_sweep import ROOT, ScriptedSweep

import evaluate
import sweep
from commands import sweep_configs
from draem_jax.errors import UserError

COLOURS, FULL = (f'{ROOT}/configs/ablations.py:{row},screw' for row in ('colours', 'full'))
TEXTURES = {'dataset.texture_root': 'textures'}


@pytest.fixture
def swept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Where nothing of ours is found by chance.
    monkeypatch.setenv('PYTHONPATH', '')
    return ScriptedSweep(tmp_path)


def start(swept, rows='colours,full', seeds='0', categories=None, **changes):
    files = [f'ablations.py:{row},screw' for row in rows.split(',')]
    changes = {'training.steps': 7, **TEXTURES, **changes}
    return swept.start(swept.plan_all(files, categories, seeds, **changes))


def table_of(swept):
    with (swept.workdir / 'table.csv').open() as file:
        return [(line.get('config'), line['category'], line['seeds']) for line in csv.DictReader(file)]


@pytest.mark.parametrize(
    ('file', 'name'),
    [
        ('configs/ablations.py:colours,screw', 'ablations_colours_screw'),
        ('/a b/light.py', 'light'),
        ('light.py:', 'light'),
        ('light.py:../../etc', 'light_.._.._etc'),
        ('..py:/', 'config'),
        ('my light.v2.py:a=0.5;b*', 'my_light.v2_a_0.5_b'),
    ],
)
def test_the_name_of_a_config_is_one_folder_below_the_sweep(tmp_path, file, name):
    assert sweep_configs.config_name(file) == name
    assert (tmp_path / name).resolve().parent == tmp_path


def test_each_config_has_its_own_values_and_those_of_the_command_line():
    rectangles = FULL.replace('full', 'rectangles')
    configs = sweep_configs.read([rectangles, FULL], {'optimizer.decay_at': (0.5,), **TEXTURES})
    assert [one.name for one in configs] == ['ablations_rectangles_screw', 'ablations_full_screw']
    assert [one.config.synthesis.mask_source for one in configs] == ['rectangle', 'perlin']
    for one, file in zip(configs, (rectangles, FULL), strict=True):
        assert (one.config.optimizer.decay_at, one.config.dataset.texture_root) == ((0.5,), 'textures')
        given = ['--config.optimizer.decay_at=(0.5,)', '--config.dataset.texture_root=textures']
        assert one.arguments == [f'--config={file}', *given]


def test_a_texture_root_is_for_those_of_several_configs_that_take_textures_from_a_folder():
    colours, full = sweep_configs.read([COLOURS, FULL], TEXTURES)
    assert (colours.config.dataset.texture_root, full.config.dataset.texture_root) == ('', 'textures')
    assert colours.arguments == [f'--config={COLOURS}']
    assert full.arguments == [f'--config={FULL}', '--config.dataset.texture_root=textures']
    for files, changes in (([COLOURS], {}), ([COLOURS, FULL], {'dataset.texture_source': 'colour'})):
        with pytest.raises(UserError, match='would not be used'):
            sweep_configs.read(files, TEXTURES | changes)


def test_a_single_config_has_no_name_and_all_flags():
    (only,) = sweep_configs.read([FULL], TEXTURES)
    assert (only.name, only.arguments) == ('', [f'--config={FULL}', '--config.dataset.texture_root=textures'])


@pytest.mark.parametrize(
    ('files', 'changes', 'message'),
    [
        ([COLOURS, FULL], {}, 'ablations.py:full,screw: No textures'),
        ([COLOURS, FULL], {**TEXTURES, 'dataset.image_size': (33, 32)}, r'colours,screw: .*image_size=\(33, 32\)'),
        ([FULL, 'nowhere.py'], TEXTURES, 'nowhere.py'),
        ([FULL, f'{ROOT}/configs/ablations.py:nonsense'], TEXTURES, r'/ablations.py:nonsense: .*expected one of'),
        ([FULL, f'{ROOT}/configs/__init__.py'], TEXTURES, "configs/__init__.py: .*'get_config'"),
        ([], {}, 'Which experiment'),
    ],
)
def test_a_mistake_is_found_in_any_config_and_says_in_which(files, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        sweep_configs.read(files, changes)
    assert len(str(caught.value).splitlines()) == 1


def test_no_two_configs_share_a_folder():
    with pytest.raises(UserError, match=r"^'a/b.py:c' and 'd/b_c.py' would share the folder 'b_c' of the sweep"):
        sweep_configs.read(['a/b.py:c', 'd/b_c.py'], {})


def test_a_mistake_in_a_cell_says_in_which_config(swept):
    with pytest.raises(UserError, match=r"^quickstart_wood: .* no category 'screw'"):
        swept.plan_all(['ablations.py:colours,screw', 'quickstart.py:wood'], 'screw')


def test_cells_lie_below_their_config_and_the_first_seed_of_all_comes_first(swept):
    cell_jobs = swept.plan_all(['ablations.py:full', 'ablations.py:colours'], 'screw,tile', '1,0', **TEXTURES)
    folders = [cell_job.cell.workdir.relative_to(swept.workdir).as_posix() for cell_job in cell_jobs]
    assert folders == [
        f'ablations_{row}/{category}/seed_{seed}'
        for seed in (1, 0)
        for row in ('full', 'colours')
        for category in ('screw', 'tile')
    ]


def test_every_config_is_trained_and_has_a_row_and_is_skipped_the_next_time(swept, capsys):
    assert start(swept, 'full,colours') == 0
    for row, source in (('full', 'folder'), ('colours', 'colour')):
        folder = swept.workdir / f'ablations_{row}_screw/screw/seed_0'
        config = json.loads((folder / 'config.json').read_text())
        assert (config['dataset']['texture_source'], config['training']['steps']) == (source, 7)
        assert swept.commands(folder) == ['train', 'evaluate']
    # In the order of the command line.
    assert table_of(swept) == [('ablations_full_screw', 'screw', '1'), ('ablations_colours_screw', 'screw', '1')]
    assert 'ablations_colours_screw, screw, seed 0: done' in capsys.readouterr().out
    assert start(swept, 'full,colours') == 0
    assert 'ablations_full_screw, screw, seed 0: finished before, skipped.' in capsys.readouterr().out
    assert swept.commands('ablations_full_screw/screw/seed_0') == ['train', 'evaluate']


def test_a_failure_names_its_config(swept, capsys):
    swept.behave(train="if config.dataset.texture_source == 'colour': print('Error: loss nan'); sys.exit(3)")
    assert start(swept) == 1
    log = swept.workdir / 'ablations_colours_screw/screw/seed_0/log.txt'
    line = f'Error: ablations_colours_screw, screw, seed 0: exit code 3: loss nan ({log})\n'
    assert capsys.readouterr().err == line
    assert table_of(swept) == [('ablations_full_screw', 'screw', '1')]
    assert 'not finished: ablations_colours_screw, screw, seed 0.' in (swept.workdir / 'table.md').read_text()


def test_the_table_of_a_sweep_takes_its_own_configs_and_that_of_the_folder_all(swept, capsys):
    swept.run('wood')
    alone = (swept.workdir / 'table.csv').read_bytes()
    start(swept, 'plain,full')
    start(swept, 'opacity,full')
    assert table_of(swept) == [('ablations_opacity_screw', 'screw', '1'), ('ablations_full_screw', 'screw', '1')]
    sweep.write_table(swept.workdir)
    assert (swept.workdir / 'table.csv').read_bytes() == alone
    capsys.readouterr()
    assert evaluate.evaluate_sweep(swept.workdir) == 0
    rows = [(f'ablations_{row}_screw', 'screw', '1') for row in ('full', 'opacity', 'plain')]
    assert table_of(swept) == [('', 'wood', '1'), *rows]
    (swept.workdir / 'ablations_full_screw/screw/seed_0/finished.json').unlink()
    assert evaluate.evaluate_sweep(swept.workdir) == 0
    assert 'ablations_full_screw, screw, seed 0: its training has not ended' in capsys.readouterr().out
