"""calibration.json: what is written, what is read, and when it holds."""

import copy
import json
import math
import os
import pathlib

import numpy as np
import pytest
from scipy import stats

from configs import folder
from draem_jax import run_directory
from draem_jax.detection import calibration, thresholds
from draem_jax.errors import UserError

SETTINGS = {
    'step': 200,
    'score_window': 3,
    'tile': 0,
    'image_size': (64, 64),
    'antialias': False,
    'dtype': 'float32',
    'bit_depth': 0,
}
AS_JSON = {**SETTINGS, 'image_size': [64, 64]}


def calibrate(number=40, **rates):
    rates = {'target_fpr': 0.05, 'pixel_target_fpr': 0.01, **rates}
    maps = np.random.default_rng(1).beta(0.5, 8, (number, 8, 8)).astype(np.float32)
    return calibration.calibrate([(values.max(), values) for values in maps], **rates)


def test_a_calibration_comes_back_as_it_was_written(tmp_path):
    written = calibrate()
    calibration.write(tmp_path, written, source='tests', **SETTINGS)
    assert {**written, **AS_JSON, 'source': 'tests', 'schema': 1} == calibration.read(tmp_path)
    fitting, note = calibration.find(tmp_path, **SETTINGS)
    assert fitting['image']['threshold'] == written['image']['threshold']
    assert '40 normal images' in note
    assert 'ncalibrated' not in note
    json.loads((tmp_path / 'calibration.json').read_text(), parse_constant=pytest.fail)


class Measured:
    """A detector whose score of a picture is its mean, and whose map is its first channel."""

    def measure(self, pictures):
        for picture in pictures:
            yield picture.mean() / 255, picture[..., 0].astype(np.float32) / 255

    def settings(self):
        return SETTINGS


def test_a_run_is_calibrated_on_pictures_for_its_detector(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (25, 6, 6, 3), np.uint8)
    rates = {'target_fpr': 0.1, 'pixel_target_fpr': 0.02}
    calibrated = calibration.calibrate_run(tmp_path, Measured(), iter(pictures), source='tests', **rates)
    assert calibrated['normals'] == 25
    means = np.sort(pictures.mean(axis=(1, 2, 3)) / 255)
    assert calibrated['image']['threshold'] == pytest.approx(means[-2])  # floor(0.1 * 26) = 2
    assert calibration.read(tmp_path) == {**calibrated, **AS_JSON, 'source': 'tests', 'schema': 1}
    sentence = calibration.describe(calibrated)
    assert calibration.find(tmp_path, **SETTINGS) == (calibration.read(tmp_path), sentence)
    low, high = 100 * np.array(stats.beta(2, 24).interval(0.95))
    assert sentence == (
        'Calibrated on 25 normal images: 7.7 % of normal images are expected to reach the threshold '
        f'({low:.2g} to {high:.2g} % with 95 % confidence).'
    )


CHANGES = {
    'step': 400,
    'score_window': 5,
    'tile': 64,
    'image_size': (32, 64),
    'antialias': True,
    'dtype': 'bfloat16',
    'bit_depth': 12,
}


@pytest.mark.parametrize('name', CHANGES)
def test_a_calibration_for_something_else_is_not_used(tmp_path, name):
    calibration.write(tmp_path, calibrate(), source='tests', **SETTINGS)
    fitting, note = calibration.find(tmp_path, **{**SETTINGS, name: CHANGES[name]})
    assert fitting is None
    now = list(CHANGES[name]) if name == 'image_size' else CHANGES[name]
    assert f'is for {name} {AS_JSON[name]}, not {now}' in note
    # calibrate.py follows the config of the run: it helps where that has the value, and not after evaluate.py --config.
    assert ('tools/calibrate.py' in note) == (name in ('step', 'tile', 'dtype'))


def start_run(workdir, **dataset):
    """Writes the config.json of a run at 64 px."""
    config = folder.get_config()
    config.dataset.image_size = (64, 64)
    values = config.to_dict()
    values['dataset'].pop('bit_depth', None)  # As from a version without it.
    run_directory.start(workdir, values)


NEWER = ('image_size', 'antialias', 'dtype', 'bit_depth')


def test_a_calibration_of_an_earlier_version_holds_for_what_the_config_of_the_run_says(tmp_path):
    start_run(tmp_path)
    settings = {name: value for name, value in SETTINGS.items() if name not in NEWER}
    calibration.write(tmp_path, calibrate(), source='tests', **settings)
    assert calibration.find(tmp_path, **SETTINGS)[0] is not None
    assert calibration.find(tmp_path, **settings)[0] is not None
    # Its type is 'auto' in the config, and may have been either.
    assert calibration.find(tmp_path, **{**SETTINGS, 'dtype': 'bfloat16'})[0] is not None
    for name in ('image_size', 'antialias', 'bit_depth'):
        fitting, note = calibration.find(tmp_path, **{**SETTINGS, name: CHANGES[name]})
        assert fitting is None
        assert f'is for {name} {AS_JSON[name]}, not ' in note


def test_a_threshold_that_no_score_can_reach_is_said_to_be_one():
    maps = np.ones((30, 4, 4), np.float32)
    saturated = calibration.calibrate([(1.0, one) for one in maps], target_fpr=0.05, pixel_target_fpr=0.01)
    assert saturated['image']['threshold'] > 1
    assert 'no image can reach it' in calibration.describe(saturated)
    saturated['image']['threshold'] = 0.5
    assert 'no pixel can reach the threshold of pixels' in calibration.describe(saturated)
    assert 'can reach' not in calibration.describe(calibrate())


