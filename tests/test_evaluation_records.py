"""Results made in two ways are told apart: by what results.json tells, and by the folders that they lie in."""

import json

import pytest

from commands import evaluation_records
from commands.evaluation_folders import Destination
from commands.evaluation_records import choose_suffix, differences, hash_names, read_matching, read_record
from configs import default
from draem_jax import run_directory

NAMES = {'': ['test/good/0.png', 'test/crack/0.png']}
METRICS = {'image_auroc': 0.5}


def make_config(**changes):
    config = default.get_config()
    config.dataset.update(root='/data/parts', texture_root='textures')
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def workdir(tmp_path):
    run_directory.start(tmp_path / 'run', make_config().to_dict())
    return tmp_path / 'run'


def evaluate(workdir, names=NAMES, split='test', out=None, is_own_root_here=True, **changes):
    """Writes the results.json of step 4 as evaluate.py does; returns its folder below evaluation/."""
    splits = {category: {'split': split, 'note': None} for category in names}
    own = run_directory.read_config(workdir)
    destination = Destination(workdir, own, make_config(**changes), names, splits, lambda root: is_own_root_here, out)
    options = make_config(**changes).evaluation.to_dict()
    folder = destination.folder(4)
    record = {'step': 4, **destination.record(''), 'options': options, 'metrics': METRICS}
    run_directory.write_json(folder / 'results.json', record)
    return folder.relative_to((out or workdir) / 'evaluation').as_posix()


def test_results_tell_how_they_were_made(workdir):
    evaluate(workdir)
    record = json.loads((workdir / 'evaluation/4/results.json').read_text())
    expected = {'name': 'folder', 'category': '', 'options': '', 'root': '/data/parts', 'image_size': [256, 256]}
    expected |= {'antialias': False, 'bit_depth': 0, 'split': 'test', 'note': None}
    expected['names_sha256'] = hash_names(['test/crack/0.png', 'test/good/0.png'])
    assert record['dataset'] == expected
    assert record['model'] == {'dtype': 'auto', 'anomaly_map': 'segmentation'}
    assert 'synthesis' not in record


def test_the_same_settings_replace_and_others_get_a_folder_of_their_own(workdir, capsys):
    assert evaluate(workdir) == '4'
    before = (workdir / 'evaluation/4/results.json').read_text()
    assert capsys.readouterr().out == ''
    assert evaluate(workdir) == '4'
    other = {'dataset.root': '/data/other'}
    assert evaluate(workdir, **other) == '4_root=other'
    assert "evaluation/4' holds results made with dataset.root='/data/parts'" in capsys.readouterr().out
    assert evaluate(workdir, **other) == '4_root=other'
    assert evaluate(workdir, **{'dataset.image_size': (32, 64)}) == '4_image_size=32x64'
    assert evaluate(workdir, **{'evaluation.mask_rule': 'full'}) == '4_mask_rule=full'
    assert evaluate(workdir, **{'evaluation.score_top': 0.01}) == '4_score_top=0.01'
    assert evaluate(workdir, **{'dataset.options': 'normal=ok,defects=../ng'}) == '4_options=normal=ok,defects=..-ng'
    assert evaluate(workdir, **{'evaluation.sheet_rows': 2, 'evaluation.batch_size': 4}) == '4'
    assert (workdir / 'evaluation/4/results.json').read_text() != before  # The last one had the same settings.
    assert read_matching(workdir, 4)['dataset']['root'] == '/data/parts'


def test_two_folders_of_one_name_are_kept_apart(workdir):
    assert evaluate(workdir) == '4'
    for root, suffix in (('/a/other', ''), ('/b/other', '_2'), ('/a/other', ''), ('/b/other', '_2')):
        assert evaluate(workdir, **{'dataset.root': root}) == f'4_root=other{suffix}'


def test_the_first_evaluation_takes_the_usual_folder_and_the_runs_own_is_still_found(workdir):
    assert evaluate(workdir, **{'dataset.image_size': (32, 32)}) == '4'
    assert read_matching(workdir, 4) is None
    assert evaluate(workdir) == '4_image_size=256x256'
    assert read_matching(workdir, 4)['dataset']['image_size'] == [256, 256]


def test_data_are_another_set_as_long_as_there_is_something_at_the_runs_own_root(workdir):
    other = {'dataset.root': '/mnt/parts'}
    assert evaluate(workdir, **other) == '4'
    assert read_matching(workdir, 4) is None
    assert evaluate(workdir) == '4_root=parts'
    assert read_matching(workdir, 4)['dataset']['root'] == '/data/parts'


@pytest.mark.parametrize('names', [NAMES, {'': ['x.png']}])
def test_data_that_have_moved_are_the_same_where_their_names_are(workdir, names):
    moved = {'dataset.root': '/mnt/parts', 'names': names, 'is_own_root_here': False}
    assert evaluate(workdir, **moved) == '4'
    record = json.loads((workdir / 'evaluation/4/results.json').read_text())
    assert record['dataset']['moved_from'] == '/data/parts'
    assert read_matching(workdir, 4) is not None
    assert evaluate(workdir, **moved | {'dataset.root': '/media/parts'}) == '4'
    # Where results of the run's own root are known, their names decide.
    (workdir / 'evaluation/4/results.json').unlink()
    assert evaluate(workdir) == '4'
    assert evaluate(workdir, **moved) == ('4' if names == NAMES else '4_root=parts')


