"""An evaluation: every image once, nothing left behind by one that failed, all checkpoints, and a run watched."""

import csv
import json

import numpy as np
import pytest

import evaluate
from draem_jax import checkpoints, images, pictures, run_directory
from draem_jax.errors import UserError
from draem_jax.evaluation import pixel_ranking, strips
from draem_jax.evaluation.evaluate import defective_pixels, predict_split, write_evaluation

SIZE = 32
OPTIONS = {'mask_rule': 'half', 'aupro_max_fpr': 0.3, 'has_report': True, 'sheet_rows': 2}
ABOUT = {
    'step': 5,
    'dataset': {'name': 'folder', 'category': '', 'image_size': [SIZE, SIZE], 'note': None},
    'options': {'mask_rule': 'half', 'aupro_max_fpr': 0.3, 'score_window': 5},
}


def make_batches(count=10, batch_size=4):
    """Images whose grey is their number; every second one is defective, and every fourth one has no mask."""
    for first in range(0, count, batch_size):
        indices = range(first, min(first + batch_size, count))
        image = np.zeros((batch_size, SIZE, SIZE, 3), np.uint8)
        mask = np.zeros((batch_size, SIZE, SIZE, 1), np.uint8)
        for k, index in enumerate(indices):
            image[k] = 20 * index
            mask[k, :5, :5] = 255 * (index % 4 == 1)
        yield {
            'image': image,
            'mask': mask,
            'label': [index % 2 for index in indices],
            'defect_type': ['spot' if index % 2 else 'good' for index in indices],
            'filename': [f'test/{index}.png' for index in indices],
            'has_mask': [index % 4 != 3 for index in indices],
        }


def predict(variables, batch):
    """Stands for a mapped function, [D, B/D, ...]; the score of an image is its grey."""
    score = batch[..., 0, 0, 0].astype(np.float32) / 255
    maps = np.broadcast_to(score[..., None, None], batch.shape[:-1]).copy()
    return {'reconstruction': batch, 'map': maps, 'score': score}


def write(workdir, batches, **changes):
    folder = run_directory.evaluation_folder(workdir, ABOUT['step'])
    return write_evaluation(workdir, folder, ABOUT, predict, None, batches, **(OPTIONS | changes))


def test_every_real_example_is_predicted_once_with_its_picture(tmp_path):
    with pixel_ranking.PixelRanking() as pixels:
        rows = predict_split(predict, None, make_batches(), pixels, picture_folder=tmp_path)
    assert [row['filename'] for row in rows] == [f'test/{index}.png' for index in range(10)]
    np.testing.assert_allclose([row['score'] for row in rows], np.arange(10) * 20 / 255, rtol=1e-6)
    assert pixels.groups == ['normal', 'defective/spot']
    assert len(list(tmp_path.iterdir())) == 10
    for index in range(10):
        panels = pictures.cut_strip(images.read_image(tmp_path / f'{index:05}.jpg'))
        assert abs(panels[0].astype(int) - 20 * index).max() <= 3
        middle = panels[4][2:4, 2:4].mean()
        assert middle == pytest.approx({1: 255, 3: 128}.get(index % 4, 0), abs=3)


def test_an_evaluation_leaves_what_the_contract_says(tmp_path):
    record = write(tmp_path, make_batches())
    folder = run_directory.evaluation_folder(tmp_path, 5)
    assert json.loads((folder / 'results.json').read_text()) == record
    names = {'results.json', 'results.csv', 'scores.csv', 'report', 'best.png', 'worst.png', 'doubtful.png'}
    assert {path.name for path in folder.iterdir()} <= names
    assert (folder / 'report' / 'index.html').is_file()
    assert len(list((folder / 'report' / strips.FOLDER).iterdir())) == 10
    with (folder / 'scores.csv').open() as file:
        assert list(next(csv.DictReader(file))) == ['filename', 'defect_type', 'label', 'score']


def test_without_a_report_an_older_one_goes_too(tmp_path):
    write(tmp_path, make_batches())
    write(tmp_path, make_batches(), has_report=False, sheet_rows=0)
    folder = run_directory.evaluation_folder(tmp_path, 5)
    assert sorted(path.name for path in folder.iterdir()) == ['results.csv', 'results.json', 'scores.csv']


@pytest.mark.parametrize('error', [UserError("Cannot read image 'test/8.png'."), KeyboardInterrupt()])
def test_an_evaluation_that_fails_leaves_nothing_and_the_one_before_whole(tmp_path, error):
    def breaking():
        yield from list(make_batches())[:2]
        raise error

    folder = run_directory.evaluation_folder(tmp_path, 5)
    with pytest.raises(type(error)):
        write(tmp_path, breaking())
    assert list(folder.iterdir()) == []
    write(tmp_path, make_batches())
    before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    with pytest.raises(type(error)):
        write(tmp_path, breaking())
    assert {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()} == before