def test_a_run_without_a_calibration_says_so(tmp_path):
    fitting, note = calibration.find(tmp_path, **SETTINGS)
    assert fitting is None
    assert note.startswith('Uncalibrated')


def test_too_few_normals_are_said_where_the_calibration_is_used(tmp_path):
    calibration.write(tmp_path, calibrate(5), source='tests', **SETTINGS)
    assert 'too few' in calibration.find(tmp_path, **SETTINGS)[1]


def message_of_reading(workdir):
    with pytest.raises(UserError) as caught:
        calibration.read(workdir)
    message = str(caught.value)
    assert '\n' not in message
    assert f"'{workdir / 'calibration.json'}' is not a calibration" in message
    assert 'tools/calibrate.py' in message
    return message


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'{}',
        b'[]',
        b'5',
        b'null',
        b'{"schema": 1}',
        b'{"schema": 2}',
        b'{"schema": 1, "image": 3}',
        b'\xff\xfe{',
        b'[',
    ],
)
def test_a_file_that_is_no_calibration_is_named(tmp_path, content):
    (tmp_path / 'calibration.json').write_bytes(content)
    message_of_reading(tmp_path)


def test_brackets_deeper_than_python_can_follow_are_no_calibration(tmp_path):
    (tmp_path / 'calibration.json').write_text('[' * 200_000)
    message_of_reading(tmp_path)


def test_a_folder_of_that_name_is_no_calibration(tmp_path):
    (tmp_path / 'calibration.json').mkdir()
    assert 'Is a directory' in message_of_reading(tmp_path)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(pathlib.Path, 'read_text', refuse)
    assert 'Permission denied' in message_of_reading(tmp_path)


REMOVED = object()
WRONG = {
    'image.threshold': [math.nan, math.inf, -0.1, 1.1, 50, '0.5', None, True, [0.5], REMOVED, 10**400],
    'pixel.threshold': [math.nan, -math.inf, 7, '0.5', None, REMOVED],
    'image.interval': [None, [], [0.1], [0.1, math.nan], [0.1, '0.2'], [0, 1, 1], 0.5, 'ab', {'a': 1, 'b': 2}, REMOVED],
    'pixel.interval': [[0.1], 'ab', REMOVED],
    'image.expected_fpr': [math.nan, math.inf, '0.1', None, -1, REMOVED],
    'image.confidence': [math.nan, '0.95', None, 95, REMOVED],
    'image.target_fpr': [math.nan, None, REMOVED],
    'image.note': [5, ['few'], REMOVED],
    'normals': [math.nan, 0, -3, 2.5, '40', None, True, [], REMOVED],
    'step': [None, '200', 200.5, -1, REMOVED],
    'score_window': ['3', None, REMOVED],
    'tile': ['0', None, REMOVED],
    'image_size': [64, [64], [64, '64'], [64, 64, 3], None, [math.nan, 64]],
    'antialias': [0, 'false', None],
    'dtype': [32, None],
    'bit_depth': [8, '12', 17, None],
    'image': [None, 3, [], {}, REMOVED],
    'pixel': [None, 0.5, [], {}, REMOVED],
    'schema': [None, '1', 2, [1], REMOVED],
}


@pytest.mark.parametrize('name', WRONG)
def test_an_entry_that_is_missing_or_makes_no_sense_is_named(tmp_path, name):
    calibration.write(tmp_path, calibrate(), source='tests', **SETTINGS)
    path = tmp_path / 'calibration.json'
    good = json.loads(path.read_text())
    for value in WRONG[name]:
        changed = copy.deepcopy(good)
        *sections, entry = name.split('.')
        entries = changed[sections[0]] if sections else changed
        if value is REMOVED:
            del entries[entry]
        else:
            entries[entry] = value
        path.write_text(json.dumps(changed))
        assert name in message_of_reading(tmp_path)
    path.write_text(json.dumps(good))
    assert calibration.read(tmp_path) == good


def test_the_highest_threshold_there_can_be_is_a_threshold(tmp_path):
    highest = calibrate()
    highest['image']['threshold'] = highest['pixel']['threshold'] = thresholds.HIGHEST
    highest['pixel']['interval'] = None
    calibration.write(tmp_path, highest, source='tests', **SETTINGS)
    assert calibration.read(tmp_path)['image']['threshold'] == np.nextafter(np.float32(1), np.float32(2)) > 1


def test_a_run_that_may_not_be_written_to_is_named(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(run_directory, 'write_json', refuse)
    with pytest.raises(UserError, match=r"Cannot write '.*calibration\.json': No space left on device"):
        calibration.write(tmp_path, calibrate(), source='tests', **SETTINGS)


@pytest.mark.parametrize(
    'rates',
    [
        {'target_fpr': 0.0},
        {'target_fpr': 1},
        {'pixel_target_fpr': -0.1},
        {'target_fpr': math.nan},
        {'target_fpr': '0.1'},
    ],
)
def test_a_rate_that_is_no_rate_is_refused(rates):
    with pytest.raises(UserError, match=next(iter(rates))):
        calibrate(**rates)


def test_no_normals_at_all_are_refused():
    with pytest.raises(UserError, match='No normal images'):
        calibrate(0)
