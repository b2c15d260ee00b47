"""The directory of a run: what is written, what may change between two starts, and what is no run."""

import datetime
import json

import pytest

from configs import default
from draem_jax import run_directory
from draem_jax.errors import UserError

CONFIG = {
    'dataset': {'root': 'here', 'image_size': (64, 64)},
    'training': {'seed': 0, 'steps': 10},
    'evaluation': {'batch_size': 4},
}


def changed(section, field, value):
    return {**CONFIG, section: {**CONFIG[section], field: value}}


def test_a_config_comes_back_as_it_was_written(tmp_path):
    config = default.get_config().to_dict()
    run_directory.start(tmp_path / 'new' / 'run', config)
    read = run_directory.read_config(tmp_path / 'new' / 'run')
    assert read == json.loads(json.dumps(config))
    assert read['optimizer']['learning_rate'] == 1e-4
    assert read['dataset']['image_size'] == [256, 256]


def test_the_file_is_plain_json_with_its_schema(tmp_path):
    run_directory.start(tmp_path, CONFIG)
    assert json.loads((tmp_path / 'config.json').read_text())['schema'] == run_directory.SCHEMA


def test_the_same_config_may_start_again(tmp_path):
    run_directory.start(tmp_path, CONFIG)
    run_directory.start(tmp_path, CONFIG)
    assert run_directory.read_config(tmp_path)['training'] == CONFIG['training']


def test_a_field_that_the_run_did_not_know_may_have_its_default_only(tmp_path):
    run_directory.start(tmp_path, CONFIG)
    newer = {**CONFIG, 'training': {**CONFIG['training'], 'momentum': 0.5}}
    with pytest.raises(UserError, match='momentum'):
        run_directory.start(tmp_path, newer, {'training': {'momentum': 0.9}})
    run_directory.start(tmp_path, newer, {'training': {'momentum': 0.5}})
    assert run_directory.read_config(tmp_path)['training']['momentum'] == 0.5


@pytest.mark.parametrize(
    ('section', 'field', 'value'),
    [('dataset', 'root', 'there'), ('training', 'steps', 20), ('evaluation', 'batch_size', 8)],
)
def test_what_does_not_change_the_examples_may_change_and_is_kept(tmp_path, section, field, value):
    run_directory.start(tmp_path, CONFIG)
    run_directory.start(tmp_path, changed(section, field, value))
    assert run_directory.read_config(tmp_path)[section][field] == value


@pytest.mark.parametrize(
    ('section', 'field', 'value'),
    [('training', 'seed', 1), ('dataset', 'image_size', (32, 32)), ('training', 'momentum', 0.5)],
)
def test_a_run_of_another_config_is_refused_and_stays_as_it_is(tmp_path, section, field, value):
    run_directory.start(tmp_path, CONFIG)
    before = (tmp_path / 'config.json').read_text()
    with pytest.raises(UserError) as caught:
        run_directory.start(tmp_path, changed(section, field, value))
    message = str(caught.value)
    assert '\n' not in message
    assert f'{section}.{field}' in message
    assert str(tmp_path) in message
    assert (tmp_path / 'config.json').read_text() == before


def test_a_directory_without_a_config_is_no_run(tmp_path):
    for workdir in (tmp_path, tmp_path / 'nowhere'):
        with pytest.raises(UserError, match='not the directory of a run') as caught:
            run_directory.read_config(workdir)
        assert str(workdir) in str(caught.value)


@pytest.mark.parametrize(
    'text',
    ['{"schema": 1, "training', '{"training": {}}', '{"schema": 99}', '[]', '5', '{"schema": true}', '[' * 99999]
    + ['{"schema": 1, "dataset": 5}', '{"schema": 1, "dataset": []}', '{"schema": [1]}', ''],
)
def test_a_config_file_that_cannot_be_understood_is_named(tmp_path, text):
    (tmp_path / 'config.json').write_text(text)
    for function in (run_directory.read_config, lambda workdir: run_directory.start(workdir, CONFIG)):
        with pytest.raises(UserError, match=r'config\.json.* Put back the file that train\.py wrote') as caught:
            function(tmp_path)
        assert '\n' not in str(caught.value)
    assert (tmp_path / 'config.json').read_text() == text


