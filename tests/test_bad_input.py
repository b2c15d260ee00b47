"""Every mistake in the input is one clear line, and is noticed before anything is compiled."""

import json
import os
import shutil
import socket

import pytest
from trees import draw_textures, draw_tree, write_image, write_mask

import evaluate
import train
from configs import folder
from draem_jax import checkpoints, devices, run_directory, run_lock
from draem_jax.errors import UserError
from draem_jax.model import networks
from draem_jax.training.optimizer import make_optimizer, make_schedule
from draem_jax.training.state import init_state, save_state


@pytest.fixture(autouse=True)
def nothing_computed(monkeypatch):
    """Fails a test that comes as far as the first computation on the devices."""

    def compute(*arguments):
        raise AssertionError('The mistake was not noticed.')

    monkeypatch.setattr(devices.Program, 'compile', compute)
    monkeypatch.setattr(devices.Program, '__call__', compute)


def make_config(folder_of_files):
    """A config that would train, on files of its own."""
    config = folder.get_config()
    config.dataset.root = str(folder_of_files / 'images')
    config.dataset.image_size = (32, 32)
    config.dataset.validation_fraction = 0.0
    config.dataset.texture_source = 'folder'
    config.dataset.texture_root = str(folder_of_files / 'textures')
    config.model.reconstructive_width = 1
    config.model.discriminative_width = 1
    config.training.batch_size = 4
    config.training.steps = 1
    config.evaluation.batch_size = 4
    return config


@pytest.fixture
def config(tmp_path):
    draw_tree(tmp_path / 'images')
    draw_textures(tmp_path / 'textures')
    return make_config(tmp_path)


@pytest.fixture(scope='module')
def untrained(tmp_path_factory):
    """A folder that holds a checkpoint of networks that were never trained."""
    folder_of_run = tmp_path_factory.mktemp('untrained')
    config = make_config(folder_of_run)
    variables = networks.init_variables(networks.make_model(**config.model), config.dataset.image_size, seed=0)
    with checkpoints.open_checkpoints(folder_of_run) as manager:
        optimizer = make_optimizer(make_schedule(1, **config.optimizer))
        save_state(manager, init_state(variables, optimizer))
    return folder_of_run


@pytest.fixture
def workdir(config, untrained, tmp_path):
    """The directory of a run of `config`."""
    workdir = tmp_path / 'run'
    shutil.copytree(untrained, workdir)
    run_directory.start(workdir, config.to_dict())
    return workdir


