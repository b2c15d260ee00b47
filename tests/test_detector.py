"""A run as a function of images, against the evaluation and against the networks themselves."""

import csv
import dataclasses
import doctest
import functools
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest
from tiny_run import STEP, photo, write_run
from trees import draw_tree

import draem_jax
import evaluate
from draem_jax import images
from draem_jax.detection import calibration, detector, tiling
from draem_jax.errors import UserError
from draem_jax.model import networks, scoring

ROOT = pathlib.Path(__file__).resolve().parent.parent
SETTINGS = {
    'step': STEP,
    'score_window': 3,
    'score_top': 0.0,
    'anomaly_map': 'segmentation',
    'tile': 0,
    'image_size': (32, 32),
    'antialias': False,
    'dtype': 'float32',
    'bit_depth': 0,
}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('run'))


@pytest.fixture
def calibrated(tmp_path):
    """A run with thresholds of its own: 0.5 of images and 0.6 of pixels, for whole images."""
    workdir = write_run(tmp_path / 'calibrated')
    thresholds = calibration.calibrate([(0.4, np.zeros((4, 4), np.float32))], target_fpr=0.5, pixel_target_fpr=0.5)
    thresholds['image']['threshold'], thresholds['pixel']['threshold'] = 0.5, 0.6
    calibration.write(workdir, thresholds, **SETTINGS, source='by hand')
    return workdir


def change_config(workdir, section, field, value):
    """Changes a value in the config.json of a run, or a whole section where `field` is None."""
    path = workdir / 'config.json'
    config = json.loads(path.read_text())
    if field is None:
        config[section] = value
    else:
        config[section][field] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize('antialias', [False, True])
def test_scores_are_those_of_the_evaluation(tmp_path, antialias):
    draw_tree(tmp_path / 'data', train=1, good=2, scratched=3)
    for k, path in enumerate(sorted((tmp_path / 'data' / 'test').rglob('*.png'))):
        # All of another size than the network's, and one of the size that its mask has.
        PIL.Image.fromarray(photo(40, 36, seed=k)).save(path)
    workdir = write_run(tmp_path / 'run', root=tmp_path / 'data', antialias=antialias)
    evaluate.evaluate_checkpoint(str(workdir))
    with (workdir / 'evaluation' / str(STEP) / 'scores.csv').open() as file:
        expected = {row['filename']: float(row['score']) for row in csv.DictReader(file)}
    assert len(expected) == 5
    assert len(set(expected.values())) == 5
    detections = draem_jax.load(workdir)([tmp_path / 'data' / filename for filename in expected])
    np.testing.assert_allclose([one.score for one in detections], list(expected.values()), rtol=1e-6)


def test_map_is_that_of_the_networks_at_the_resolution_of_the_image(run):
    image = photo(50, 70)
    detection = draem_jax.load(run)(image)
    model = networks.Draem(2, 2)
    variables = draem_jax.load(run).variables
    small = images.resize(image, (32, 32))
    _, logits = jax.jit(functools.partial(model.apply, train=False))(variables, small[None].astype(np.float32) / 255)
    expected = np.asarray(scoring.segmentation_map(logits))[0]
    assert expected.std() > 0.005
    assert (detection.map.shape, detection.map.dtype) == ((50, 70), np.float32)
    np.testing.assert_allclose(detection.map, images.resize(expected, (50, 70)), atol=1e-5)
    np.testing.assert_allclose(draem_jax.load(run)(small).map, expected, atol=1e-5)


def test_a_path_an_array_and_a_list_say_the_same(run, tmp_path):
    PIL.Image.fromarray(photo(40, 36)).save(tmp_path / 'a.png')
    detect = draem_jax.load(run)
    score = detect(photo(40, 36)).score
    assert [detect(path).score for path in (tmp_path / 'a.png', str(tmp_path / 'a.png'))] == [score, score]
    # Five in batches of four: filler never shows, and sizes may differ.
    several = detect([tmp_path / 'a.png', photo(64, 32, 1), photo(32, 32, 2), photo(33, 90, 3), photo(40, 36)])
    assert [one.map.shape for one in several] == [(40, 36), (64, 32), (32, 32), (33, 90), (40, 36)]
    assert several[0].score == pytest.approx(score, rel=1e-6)
    assert several[4].score == pytest.approx(score, rel=1e-6)
    assert len({one.score for one in several}) == 4
    assert detect([]) == []