@pytest.mark.parametrize('value', [float('nan'), float('inf'), {1, 2}])
def test_what_json_cannot_hold_is_refused_and_the_file_stays_whole(tmp_path, value):
    path = tmp_path / 'file.json'
    run_directory.write_json(path, {'old': 1})
    with pytest.raises((ValueError, TypeError)):
        run_directory.write_json(path, {'new': value})
    assert json.loads(path.read_text()) == {'old': 1}
    assert [file.name for file in tmp_path.iterdir()] == ['file.json']


def test_evaluations_of_two_steps_lie_apart(tmp_path):
    assert run_directory.evaluation_folder(tmp_path, 5) != run_directory.evaluation_folder(tmp_path, 10)
    assert run_directory.evaluation_folder(tmp_path, 5).is_relative_to(tmp_path)


def test_a_run_is_finished_from_its_last_step_until_it_goes_on(tmp_path):
    assert run_directory.finished_step(tmp_path) is None
    assert not run_directory.is_finished(tmp_path)
    run_directory.remove_finished(tmp_path)  # Nothing is there yet, and that is fine.
    run_directory.write_finished(tmp_path, 40)
    assert run_directory.finished_step(tmp_path) == 40
    assert run_directory.is_finished(tmp_path)
    written = json.loads((tmp_path / 'finished.json').read_text())
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(written['time'])
    assert abs(age) < datetime.timedelta(minutes=1)
    run_directory.remove_finished(tmp_path)
    assert not run_directory.is_finished(tmp_path)


@pytest.mark.parametrize(
    'text',
    ['', '{"step": 4', '{}', '[]', '{"step": null}', '{"step": "4"}', '{"step": 4.0}', '{"step": true}', '{"step": -1}']
    + ['{"step": 1e999}', '\udcff\udcfe', '[' * 99999],
)
def test_a_damaged_finished_json_is_named_and_does_not_count(tmp_path, text):
    (tmp_path / 'finished.json').write_text(text, errors='surrogateescape')
    assert not run_directory.is_finished(tmp_path)
    with pytest.raises(UserError, match=r"finished\.json' .*Start train\.py again") as caught:
        run_directory.finished_step(tmp_path)
    assert '\n' not in str(caught.value)


def test_the_training_log_is_read_without_what_a_crash_cut_short(tmp_path):
    assert run_directory.read_training_log(tmp_path) == []
    lines = [
        '{"step": 5, "loss": 0.5}',
        '{"step": 10, "loss": 0.',
        '7',
        '{"loss": 1}',
        '{"step": 10, "loss": 0.25}',
        '{"st',
    ]
    (tmp_path / 'metrics.jsonl').write_text('\n'.join(lines))
    log = run_directory.read_training_log(tmp_path)
    assert log == [{'step': 5, 'loss': 0.5}, {'step': 10, 'loss': 0.25}]


@pytest.mark.parametrize(
    'line',
    [b'\xff\xfe', b'{"step": "5", "loss": 1}', b'{"step": 5, "loss": "abc"}', b'{"step": 5, "loss": [1]}']
    + [b'{"step": 5, "loss": NaN}', b'{"step": 5, "loss": 1e999}', b'{"step": 5, "loss": %s}' % (b'9' * 400)]
    + [b'{"step": 5, "loss": %s}' % (b'9' * 5000), b'{"step": true}', b'{"step": -5}', b'{"step": 5.0}', b'[' * 99999]
    + [b'{"step": %s}' % (b'9' * 30), b'{"step": 5, "loss": {"a": 1}}', b'{"step": 5, "ok": true}', b'\x00', b'"'],
)
def test_a_line_of_the_training_log_that_cannot_be_understood_is_left_out(tmp_path, line):
    good = [b'{"step": 1, "loss": 0.5}', b'{"step": 2, "loss": null}']
    (tmp_path / 'metrics.jsonl').write_bytes(b'\n'.join([good[0], line, good[1]]))
    assert run_directory.read_training_log(tmp_path) == [{'step': 1, 'loss': 0.5}, {'step': 2, 'loss': None}]
    assert run_directory.training_speed(tmp_path) == {}


