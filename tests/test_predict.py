"""predict.py and tools/calibrate.py: what they read, what they write, and what they say."""

import collections
import csv
import io
import itertools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys

import cv2
import numpy as np
import PIL.Image
import pytest
from tiny_run import STEP, photo, write_run
from trees import fill_disk

import draem_jax
import predict
from draem_jax.detection import calibration, detector, predictions
from draem_jax.errors import Preempted, UserError
from draem_jax.terminal import make_forgiving
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
    settings = {'step': STEP, 'score_window': 3, 'tile': 0, 'image_size': (32, 32), 'antialias': False}
    calibration.write(run, thresholds, **settings, dtype='float32', bit_depth=0, source='by hand')
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
    for name, options in (('with', {'pixel_threshold': middle}), ('above', {'pixel_threshold': 1.0}), ('none', {})):
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
    for options in ({'threshold': 0.0}, {'threshold': 1.0}):
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


@pytest.fixture
def spied(monkeypatch):
    """Lets a test look on whenever the networks have seen a chunk: a list of functions, called one after the other."""
    real, functions = detector.Detector.__call__, []

    def call(self, pictures):
        detections = real(self, pictures)
        functions.pop(0)()
        return detections

    monkeypatch.setattr(detector.Detector, '__call__', call)
    return functions