def test_without_a_threshold_there_is_no_decision(run):
    detect = draem_jax.load(run)
    detection = detect(photo(40, 36))
    assert (detection.decision, detection.boxes, detection.area) == (None, None, None)
    assert detect.calibration_note.startswith('Uncalibrated')


def test_calibrated_thresholds_are_used_and_overridden(calibrated):
    detect = draem_jax.load(calibrated)
    assert (detect.threshold, detect.pixel_threshold) == (0.5, 0.6)
    detection = detect(photo(40, 36))
    assert detection.decision == (detection.score >= 0.5)
    assert detection.area == (detection.map >= 0.6).sum()
    at_score = draem_jax.load(calibrated, threshold=detection.score)
    assert at_score.pixel_threshold == 0.6
    assert at_score(photo(40, 36)).decision is True
    above = draem_jax.load(calibrated, threshold=math.nextafter(detection.score, 2), pixel_threshold=1)
    assert above(photo(40, 36)).decision is False
    assert above(photo(40, 36)).boxes == ()


def test_a_calibration_of_whole_images_does_not_hold_for_tiles(calibrated):
    detect = draem_jax.load(calibrated, tile=32)
    assert (detect.threshold, detect.pixel_threshold) == (None, None)
    assert 'for tile 0, not 32' in detect.calibration_note


def test_a_detector_knows_what_its_scores_depend_on(run, tmp_path, monkeypatch):
    assert draem_jax.load(run).settings() == SETTINGS
    other = write_run(tmp_path, image_size=(32, 64), antialias=True)
    change_config(other, 'model', 'dtype', 'bfloat16')
    change_config(other, 'dataset', 'bit_depth', 12)
    monkeypatch.setattr(detector, '_predictor', lambda *arguments: None)  # Compiling takes a while.
    changed = {'image_size': (32, 64), 'antialias': True, 'dtype': 'bfloat16', 'bit_depth': 12, 'tile': 48}
    assert draem_jax.load(other, tile=np.int64(48)).settings() == {**SETTINGS, **changed}
    json.dumps(draem_jax.load(other, tile=np.int64(48)).settings())


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('image_size', [64, 64]),
        ('antialias', True),
        ('dtype', 'bfloat16'),
        ('bit_depth', 12),
        ('score_top', 0.01),
        ('anomaly_map', 'ssim'),
    ],
)
def test_a_calibration_of_other_circumstances_is_not_used(calibrated, name, value):
    path = calibrated / 'calibration.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    detect = draem_jax.load(calibrated)
    assert (detect.threshold, detect.pixel_threshold) == (None, None)
    assert f'calibration.json is for {name} {value}, not ' in detect.calibration_note


def test_a_calibration_that_is_to_be_replaced_is_not_read(calibrated):
    (calibrated / 'calibration.json').write_text('{')
    with pytest.raises(UserError, match='is not a calibration'):
        draem_jax.load(calibrated)
    detect = draem_jax.load(calibrated, calibrated=False)
    assert (detect.threshold, detect.calibration_note) == (None, 'Uncalibrated: calibration.json was not read.')


def test_tiles_are_looked_at_one_by_one_and_blended(run):
    image = photo(50, 70)
    whole = draem_jax.load(run)
    tiles = tiling.cut(image, (32, 32))
    assert len(tiles) == 6
    expected = tiling.blend([one.map for one in whole(tiles)], (50, 70), (32, 32))
    detection = draem_jax.load(run, tile=32)(image)
    np.testing.assert_allclose(detection.map, expected, atol=1e-6)
    assert detection.score == pytest.approx(float(scoring.image_score(detection.map[None], 3)[0]), rel=1e-5)


