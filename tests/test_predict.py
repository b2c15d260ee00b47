"""predict.py and tools/calibrate.py: what they read, what they write, and what they say."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import PIL.Image
import pytest
from tiny_run import STEP, photo, write_run

import draem_jax
import predict
from draem_jax.detection import calibration, detector
from draem_jax.errors import UserError
from tools import calibrate

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('run'))


@pytest.fixture
def calibrated(run):
    """The run with thresholds (image 0.52, pixel 0.51) that some pictures reach and some do not."""
    thresholds = calibration.calibrate([(0.4, np.zeros((4, 4), np.float32))], target_fpr=0.5, pixel_target_fpr=0.5)
    thresholds['image']['threshold'], thresholds['pixel']['threshold'] = 0.52, 0.51
    calibration.write(run, thresholds, step=STEP, score_window=3, tile=0, source='by hand')
    yield run
    (run / 'calibration.json').unlink()


@pytest.fixture
def nothing_computed(monkeypatch):
    """Fails a test in which a mistake is noticed only after the networks have run."""

    def compute(*arguments):
        raise AssertionError('The mistake was not noticed.')

    monkeypatch.setattr(detector.Detector, '__call__', compute)


def write(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(image).save(path, **options)
    return path


def rows_of(out):
    """The rows of both tables, which have to agree."""
    rows = [json.loads(line) for line in (out / 'predictions.jsonl').read_text().splitlines()]
    with (out / 'predictions.csv').open(newline='') as file:
        table = list(csv.DictReader(file))
    for row, cells in zip(rows, table, strict=True):
        assert list(row) == list(cells)
        for name, value in row.items():
            if value is None:
                assert cells[name] == ''
            else:
                assert (json.loads(cells[name]) if name == 'boxes' else type(value)(cells[name])) == value
    return rows


def message_of(*arguments, **options):
    with pytest.raises(UserError) as caught:
        predict.predict(*arguments, **options)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_a_folder_of_every_kind_of_image_with_a_broken_one_among_them(calibrated, tmp_path, capsys):
    folder, out = tmp_path / 'in', tmp_path / 'out'
    write(folder / 'a_photo.png', photo(1500, 2000))
    cv2.imwrite(str(folder / 'b_deep.tif'), photo(50, 60)[..., 0].astype(np.uint16) * 257)
    write(folder / 'c_grey.jpg', photo(40, 30)[..., 0])
    write(folder / 'd_alpha.png', np.dstack([photo(33, 47), np.full((33, 47), 128, np.uint8)]))
    (folder / 'e_broken.png').write_bytes((folder / 'd_alpha.png').read_bytes()[:-30])
    (folder / 'f_empty.jpg').touch()
    write(folder / 'g_last.bmp', photo(20, 20))
    (folder / 'notes.txt').touch()

    assert predict.predict(str(calibrated), [str(folder)], out=str(out)) == 1
    rows = rows_of(out)
    names = ['a_photo.png', 'b_deep.tif', 'c_grey.jpg', 'd_alpha.png', 'e_broken.png', 'f_empty.jpg', 'g_last.bmp']
    assert [row['file'] for row in rows] == [str(folder / name) for name in names]
    assert [name for name, row in zip(names, rows, strict=True) if row['error']] == ['e_broken.png', 'f_empty.jpg']
    sizes = [(row['width'], row['height']) for row in rows if not row['error']]
    assert sizes == [(2000, 1500), (60, 50), (30, 40), (47, 33), (20, 20)]
    printed = capsys.readouterr()
    assert [name for name in names if name in printed.err] == ['e_broken.png', 'f_empty.jpg']
    assert '2 could not be read' in printed.out

    detect = draem_jax.load(calibrated)
    for row in rows:
        if row['error']:
            continue
        expected = detect(row['file'])
        assert row['score'] == pytest.approx(expected.score, rel=1e-6)
        assert row['decision'] == ('NG' if row['score'] >= 0.52 else 'OK')
        assert row['area'] == (expected.map.astype(np.float64) >= 0.51).sum()
        assert row['regions'] == len(row['boxes'])
        levels = cv2.imread(str(out / row['map']), cv2.IMREAD_UNCHANGED)
        assert levels.dtype == np.uint16
        np.testing.assert_allclose(levels / 65535, expected.map, atol=0.5 / 65535 + 1e-6)
        assert cv2.imread(str(out / row['overlay'])).shape == (row['height'], row['width'], 3)
    assert {row['decision'] for row in rows} == {'NG', 'OK', None}
    for row in rows:
        if not row['error']:
            assert any(
                line.startswith(f'{row["decision"]}  {row["score"]:.4f}') and line.endswith(row['file'])
                for line in printed.out.splitlines()
            )


def test_a_contour_is_drawn_around_each_region_and_not_without_a_threshold(run, tmp_path):
    path = write(tmp_path / 'a.png', photo(64, 64))
    detection = draem_jax.load(run)(path)
    middle = float(np.median(detection.map))
    overlays = []
    for name, options in (('with', {'pixel_threshold': middle}), ('above', {'pixel_threshold': 1.5}), ('none', {})):
        predict.predict(str(run), [str(path)], out=str(tmp_path / name), **options)
        overlays.append(cv2.cvtColor(cv2.imread(str(tmp_path / name / 'overlays' / 'a.png')), cv2.COLOR_BGR2RGB))
        (row,) = rows_of(tmp_path / name)
        if name == 'with':
            left, top, width, height = row['boxes'][0]
            inside = detection.map[top : top + height, left : left + width] >= middle
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()  # A box is tight.
    np.testing.assert_array_equal(overlays[1], overlays[2])
    changed = (overlays[0] != overlays[2]).any(axis=-1)
    assert changed.any()
    assert (overlays[0][changed] == (255, 40, 40)).all()


def test_an_uncalibrated_run_says_so_and_decides_nothing(run, tmp_path, capsys):
    path = write(tmp_path / 'a.png', photo(40, 36))
    assert predict.predict(str(run), [str(path)], out=str(tmp_path)) == 0
    (row,) = rows_of(tmp_path)
    assert [row[name] for name in ('decision', 'regions', 'area', 'boxes')] == [None] * 4
    printed = capsys.readouterr().out
    assert 'Uncalibrated' in printed
    assert f'-   {row["score"]:.4f}  {path}' in printed


def test_a_threshold_on_the_command_line_takes_the_place_of_the_calibrated_one(calibrated, tmp_path):
    path = str(write(tmp_path / 'a.png', photo(40, 36)))
    decisions = []
    for options in ({'threshold': 0.0}, {'threshold': 1.1}):
        predict.predict(str(calibrated), [path], out=str(tmp_path), maps='none', overlays=False, **options)
        decisions.append(rows_of(tmp_path)[0]['decision'])
    assert decisions == ['NG', 'OK']


def test_a_calibration_of_another_step_is_not_used(calibrated, tmp_path, capsys):
    text = (calibrated / 'calibration.json').read_text()
    (calibrated / 'calibration.json').write_text(text.replace(f'"step": {STEP}', '"step": 400'))
    path = str(write(tmp_path / 'a.png', photo(40, 36)))
    predict.predict(str(calibrated), [path], out=str(tmp_path))
    assert rows_of(tmp_path)[0]['decision'] is None
    assert f'for step 400, not {STEP}' in capsys.readouterr().out


def test_equal_names_in_different_folders_do_not_overwrite_each_other(run, tmp_path):
    pictures = {}
    for k, name in enumerate(('one/a.png', 'two/a.png', 'two/a.jpg', 'two/A.png')):
        write(tmp_path / name, photo(40, 36, k) if name.endswith('png') else photo(20, 20, k))
        pictures[str(tmp_path / name)] = k
    inputs = [str(tmp_path / 'one' / 'a.png'), str(tmp_path / 'two'), str(tmp_path / 'one' / '..' / 'one' / 'a.png')]
    assert predict.predict(str(run), inputs, out=str(tmp_path / 'out'), maps='npy') == 0
    rows = rows_of(tmp_path / 'out')
    assert len(rows) == 4
    for kind in ('map', 'overlay'):
        assert len({row[kind].lower() for row in rows}) == 4
    for row in rows:
        values = np.load(tmp_path / 'out' / row['map'])
        expected = draem_jax.load(run)(row['file']).map
        np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize('maps', ['png16', 'npy', 'none'])
def test_only_what_is_asked_for_is_written(run, tmp_path, maps):
    path = write(tmp_path / 'in' / 'a.png', photo(32, 32))
    predict.predict(str(run), [str(path)], out=str(tmp_path / 'out'), maps=maps, overlays=False)
    files = {str(file.relative_to(tmp_path / 'out')) for file in (tmp_path / 'out').rglob('*') if file.is_file()}
    expected = {'png16': {'maps/a.png'}, 'npy': {'maps/a.npy'}, 'none': set()}[maps]
    assert files == {'predictions.csv', 'predictions.jsonl'} | expected


def test_results_lie_in_the_run_where_nothing_else_is_said(run, tmp_path):
    predict.predict(str(run), [str(write(tmp_path / 'a.png', photo(32, 32)))])
    assert rows_of(run / 'predictions')[0]['overlay'] == 'overlays/a.png'


def test_tiles(run, tmp_path):
    path = write(tmp_path / 'a.png', photo(50, 70))
    predict.predict(str(run), [str(path)], out=str(tmp_path), tile=32, maps='npy', batch_size=4)
    (row,) = rows_of(tmp_path)
    expected = draem_jax.load(run, tile=32)(path)
    assert row['score'] == pytest.approx(expected.score, rel=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / row['map']), expected.map, atol=1e-6)


def test_patterns_folders_and_files_come_in_the_order_given_and_each_once(tmp_path):
    for name in ('b/2.png', 'b/1.jpg', 'b/deep/3.png', 'a/4.png', 'b/notes.txt', 'out/maps/5.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def listed(*inputs):
        paths = predict.list_inputs([str(tmp_path / name) for name in inputs], str(tmp_path / 'out'))
        return [os.path.relpath(path, tmp_path) for path in paths]

    assert listed('b/*.png', 'a', 'b') == ['b/2.png', 'a/4.png', 'b/1.jpg', 'b/deep/3.png']
    assert listed('**/*.png') == ['a/4.png', 'b/2.png', 'b/deep/3.png']
    assert listed('*') == ['a/4.png', 'b/1.jpg', 'b/2.png', 'b/deep/3.png']
    assert listed('.') == ['a/4.png', 'b/1.jpg', 'b/2.png', 'b/deep/3.png']  # Without what was written earlier.
    assert listed('b/notes.txt', 'missing.png', 'out/maps/5.png') == ['b/notes.txt', 'missing.png', 'out/maps/5.png']


def test_a_file_whose_name_is_a_pattern_is_that_file(tmp_path):
    path = str(write(tmp_path / 'part[1].png', photo(8, 8)))
    assert predict.list_inputs([path], 'out') == [path]


@pytest.mark.parametrize(
    ('inputs', 'parts'),
    [([], ['Which images']), (['empty'], ['empty']), (['empty/*.png'], ['empty/*.png'])],
)
def test_no_images(run, tmp_path, nothing_computed, monkeypatch, inputs, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    message = message_of(str(run), inputs)
    for part in parts:
        assert part in message


def test_no_run(tmp_path, nothing_computed):
    assert str(tmp_path / 'nowhere') in message_of(str(tmp_path / 'nowhere'), [str(tmp_path)])


def test_a_missing_file_is_reported_and_the_others_are_done(run, tmp_path):
    path = write(tmp_path / 'a.png', photo(32, 32))
    assert predict.predict(str(run), [str(tmp_path / 'missing.png'), str(path)], out=str(tmp_path / 'out')) == 1
    missing, done = rows_of(tmp_path / 'out')
    assert 'No such file' in missing['error']
    assert done['score'] > 0


def test_no_place_for_the_results(run, tmp_path):
    path = write(tmp_path / 'a.png', photo(32, 32))
    assert '--out' in message_of(str(run), [str(path)], out=str(path))


def test_what_was_done_before_an_interruption_is_on_disk(run, tmp_path, monkeypatch):
    paths = [str(write(tmp_path / f'{k}.png', photo(32, 32, k))) for k in range(8)]  # Two chunks of four.
    real, calls = detector.Detector.__call__, []

    def interrupted(self, pictures):
        calls.append(len(pictures))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, pictures)

    monkeypatch.setattr(detector.Detector, '__call__', interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict.predict(str(run), paths, out=str(tmp_path / 'out'))
    assert [row['file'] for row in rows_of(tmp_path / 'out')] == paths[:4]


def call(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_lines(tmp_path):
    """Good images -> tools/calibrate.py -> predict.py, as a user would type them."""
    workdir = write_run(tmp_path / 'run')
    for k in range(10):
        write(tmp_path / 'good' / f'{k}.png', photo(40, 36, k))
    result = call('tools/calibrate.py', f'--workdir={workdir}', f'--normals={tmp_path / "good"}', '--target_fpr=0.2')
    assert (result.returncode, result.stderr) == (0, '')
    written = json.loads((workdir / 'calibration.json').read_text())
    assert (written['step'], written['normals'], written['image']['target_fpr']) == (STEP, 10, 0.2)
    result = call('predict.py', tmp_path / 'good', f'--workdir={workdir}', '--maps=none', '--nooverlays', workdir / 'x')
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    assert f"'{workdir / 'x'}'" in result.stderr
    rows = rows_of(workdir / 'predictions')
    assert len(rows) == 11
    # One in five may reach the threshold, floor(0.2 * 11) = 2 of ten: it lies just above the ninth score.
    assert sum(row['decision'] == 'NG' for row in rows) == 1
    scores = sorted(row['score'] for row in rows if not row['error'])
    assert written['image']['threshold'] == pytest.approx(scores[8], rel=1e-5)


@pytest.mark.parametrize(
    ('script', 'arguments', 'part'),
    [
        ('predict.py', ['a.png'], '--workdir'),
        ('predict.py', ['--workdir=runs/none', 'a.png'], 'runs/none'),
        ('predict.py', ['--workdir=runs/none', 'a.png', '--tile=-3'], 'tile'),
        ('predict.py', ['--workdir=runs/none', 'a.png', '--maps=jpg'], 'png16|npy|none'),
        ('tools/calibrate.py', ['--workdir=runs/none'], '--normals'),
        ('tools/calibrate.py', ['--workdir=runs/none', '--normals=good', 'more'], "'more'"),
        ('tools/calibrate.py', ['--workdir=runs/none', '--normals=good'], 'runs/none'),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(script, arguments, part):
    result = call(script, *arguments)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith('Error: ')
    assert part in line


def test_calibrating_on_what_was_trained_on_is_warned_of(tmp_path, capsys):
    workdir = write_run(tmp_path / 'run', root=tmp_path / 'data')
    for split, warned in (('train', True), ('test', False)):
        write(tmp_path / 'data' / split / 'good' / '0.png', photo(32, 32))
        calibrate.calibrate(str(workdir), str(tmp_path / 'data' / split / 'good'))
        assert ('Warning' in capsys.readouterr().err) == warned


@pytest.mark.parametrize('rate', ['target_fpr', 'pixel_target_fpr'])
def test_calibrating_for_a_rate_that_is_none(run, tmp_path, nothing_computed, rate):
    write(tmp_path / '0.png', photo(32, 32))
    with pytest.raises(UserError, match=f'--{rate}=1.5'):
        calibrate.calibrate(str(run), str(tmp_path), **{rate: 1.5})
    assert not (run / 'calibration.json').exists()


def test_calibrating_on_a_folder_with_a_broken_image_writes_nothing(run, tmp_path):
    write(tmp_path / '0.png', photo(32, 32))
    (tmp_path / '1.png').write_bytes(b'broken')
    with pytest.raises(UserError, match=r'1\.png'):
        calibrate.calibrate(str(run), str(tmp_path))
    assert not (run / 'calibration.json').exists()