def test_the_speed_of_a_training_is_the_median_of_its_log_lines(tmp_path):
    assert run_directory.training_speed(tmp_path) == {}
    speeds = [{'loss': 1.0}, *({'images_per_second': value, 'loss': 1.0} for value in (1, 300, 310))]
    (tmp_path / 'metrics.jsonl').write_text(
        ''.join(json.dumps({'step': k, **values}) + '\n' for k, values in enumerate(speeds))
    )
    assert run_directory.training_speed(tmp_path) == {'images_per_second': 300}


def test_the_held_out_images_are_those_of_the_first_start(tmp_path):
    assert run_directory.held_out(tmp_path) is None
    names = {'parts': {'validation': ['train/good/\udcff.png'], 'test': []}}
    run_directory.write_held_out(tmp_path, names)
    run_directory.write_held_out(tmp_path, {'parts': {'validation': [], 'test': ['other.png']}})
    assert run_directory.held_out(tmp_path) == names


@pytest.mark.parametrize(
    'text',
    ['{', '[]', '5', 'null', '{"": []}', '{"": {"validation": []}}', '{"": {"test": []}}', '\udcff']
    + ['{"": {"validation": "a.png", "test": []}}', '{"": {"validation": [5], "test": []}}'],
)
def test_a_held_out_file_that_cannot_be_understood_is_named(tmp_path, text):
    (tmp_path / 'held_out.json').write_text(text, errors='surrogateescape')
    for function in (run_directory.held_out, lambda workdir: run_directory.write_held_out(workdir, {})):
        with pytest.raises(UserError, match=r"held_out\.json' .*Put back the file") as caught:
            function(tmp_path)
        assert '\n' not in str(caught.value)
    assert (tmp_path / 'held_out.json').read_text(errors='surrogateescape') == text


def test_held_out_images_of_another_data_set_are_refused(tmp_path):
    run_directory.check_held_out(tmp_path, ['bottle'])
    run_directory.write_held_out(tmp_path, {'bottle': {'validation': ['a.png'], 'test': []}})
    run_directory.check_held_out(tmp_path, ['bottle'])
    with pytest.raises(UserError, match=r"held_out\.json' .*lacks 'screw', found 'bottle'"):
        run_directory.check_held_out(tmp_path, ['bottle', 'screw'])


@pytest.mark.parametrize('name', ['config.json', 'held_out.json', 'finished.json', 'metrics.jsonl'])
def test_a_file_that_is_a_folder_or_may_not_be_read_is_named_and_stays(tmp_path, name, monkeypatch):
    readers = {
        'config.json': run_directory.read_config,
        'held_out.json': run_directory.held_out,
        'finished.json': run_directory.finished_step,
        'metrics.jsonl': run_directory.read_training_log,
    }
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"Cannot read '{tmp_path / name}': Is a directory"):
        readers[name](tmp_path)

    def refuse(path, **options):  # Root may read everything.
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(run_directory.pathlib.Path, 'read_text', refuse)
    with pytest.raises(UserError, match=f"Cannot read '{tmp_path / name}': Permission denied"):
        readers[name](tmp_path)


def test_a_folder_that_cannot_be_written_to_is_named_before_anything_is_done(tmp_path):
    run_directory.check_writable(tmp_path / 'new' / 'folder', 'Take another.')
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'file').write_text('')
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(UserError, match=f"Cannot write to '{folder}': Not a directory.* Take another"):
            run_directory.check_writable(folder, 'Take another.')


def test_a_file_that_could_not_be_replaced_leaves_nothing_beside_it(tmp_path):
    (tmp_path / 'file.json').mkdir()
    with pytest.raises(IsADirectoryError):
        run_directory.write_json(tmp_path / 'file.json', {})
    assert [path.name for path in tmp_path.iterdir()] == ['file.json']


def test_another_failure_keeps_its_type(tmp_path):
    with pytest.raises(ValueError, match='a bug'), run_directory.explaining_a_full_disk(tmp_path, 'Make room there.'):
        raise ValueError('a bug')