def draw(folder, count=8):
    return [str(write(folder / f'{k}.png', photo(32, 32, k))) for k in range(count)]  # Two chunks of four.


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_finishes_the_image_at_hand_and_says_how_far_it_came(run, tmp_path, spied, number):
    paths, out = draw(tmp_path), tmp_path / 'out'
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    spied += [lambda: None, lambda: os.kill(os.getpid(), number)]
    with pytest.raises(Preempted) as caught:
        predict.predict(str(run), paths, out=str(out))
    assert caught.value.exit_code == 42
    assert f'Stopped by {signal.Signals(number).name} after 5 of 8 images, whose rows are in {out}.' in str(
        caught.value
    )
    assert [row['file'] for row in rows_of(out)] == paths[:5]
    assert len(list((out / 'overlays').iterdir())) == len(list((out / 'maps').iterdir())) == 5
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_asked_to_stop_at_the_last_image_it_is_done(run, tmp_path, spied):
    spied.append(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert predict.predict(str(run), draw(tmp_path, 1), out=str(tmp_path / 'out')) == 0
    assert len(rows_of(tmp_path / 'out')) == 1


def test_rows_are_on_disk_as_soon_as_they_are_known_and_those_of_an_earlier_call_are_gone(run, tmp_path, spied):
    paths, out, seen = draw(tmp_path), tmp_path / 'out', []
    spied += [lambda: None, lambda: None]
    predict.predict(str(run), paths[::-1], out=str(out))
    spied += [lambda: seen.append(rows_of(out))] * 2
    predict.predict(str(run), paths, out=str(out))
    # Whatever ends the process, the folder is known for one of results, and no row speaks of a picture now replaced.
    assert [[row['file'] for row in rows] for rows in seen] == [[], paths[:4]]
    assert [row['file'] for row in rows_of(out)] == paths


def test_what_was_done_before_an_error_is_on_disk(run, tmp_path, spied):
    def fail():
        raise KeyboardInterrupt

    paths = draw(tmp_path)
    spied += [lambda: None, fail]
    with pytest.raises(KeyboardInterrupt):
        predict.predict(str(run), paths, out=str(tmp_path / 'out'))
    assert [row['file'] for row in rows_of(tmp_path / 'out')] == paths[:4]


def test_rows_are_whole_and_the_same_in_both_tables_when_the_disk_is_full(small_disk):
    row = {'file': 'a' * 1500 + 'ü', 'score': 0.5, 'boxes': [[1, 2, 3, 4]]}
    with predictions.Tables(small_disk / 'out') as tables:
        fill_disk(small_disk, leave=20_000)
        with pytest.raises(UserError, match='No space left on device'):
            collections.deque(map(tables.add, itertools.repeat(row, 100)))
    rows = rows_of(small_disk / 'out')
    assert len(rows) > 3
    assert all((one['file'], one['boxes']) == (row['file'], row['boxes']) for one in rows)


def test_names_in_other_encodings_come_out_byte_for_byte(tmp_path):
    name = os.fsdecode(b'r\xe9sultat.png')  # Latin-1
    with predictions.Tables(tmp_path) as tables:
        tables.add({'file': name, 'error': f'{name} is damaged.'})
    assert b'r\xe9sultat.png,' in (tmp_path / 'predictions.csv').read_bytes()
    assert json.loads((tmp_path / 'predictions.jsonl').read_text('ascii'))['file'] == name


@pytest.mark.parametrize('maps', ['png16', 'npy'])
def test_a_full_disk_is_one_line_and_leaves_no_half_of_a_picture(run, tmp_path, small_disk, maps):
    path = write(tmp_path / 'a.png', photo(300, 300))
    options = {'out': str(small_disk / 'out'), 'maps': maps, 'overlays': False}
    fill_disk(small_disk, leave=40_000)
    message = message_of(str(run), [str(path)], **options)
    assert message.startswith(f"Cannot write to '{small_disk / 'out'}': No space left on device")
    assert not list((small_disk / 'out' / 'maps').iterdir())
    assert rows_of(small_disk / 'out') == []
    (small_disk / 'filler').unlink()
    fill_disk(small_disk)
    assert 'No space left on device' in message_of(str(run), [str(path)], **options)


def test_a_console_that_cannot_print_a_name_stops_nothing(run, tmp_path, monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(printed, encoding='cp1252'))
    monkeypatch.setattr(sys, 'stderr', io.TextIOWrapper(io.BytesIO(), encoding='cp1252'))
    names = ['a.png', 'zz.png', '测试.png']
    for name in names:
        write(tmp_path / 'in' / name, photo(32, 32))
    make_forgiving()
    assert predict.predict(str(run), [str(tmp_path / 'in')], out=str(tmp_path / 'out')) == 0
    sys.stdout.flush()
    assert [os.path.basename(row['file']) for row in rows_of(tmp_path / 'out')] == names
    assert 'in/??.png' in printed.getvalue().decode('cp1252')


@pytest.mark.parametrize('option', ['threshold', 'pixel_threshold'])
@pytest.mark.parametrize('value', [50.0, math.inf, math.nan, -0.5])
def test_a_threshold_that_no_score_can_reach_is_refused_before_anything_is_looked_for(tmp_path, option, value):
    message = message_of(str(tmp_path / 'no run'), [str(tmp_path / 'no images')], **{option: value})
    assert message == f'{option}={value}: expected a number in [0, 1], as scores and maps are.'


def test_home_and_addresses(run, tmp_path, monkeypatch):
    write(tmp_path / 'a.png', photo(32, 32))
    (tmp_path / 'runs').symlink_to(run.parent)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert predict.predict(f'~/runs/{run.name}', ['~/a.png'], out='~/out') == 0
    assert rows_of(tmp_path / 'out')[0]['file'] == str(tmp_path / 'a.png')
    assert "--workdir='gs://bucket/run'" in message_of('gs://bucket/run', ['a.png'])
    assert "--out='s3://bucket/out'" in message_of(str(run), ['a.png'], out='s3://bucket/out')
    assert "input='http://host/x.png'" in message_of(str(run), ['http://host/x.png'])


def test_values_of_16_bits_are_read_as_the_run_says(tmp_path):
    workdir = write_run(tmp_path / 'run')
    config = json.loads((workdir / 'config.json').read_text())
    config['dataset']['bit_depth'] = 12
    (workdir / 'config.json').write_text(json.dumps(config))
    picture = photo(32, 32)[..., 0]
    write(tmp_path / '8.png', picture)
    write(tmp_path / '12.png', np.rint(picture * (4095 / 255)).astype(np.uint16))
    write(tmp_path / '16.png', np.full((32, 32), 5000, np.uint16))
    paths = [str(tmp_path / f'{bits}.png') for bits in (8, 12, 16)]
    assert predict.predict(str(workdir), paths, out=str(tmp_path / 'out')) == 1
    eight, twelve, sixteen = rows_of(tmp_path / 'out')
    assert eight['score'] == pytest.approx(twelve['score'], rel=1e-6)
    assert '5000' in sixteen['error']
    (tmp_path / 'good').mkdir()
    (tmp_path / '12.png').rename(tmp_path / 'good' / '12.png')
    calibrated = calibrate.calibrate(str(workdir), str(tmp_path / 'good'))
    assert calibrated['image']['threshold'] == pytest.approx(eight['score'], rel=1e-5)
    assert json.loads((workdir / 'calibration.json').read_text())['bit_depth'] == 12


@pytest.mark.parametrize(
    ('section', 'field', 'value'),
    [('dataset', None, 5), ('evaluation', 'score_window', '5'), ('model', 'dtype', 'half')],
)
def test_a_damaged_config_is_one_line_that_names_the_file(run, tmp_path, nothing_computed, section, field, value):
    config = json.loads((run / 'config.json').read_text())
    config[section] = {**config[section], field: value} if field else value
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(config))
    write(tmp_path / 'a.png', photo(8, 8))
    message = message_of(str(tmp_path / 'run'), [str(tmp_path / 'a.png')])
    assert f"'{tmp_path / 'run' / 'config.json'}'" in message
    assert repr(value) in message