def message_of(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert '\n' not in message
    return message


def message_of_training(config, tmp_path):
    """The line that train.py prints; nothing may have been written."""
    message = message_of(train.train, config, str(tmp_path / 'new_run'))
    assert not (tmp_path / 'new_run').exists()
    return message


def damage(path):
    """Cuts an image file short."""
    path.write_bytes(path.read_bytes()[:-30])


def test_the_data_of_these_tests_are_good_without_the_mistakes(config, workdir, tmp_path):
    with pytest.raises(AssertionError, match='not noticed'):
        train.train(config, str(tmp_path / 'new_run'))
    with pytest.raises(AssertionError, match='not noticed'):
        evaluate.evaluate_checkpoint(str(workdir))


def test_no_root(config, tmp_path):
    config.dataset.root = ''
    assert '--config.dataset.root' in message_of_training(config, tmp_path)


def test_root_does_not_exist(config, tmp_path):
    config.dataset.root = str(tmp_path / 'imagse')
    message = message_of_training(config, tmp_path)
    assert f"'{config.dataset.root}'" in message
    assert '--config.dataset.root' in message
    assert "'images'" in message  # What is there instead.


def test_category_does_not_exist(config, tmp_path):
    config.dataset.category = 'screw'
    assert 'screw' in message_of_training(config, tmp_path)


@pytest.mark.parametrize('name', ['mvtecad', ''])
def test_unknown_data_set(config, tmp_path, name):
    config.dataset.name = name
    message = message_of_training(config, tmp_path)
    assert 'mvtec_ad' in message
    assert '--config.dataset.name' in message


@pytest.mark.parametrize('emptied', ['.', 'train/good'])
def test_no_images(config, tmp_path, emptied):
    shutil.rmtree(tmp_path / 'images' / emptied)
    (tmp_path / 'images' / emptied).mkdir()
    (tmp_path / 'images' / emptied / 'notes.txt').touch()
    message = message_of_training(config, tmp_path)
    assert 'No images' in message
    assert str(tmp_path / 'images') in message


@pytest.mark.parametrize('size', [(100, 64), (64, 100), (16, 16), (0, 0)])
def test_image_size_is_not_a_multiple_of_32(config, tmp_path, size):
    config.dataset.image_size = size
    message = message_of_training(config, tmp_path)
    assert str(size) in message
    assert '32' in message


def test_a_defect_without_its_mask(config, workdir, tmp_path):
    (tmp_path / 'images' / 'ground_truth' / 'scratch' / '002_mask.png').unlink()
    for message in (message_of_training(config, tmp_path), message_of(evaluate.evaluate_checkpoint, str(workdir))):
        assert 'test/scratch/002.png' in message
        assert 'ground_truth/scratch/002_mask' in message


def test_a_mask_of_another_size(workdir, tmp_path):
    # The last of all, in the second batch: nothing may be computed on the first one before.
    write_mask(tmp_path / 'images' / 'ground_truth' / 'scratch' / '003_mask.png', size=(40, 37))
    message = message_of(evaluate.evaluate_checkpoint, str(workdir))
    assert 'ground_truth/scratch/003_mask.png' in message
    assert '37 x 40' in message
    assert '36 x 40' in message


def test_an_unreadable_training_image(config, tmp_path):
    damage(tmp_path / 'images' / 'train' / 'good' / '005.png')
    assert 'train/good/005.png' in message_of_training(config, tmp_path)


def test_an_unreadable_test_image(workdir, tmp_path):
    damage(tmp_path / 'images' / 'test' / 'scratch' / '003.png')
    assert 'test/scratch/003.png' in message_of(evaluate.evaluate_checkpoint, str(workdir))


def test_an_unreadable_mask(workdir, tmp_path):
    damage(tmp_path / 'images' / 'ground_truth' / 'scratch' / '003_mask.png')
    assert 'ground_truth/scratch/003_mask.png' in message_of(evaluate.evaluate_checkpoint, str(workdir))


def test_an_unreadable_texture(config, tmp_path):
    damage(tmp_path / 'textures' / 'kind_3' / '003.png')
    assert 'kind_3/003.png' in message_of_training(config, tmp_path)


def test_no_texture_folder_given(config, tmp_path):
    config.dataset.texture_root = ''
    assert '--config.dataset.texture_root' in message_of_training(config, tmp_path)


@pytest.mark.parametrize('exists', [True, False])
def test_a_texture_folder_with_nothing_in_it(config, tmp_path, exists):
    shutil.rmtree(tmp_path / 'textures')
    if exists:
        (tmp_path / 'textures' / 'kind_0').mkdir(parents=True)
    assert config.dataset.texture_root in message_of_training(config, tmp_path)


@pytest.mark.parametrize('section', ['training', 'evaluation'])
def test_a_batch_that_the_devices_cannot_share(config, tmp_path, section):
    config[section].batch_size = 6
    message = message_of_training(config, tmp_path)
    assert f'--config.{section}.batch_size=6' in message
    assert '4 devices' in message


def test_an_unknown_config_field(config, tmp_path):
    config.training.batchsize = 4
    message = message_of_training(config, tmp_path)
    assert 'config.training.batchsize' in message
    assert 'batch_size' in message


def test_a_value_that_the_synthesis_cannot_work_with(config, tmp_path):
    config.synthesis.opacity = (0.9, 0.1)
    assert 'synthesis.opacity' in message_of_training(config, tmp_path)


def test_more_held_out_than_there_is(config, tmp_path):
    config.dataset.validation_fraction = 0.99
    message = message_of_training(config, tmp_path)
    assert '--config.dataset.validation_fraction=0.99' in message
    assert '8 images' in message


def test_settings_with_which_no_anomaly_can_be_seen(config, tmp_path):
    config.synthesis.foreground_threshold = 200
    assert '--config.synthesis.foreground_threshold=200' in message_of_training(config, tmp_path)


def test_a_training_without_anomalies(config, tmp_path):
    config.synthesis.anomaly_probability = 0.0
    assert '--config.synthesis.anomaly_probability=0.0' in message_of_training(config, tmp_path)


def test_without_a_cache_an_unreadable_image_is_still_named(config, tmp_path):
    config.dataset.cache = 'none'
    for path in (tmp_path / 'images' / 'train' / 'good').iterdir():
        damage(path)
    assert '/train/good/' in message_of_training(config, tmp_path)


def test_training_where_another_training_is_under_way(config, tmp_path):
    with run_lock.hold(tmp_path / 'new_run'):
        message = message_of(train.train, config, str(tmp_path / 'new_run'))
        assert [path.name for path in (tmp_path / 'new_run').iterdir()] == [run_lock.FILE]
    assert f"'{tmp_path / 'new_run'}': process {os.getpid()} on {socket.gethostname()}" in message


def test_training_into_a_file(config, tmp_path):
    (tmp_path / 'photo').write_text('a file')
    for workdir in (tmp_path / 'photo', tmp_path / 'photo' / 'run'):
        assert f"'{tmp_path / 'photo'}' is a file" in message_of(train.train, config, str(workdir))
        message = message_of(evaluate.evaluate_checkpoint, str(workdir))
        assert 'not the directory of a run' in message
    assert (tmp_path / 'photo').read_text() == 'a file'


@pytest.mark.parametrize('text', ['[]', '{"": {"validation": []}}', '{"screw": {"validation": [], "test": []}}'])
def test_going_on_with_a_damaged_held_out_file(config, workdir, text):
    (workdir / 'held_out.json').write_text(text)
    assert 'held_out.json' in message_of(train.train, config, str(workdir))
    assert (workdir / 'held_out.json').read_text() == text


@pytest.mark.parametrize(
    ('section', 'field', 'value'), [('evaluation', 'score_window', '5'), ('dataset', 'image_size', 5)]
)
def test_evaluating_with_a_damaged_config_file(workdir, section, field, value):
    values = json.loads((workdir / 'config.json').read_text())
    values[section][field] = value
    (workdir / 'config.json').write_text(json.dumps(values))
    message = message_of(evaluate.evaluate_checkpoint, str(workdir))
    assert f"'{workdir / 'config.json'}' has {section}.{field}={value!r}" in message


def test_checkpoints_that_are_a_file_or_may_not_be_read(config, workdir, monkeypatch):
    def refuse(folder):  # Root may read everything.
        raise PermissionError(13, 'Permission denied', str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.ocp.utils, 'checkpoint_steps', refuse)
        message = message_of(evaluate.evaluate_checkpoint, str(workdir))
    assert f"Cannot read '{workdir / 'checkpoints'}': Permission denied" in message
    shutil.rmtree(workdir / 'checkpoints')
    (workdir / 'checkpoints').write_text('a file')
    assert f"'{workdir / 'checkpoints'}' is a file" in message_of(train.train, config, str(workdir))
    assert 'No checkpoint' in message_of(evaluate.evaluate_checkpoint, str(workdir))


@pytest.mark.parametrize('exists', [True, False])
def test_evaluating_a_directory_that_holds_no_run(tmp_path, exists):
    if exists:
        (tmp_path / 'photos').mkdir()
    assert str(tmp_path / 'photos') in message_of(evaluate.evaluate_checkpoint, str(tmp_path / 'photos'))


def test_evaluating_a_run_before_its_first_checkpoint(config, tmp_path):
    run_directory.start(tmp_path / 'new_run', config.to_dict())
    assert str(tmp_path / 'new_run') in message_of(evaluate.evaluate_checkpoint, str(tmp_path / 'new_run'))


def test_evaluating_a_step_without_a_checkpoint(workdir):
    message = message_of(evaluate.evaluate_checkpoint, str(workdir), 500)
    assert '500' in message
    assert 'Found: 0' in message


def test_evaluating_without_test_images(workdir, tmp_path):
    write_image(tmp_path / 'good_ones' / '0.png', 0)
    changes = {'dataset.root': str(tmp_path / 'good_ones'), 'dataset.test_fraction': 0.0}
    assert str(tmp_path / 'good_ones') in message_of(evaluate.evaluate_checkpoint, str(workdir), None, changes)


def test_evaluating_where_the_data_have_moved(workdir, tmp_path):
    (tmp_path / 'images').rename(tmp_path / 'moved')
    assert '--config.dataset.root' in message_of(evaluate.evaluate_checkpoint, str(workdir))
    with pytest.raises(AssertionError, match='not noticed'):
        evaluate.evaluate_checkpoint(str(workdir), changes={'dataset.root': str(tmp_path / 'moved')})


def test_evaluating_networks_of_another_width(workdir):
    message = message_of(evaluate.evaluate_checkpoint, str(workdir), None, {'model.reconstructive_width': 2})
    assert str(workdir) in message
    assert 'does not fit' in message


def test_evaluating_at_a_size_that_is_no_multiple_of_32(workdir):
    message = message_of(evaluate.evaluate_checkpoint, str(workdir), None, {'dataset.image_size': (32, 33)})
    assert '--config.dataset.image_size' in message
    assert '33' in message


def test_a_warm_start_from_no_run(config, tmp_path):
    config.training.warm_start = str(tmp_path / 'textures')
    assert config.training.warm_start in message_of(train.train, config, str(tmp_path / 'new_run'))


def test_going_on_with_a_run_of_another_config(config, workdir):
    config.training.seed = 7
    message = message_of(train.train, config, str(workdir))
    assert 'training.seed=0' in message
    assert '7' in message