def test_a_picture_that_cannot_be_written_is_no_silent_gap(tmp_path):
    with pixel_ranking.PixelRanking() as pixels, pytest.raises(OSError, match='nowhere'):
        predict_split(predict, None, make_batches(), pixels, picture_folder=tmp_path / 'nowhere')


def test_half_and_full_mask_rules_differ_on_the_rim_only():
    masks = np.array([0, 1, 127, 128, 254, 255], np.uint8)
    assert defective_pixels(masks, 'half').tolist() == [0, 0, 0, 1, 1, 1]
    assert defective_pixels(masks, 'full').tolist() == [0, 0, 0, 0, 0, 1]


class FakeRun:
    """Stands for a training elsewhere: it says what is on disk at each look, and remembers what was evaluated."""

    def __init__(self, monkeypatch, looks, unreadable=(), damaged=()):
        self.looks, self.unreadable, self.damaged, self.evaluated = list(looks), unreadable, damaged, []
        monkeypatch.setattr(run_directory, 'finished_step', lambda workdir: self.looks[0][0])
        monkeypatch.setattr(checkpoints, 'list_steps', lambda workdir, **options: self.looks[0][1])
        monkeypatch.setattr(evaluate, 'make_evaluate', lambda *arguments: self.evaluate)
        monkeypatch.setattr(evaluate.time, 'sleep', lambda seconds: self.next_look())
        monkeypatch.setattr(evaluate, 'write_curve', lambda folder, record: self.curves.append(record['step']))
        self.curves = []

    def next_look(self):
        self.looks = self.looks[1:]

    def evaluate(self, step):
        if step in self.unreadable:
            self.next_look()
            raise UserError(f'No checkpoint of step {step}.')
        if step in self.damaged:
            raise checkpoints.DamagedCheckpointError(f'The checkpoint of step {step} is damaged.')
        self.evaluated.append(step)
        return {'step': step}


def test_watching_takes_every_checkpoint_once_and_ends_with_the_last(monkeypatch):
    run = FakeRun(monkeypatch, [(None, []), (None, [10]), (None, [10, 20]), (None, [10, 20]), (30, [20, 30])])
    assert evaluate.watch('run', every_seconds=0) == 0
    assert run.evaluated == run.curves == [10, 20, 30]


def test_watching_passes_over_what_the_training_removed_meanwhile(monkeypatch, capsys):
    run = FakeRun(monkeypatch, [(None, [10, 20]), (30, [20, 30])], unreadable=[10])
    evaluate.watch('run')
    assert run.evaluated == [20, 30]
    assert 'step 10 was removed' in capsys.readouterr().out


def test_a_damaged_checkpoint_is_named_and_the_others_are_evaluated(monkeypatch, capsys):
    run = FakeRun(monkeypatch, [(None, [10, 20]), (30, [20, 30])], damaged=[20])
    assert evaluate.watch('run', every_seconds=0) == 1
    assert run.evaluated == run.curves == [10, 30]
    run = FakeRun(monkeypatch, [(30, [10, 20, 30])], damaged=[10, 30])
    assert evaluate.evaluate_all('run') == 1
    assert (run.evaluated, run.curves) == ([20], [20])
    error = 'Error: The checkpoint of step {} is damaged. The others are evaluated.'
    assert capsys.readouterr().err.splitlines() == [error.format(step) for step in (20, 10, 30)]
    run = FakeRun(monkeypatch, [(30, [10])], damaged=[10])
    assert evaluate.evaluate_all('run') == 1
    assert run.curves == []


def test_watching_stops_at_a_mistake(monkeypatch):
    FakeRun(monkeypatch, [(None, [10]), (None, [10, 20])], unreadable=[10])
    with pytest.raises(UserError, match='step 10'):
        evaluate.watch('run')


def test_a_finished_run_without_its_last_checkpoint_is_said_so(monkeypatch):
    FakeRun(monkeypatch, [(30, [10])])
    with pytest.raises(UserError, match='no checkpoint of it'):
        evaluate.watch('run')


@pytest.mark.parametrize('text', ['{"step": "x"}', '{}', '{"step"', '3'])
def test_a_finished_file_that_names_no_step_is_named(tmp_path, text):
    assert run_directory.finished_step(tmp_path) is None
    (tmp_path / 'finished.json').write_text(text)
    with pytest.raises(UserError, match=r'finished\.json'):
        run_directory.finished_step(tmp_path)