def test_a_calibration_that_is_none_is_noticed_before_the_networks_are_read(calibrated, tmp_path, monkeypatch):
    good = json.loads((calibrated / 'calibration.json').read_text())
    monkeypatch.setattr(detector, '_predictor', lambda *arguments: pytest.fail('The mistake was not noticed.'))
    path = str(write(tmp_path / 'a.png', photo(32, 32)))
    for value in (math.nan, '0.5'):
        changed = {**good, 'image': {**good['image'], 'threshold': value}}
        (calibrated / 'calibration.json').write_text(json.dumps(changed))
        assert 'is not a calibration: image.threshold is' in message_of(str(calibrated), [path])


def call(*arguments, stdout=subprocess.PIPE):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


def test_the_command_lines(tmp_path):
    """Good images -> tools/calibrate.py -> predict.py, as a user would type them."""
    workdir = write_run(tmp_path / 'run')
    for k in range(10):
        write(tmp_path / 'good' / f'{k}.png', photo(40, 36, k))
    result = call('tools/calibrate.py', f'--workdir={workdir}', f'--normals={tmp_path / "good"}', '--target_fpr=0.2')
    assert (result.returncode, result.stderr) == (0, '')
    written = json.loads((workdir / 'calibration.json').read_text())
    assert (written['step'], written['normals'], written['image']['target_fpr']) == (STEP, 10, 0.2)
    reading, writing = os.pipe()
    os.close(reading)  # As after `| head`, which has seen enough: all is done nevertheless.
    with open(writing, 'wb') as pipe:
        result = call(
            'predict.py',
            tmp_path / 'good',
            f'--workdir={workdir}',
            '--maps=none',
            '--nooverlays',
            workdir / 'x',
            stdout=pipe,
        )
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    (line,) = result.stderr.splitlines()
    assert f"'{workdir / 'x'}'" in line
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
        ('predict.py', ['--workdir=runs/none', 'a.png', '--threshold=nan'], 'threshold=nan'),
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


@pytest.mark.parametrize(
    ('normals', 'part'),
    [('empty', 'No images'), ('nowhere', 'No folder'), ('gs://bucket/good', "--normals='gs://bucket/good'")],
)
def test_calibrating_on_nothing_is_refused(run, tmp_path, nothing_computed, monkeypatch, normals, part):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match=part):
        calibrate.calibrate(str(run), normals)


def test_calibrating_a_run_that_may_not_be_written_to_is_refused_at_once(run, tmp_path, nothing_computed, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    write(tmp_path / '0.png', photo(32, 32))
    with pytest.raises(UserError, match=r"Cannot write '.*calibration\.json': '.*' is read-only"):
        calibrate.calibrate(str(run), str(tmp_path))


def test_calibrating_finds_home_and_replaces_a_damaged_file(tmp_path, monkeypatch):
    workdir = write_run(tmp_path / 'run')
    (workdir / 'calibration.json').write_text('{')
    write(tmp_path / 'good' / '0.png', photo(32, 32))
    monkeypatch.setenv('HOME', str(tmp_path))
    calibrate.calibrate('~/run', '~/good')
    assert json.loads((workdir / 'calibration.json').read_text())['image_size'] == [32, 32]


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