def test_results_of_an_older_version_count_as_made_by_the_runs_own_config(workdir):
    dataset = {'name': 'folder', 'category': '', 'split': 'test', 'image_size': [256, 256], 'note': None}
    record = {'step': 4, 'dataset': dataset, 'options': make_config().evaluation.to_dict(), 'metrics': METRICS}
    run_directory.write_json(workdir / 'evaluation/4/results.json', record)
    assert read_matching(workdir, 4) == record
    assert evaluate(workdir, **{'dataset.antialias': True}) == '4_antialias=True'
    other = {'dataset.root': '/data/other'}
    assert evaluate(workdir, **other) == '4_root=other'
    assert evaluate(workdir) == '4'


def test_a_simulated_test_depends_on_the_synthesis_and_a_real_one_does_not(workdir):
    changed = {'synthesis.opacity': (0.5, 0.6)}
    assert evaluate(workdir) == '4'
    assert evaluate(workdir, **changed) == '4'
    assert evaluate(workdir, split='simulated') == '4'
    assert evaluate(workdir, split='simulated', **changed) == '4_opacity=0.5x0.6'
    assert read_matching(workdir, 4)['synthesis']['opacity'] == [0.2, 1.0]


def test_a_folder_given_by_hand_takes_several_runs(workdir, tmp_path):
    run_directory.start(tmp_path / 'second', make_config().to_dict())
    for _ in range(2):
        assert evaluate(workdir, out=tmp_path / 'mine') == '4'
        assert evaluate(tmp_path / 'second', out=tmp_path / 'mine') == '4_workdir=second'
    assert not (workdir / 'evaluation').exists()


def test_several_categories_have_results_each_and_together(tmp_path):
    config = make_config(**{'dataset.name': 'mvtec_ad', 'dataset.category': 'all'})
    run_directory.start(tmp_path, config.to_dict())
    names = {'bottle': ['a.png'], 'screw': ['a.png', 'b.png']}
    splits = {category: {'split': 'test', 'note': None} for category in names}
    own = run_directory.read_config(tmp_path)

    def destination(config):
        return Destination(tmp_path, own, config, names, splits, lambda dataset: None)

    first = destination(config)
    assert [first.folder(4, category).relative_to(tmp_path).as_posix() for category in ('bottle', None)] == [
        'evaluation/4/bottle',
        'evaluation/4',
    ]
    assert first.record()['dataset']['category'] == 'all'
    assert first.record('screw')['dataset']['category'] == 'screw'
    hashes = {first.record(category)['dataset']['names_sha256'] for category in (None, 'bottle', 'screw')}
    assert len(hashes) == 3
    record = {'step': 4, 'options': config.evaluation.to_dict(), 'metrics': METRICS, **first.record()}
    run_directory.write_json(first.folder(4) / 'results.json', record)
    assert read_matching(tmp_path, 4) == record
    config.dataset.category = 'bottle,screw'
    assert destination(config).folder(4).name == '4_category=bottle,screw'
    old = {**record, 'dataset': {'name': 'mvtec_ad', 'category': 'bottle,screw'}, 'per_category': {}}
    run_directory.write_json(first.folder(4) / 'results.json', old)
    assert read_matching(tmp_path, 4) == old


@pytest.mark.parametrize(
    'text',
    ['{"step": 3', '', '[]', '5', '{}', '{"dataset": 5, "options": {}, "metrics": {}}', '\udcff', '[' * 99999]
    + ['{"dataset": {"name": "a"}, "options": [], "metrics": {}}']
    + ['{"dataset": {"name": "a"}, "options": {}, "metrics": {"aupro": "0.5"}}']
    + ['{"dataset": {"name": "a"}, "options": {}, "metrics": {"aupro": true}}']
    + ['{"dataset": {"name": 5}, "options": {}, "metrics": {}}'],
)
def test_damaged_results_are_none_and_are_made_anew(workdir, text):
    path = workdir / 'evaluation/4/results.json'
    path.parent.mkdir(parents=True)
    path.write_text(text, errors='surrogateescape')
    assert read_record(path) is None
    assert read_matching(workdir, 4) is None
    assert evaluate(workdir, **{'dataset.antialias': True}) == '4'


def test_settings_are_compared_as_json_holds_them(workdir):
    settings = evaluation_records.settings_of(make_config().to_dict())
    record = {'dataset': {'image_size': [256, 256]}, 'options': {'score_window': 21}}
    assert differences(record, settings, settings) == {}
    record['dataset']['image_size'] = [64, 256]
    assert differences(record, settings, settings) == {'dataset.image_size': [64, 256]}


def test_an_empty_folder_is_free(tmp_path):
    settings = evaluation_records.settings_of(make_config().to_dict())
    assert choose_suffix(tmp_path / 'nowhere', {'results.json': (settings, 'x')}, settings) == ('', None)