def test_tiles_of_several_images_are_not_mixed_up(run):
    pictures = [photo(50, 70, 1), photo(10, 20, 2), photo(32, 32, 3), photo(100, 33, 4)]
    detect = draem_jax.load(run, tile=32)
    for picture, detection in zip(pictures, detect(pictures), strict=True):
        alone = detect(picture)
        assert detection.map.shape == picture.shape[:2]
        np.testing.assert_allclose(detection.map, alone.map, atol=1e-6)
        assert detection.score == pytest.approx(alone.score, rel=1e-5)


def test_a_tile_that_holds_the_image_is_the_whole_image(run):
    image = photo(64, 64)
    whole, tiled = draem_jax.load(run)(image), draem_jax.load(run, tile=64)(image)
    np.testing.assert_allclose(tiled.map, whole.map, atol=1e-6)
    assert tiled.score == pytest.approx(whole.score, rel=1e-5)


def test_larger_tiles_are_shrunk_to_the_network(run):
    image = photo(128, 192)
    expected = draem_jax.load(run, tile=32)(images.resize(image, (64, 96)))
    detection = draem_jax.load(run, tile=64)(image)
    assert detection.map.shape == (128, 192)
    assert detection.score == pytest.approx(expected.score, rel=1e-5)


def test_any_device_count_takes_any_batch_size(run):
    assert [draem_jax.load(run, batch_size=size).batch_size for size in (None, 1, 4, 5, 8)] == [4, 4, 4, 8, 8]


def test_a_file_that_is_no_image_is_named(run, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'broken\.png'):
        draem_jax.load(run)([photo(8, 8), tmp_path / 'broken.png'])


def test_networks_that_diverged_make_no_decision(run):
    detect = draem_jax.load(run, threshold=0.5)
    with pytest.raises(UserError, match='diverged'):
        list(
            dataclasses.replace(
                detect, predict=lambda variables, batch: {'score': np.full((4, 1), np.nan), 'map': batch[..., 0]}
            ).measure([photo(32, 32)])
        )


def test_images_that_are_no_files_are_taken_alone_and_in_lists(run, tmp_path):
    picture = photo(40, 36)
    PIL.Image.fromarray(picture).save(tmp_path / 'a.png')
    detect = draem_jax.load(run)
    score = detect(picture).score
    images = [PIL.Image.fromarray(picture), os.fsencode(tmp_path / 'a.png'), jax.numpy.asarray(picture)]
    assert [detect(image).score for image in images] == [score] * 3
    assert [one.score for one in detect(iter(images))] == pytest.approx([score] * 3, rel=1e-6)
    grey = detect(picture[..., 0])
    assert grey.score != score
    assert grey.score == detect(np.repeat(picture[..., :1], 3, axis=2)).score


@pytest.mark.parametrize('value', [None, 5, 0.5, {'a': 1}, {}, [None], [[1, 2], [3, 4]], object], ids=str)
def test_what_is_no_image_is_one_clear_error(run, value):
    with pytest.raises(UserError, match=r'^Expected an image: a path, a Pillow image, or uint8 .*; found \S+ '):
        draem_jax.load(run)(value)


def test_values_of_16_bits_are_read_as_the_run_says(tmp_path):
    workdir = write_run(tmp_path / 'run')
    change_config(workdir, 'dataset', 'bit_depth', 12)
    picture = photo(40, 36)[..., 0]
    deep = np.rint(picture * (4095 / 255)).astype(np.uint16)
    PIL.Image.fromarray(deep).save(tmp_path / 'deep.png')
    detect = draem_jax.load(workdir)
    assert detect.bit_depth == 12
    expected = detect(picture).score
    assert [detect(image).score for image in (deep, tmp_path / 'deep.png', PIL.Image.open(tmp_path / 'deep.png'))] == [
        expected
    ] * 3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'step': 3}, r'step 3 .* Found: 7'),
        ({'step': '7'}, "step='7'"),
        ({'tile': -1}, 'tile=-1'),
        ({'tile': '64'}, "tile='64'"),
        ({'tile': None}, 'tile=None'),
        ({'batch_size': 0}, 'batch_size=0'),
        ({'batch_size': 1.5}, r'batch_size=1\.5'),
    ],
)
def test_what_makes_no_sense_is_refused(run, options, message):
    with pytest.raises(UserError, match=message):
        draem_jax.load(run, **options)


@pytest.mark.parametrize('name', ['threshold', 'pixel_threshold'])
@pytest.mark.parametrize(
    'value', [math.nan, math.inf, -math.inf, 50, -0.1, 1.0001, '0.5', [0.5], np.zeros(1)], ids=repr
)
def test_a_threshold_that_is_none_is_refused_before_anything_is_read(tmp_path, name, value):
    with pytest.raises(UserError, match=rf'^{name}=.*: expected a number in \[0, 1\]'):
        draem_jax.load(tmp_path / 'there is no run', **{name: value})


def test_the_ends_of_the_range_are_thresholds(run):
    for value in (0, 1, np.float32(0.5)):
        assert draem_jax.load(run, threshold=value, pixel_threshold=value).threshold == value


def test_tiles_that_would_blow_an_image_up_beyond_memory_are_refused(run):
    with pytest.raises(UserError, match='Take larger ones'):
        draem_jax.load(run, tile=1)(photo(2000, 1500))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match='not the directory of a run'):
        draem_jax.load(tmp_path)


@pytest.mark.parametrize('value', [None, 5, b'run'])
def test_a_run_that_is_no_path_is_refused(value):
    with pytest.raises(UserError, match='expected the directory of a run'):
        draem_jax.load(value)


def test_a_run_at_an_address_is_refused():
    with pytest.raises(UserError, match="run='gs://bucket/run'"):
        draem_jax.load('gs://bucket/run')


def test_home_is_found(run, tmp_path, monkeypatch):
    (tmp_path / 'runs').symlink_to(run.parent)
    PIL.Image.fromarray(photo(40, 36)).save(tmp_path / 'a.png')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert draem_jax.load(f'~/runs/{run.name}')('~/a.png').score > 0


def test_the_examples_in_the_docstring_run(tmp_path, monkeypatch):
    write_run(tmp_path / 'runs' / 'parts')
    PIL.Image.fromarray(photo(1500, 2000)).save(tmp_path / 'photo.png')
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(detector)
    assert results.attempted >= 6
    assert results.failed == 0


def test_the_package_shows_what_it_offers():
    assert {'Detection', 'Detector', '__version__', 'load'} <= set(dir(draem_jax))
    assert (draem_jax.load, draem_jax.Detector, draem_jax.Detection) == (
        detector.load,
        detector.Detector,
        detector.Detection,
    )
    assert draem_jax.__version__.count('.') == 2


def test_nothing_else_is_an_attribute_of_the_package():
    with pytest.raises(AttributeError, match='no_such_thing'):
        _ = draem_jax.no_such_thing


CODE = """
import sys
import numpy as np
import draem_jax
dir(draem_jax)
assert not {'jax', 'flax'} & set(sys.modules)
draem_jax.load(sys.argv[1])(np.zeros((40, 36, 3), np.uint8))
import predict
sys.path.append('tools')
import calibrate
predict.predict(sys.argv[1], [sys.argv[2]], out=sys.argv[3])
calibrate.calibrate(sys.argv[1], sys.argv[2])
print(*sys.modules)
"""


def test_nothing_here_needs_tensorflow(tmp_path):
    workdir = write_run(tmp_path / 'run')
    draw_tree(tmp_path / 'data', train=2, good=0, scratched=0)
    arguments = [workdir, tmp_path / 'data', tmp_path / 'out']
    result = subprocess.run(
        [sys.executable, '-c', CODE, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.splitlines()[-1].split())
    assert {'jax', 'draem_jax.detection.detector', 'draem_jax.detection.calibration'} <= loaded
    assert loaded & {'tensorflow', 'tensorflow_datasets', 'data'} == set()
