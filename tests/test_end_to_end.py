"""Train, resume, evaluate: the scripts on a tiny folder, through the files they leave."""

import csv
import json
import os
import pathlib
import shutil
import signal

import cv2
import jax
import numpy as np
import pytest
from tiny_run import OneBlock
from tiny_training import STEPS, draw_data_set, tiny_config
from trees import fill_disk

import draem_jax
import evaluate
import train
from data import inputs
from draem_jax import checkpoints, run_directory
from draem_jax.detection import calibration
from draem_jax.errors import Diverged, Preempted, UserError
from draem_jax.model import networks
from draem_jax.training.state import init_state, restore_state


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    draw_data_set(root)
    return tiny_config(root)


@pytest.fixture(scope='module')
def run(config, tmp_path_factory):
    """The directory of a finished and evaluated run."""
    workdir = tmp_path_factory.mktemp('run')
    train.train(config, str(workdir))
    evaluate.evaluate_checkpoint(str(workdir))
    return workdir


def restored(config, workdir, step):
    model, optimizer, _ = train.build(config, STEPS)
    variables = networks.init_variables(model, tuple(config.dataset.image_size), seed=0)
    with checkpoints.open_checkpoints(workdir) as manager:
        state = restore_state(manager, init_state(variables, optimizer), step)
    assert int(state.step) == step
    return jax.device_get(state)


def change_batches(monkeypatch, change):
    """Puts `change(step, batch)` between the pipeline and the training."""
    real = train.pipeline.training_batches

    def changed(*arguments, first_batch, **options):
        for k, batch in enumerate(real(*arguments, first_batch=first_batch, **options), first_batch + 1):
            yield change(k, batch)

    monkeypatch.setattr(train.pipeline, 'training_batches', changed)


def logged_steps(workdir):
    """The steps of the log lines of the training, in their order in the file."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [line['step'] for line in lines if 'loss' in line]


def assert_equal(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_leaves_what_the_contract_says(run):
    config = json.loads((run / 'config.json').read_text())
    assert config['schema'] == 1
    assert config['dataset']['image_size'] == [32, 32]
    assert json.loads((run / 'finished.json').read_text())['step'] == STEPS
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines if 'loss' in line] == [1, 2, 3, 4]
    assert 'validation/pixel_ap' in lines[-1]
    assert (run / 'checkpoints' / str(STEPS)).is_dir()
    assert list(run.glob('events.out.tfevents.*'))


def test_results_cover_every_test_image_once(run):
    folder = run / 'evaluation' / str(STEPS)
    results = json.loads((folder / 'results.json').read_text())
    assert results['counts']['normal'] == 3
    assert results['counts']['defective'] == 4
    assert results['step'] == STEPS
    with (folder / 'scores.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['filename'] for row in rows] == [f'test/block/{k:03}.png' for k in range(4)] + [
        f'test/good/{k:03}.png' for k in range(3)
    ]
    assert all(0 <= float(row['score']) <= 1 for row in rows)
    assert cv2.imread(str(folder / 'best.png')).shape[1] > 5 * 128


def test_evaluating_again_gives_the_same_numbers(run):
    path = run / 'evaluation' / str(STEPS) / 'results.json'
    before = path.read_text()
    evaluate.evaluate_checkpoint(str(run), step=STEPS)
    assert path.read_text() == before


def test_a_run_is_calibrated_on_its_held_out_normals(config, run):
    found = calibration.read(run)
    assert (found['step'], found['normals']) == (STEPS, 2)  # A quarter of eight.
    assert 'too few' in found['image']['note']
    held_out = inputs.load(**config.dataset).held_out
    detect = draem_jax.load(run)
    detections = detect(list(held_out))
    highest = max(detection.score for detection in detections)
    assert highest < detect.threshold == pytest.approx(highest, rel=1e-6)
    assert [detection.decision for detection in detections] == [False, False]
    rate = np.mean([detection.map >= detect.pixel_threshold for detection in detections])
    assert rate <= config.evaluation.pixel_target_fpr
    assert draem_jax.load(run, step=2).threshold is None


def test_a_run_without_held_out_normals_is_uncalibrated(config, run, tmp_path):
    train.calibrate(config, tmp_path, STEPS, np.zeros((0, 32, 32, 3), np.uint8))
    assert calibration.read(tmp_path) is None


def test_all_checkpoints_give_a_curve(run):
    evaluate.evaluate_all(str(run))
    with (run / 'evaluation' / 'curve.csv').open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line['step']) for line in lines] == [2, STEPS]
    results = json.loads((run / 'evaluation' / '2' / 'results.json').read_text())
    assert float(lines[0]['pixel_auroc']) == results['metrics']['pixel_auroc']
    assert (run / 'evaluation' / '2' / 'report' / 'index.html').is_file()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_results_may_go_to_another_folder_and_the_run_stays_as_it_is(run, tmp_path):
    before = contents(run)
    assert evaluate.evaluate_all(str(run), out=str(tmp_path)) == 0
    assert contents(run) == before
    with (tmp_path / 'evaluation' / 'curve.csv').open() as file:
        assert [int(line['step']) for line in csv.DictReader(file)] == [2, STEPS]
    assert (tmp_path / 'evaluation' / str(STEPS) / 'report' / 'index.html').is_file()


def test_an_evaluation_with_other_settings_replaces_nothing(run, capsys):
    folder = run / 'evaluation' / str(STEPS)
    before = contents(folder)
    found = evaluate.evaluate_checkpoint(str(run), changes={'dataset.image_size': (64, 64)})
    assert contents(folder) == before
    own_folder = run / 'evaluation' / f'{STEPS}_image_size=64x64'
    assert json.loads((own_folder / 'results.json').read_text()) == found
    assert found['calibration']['image'] is None
    assert 'image_size [32, 32], not [64, 64]' in found['calibration']['note']
    assert f'Results and pictures: {own_folder}' in capsys.readouterr().out
    shutil.rmtree(own_folder)


def test_a_full_disk_is_one_line(run, small_disk):
    fill_disk(small_disk, leave=20000)
    with (
        pytest.raises(UserError, match=f"No space left on device: writing to '{small_disk}' failed. Make room"),
        run_directory.explaining_a_full_disk(small_disk, 'Make room there.'),
    ):
        evaluate.evaluate_checkpoint(str(run), out=str(small_disk))


def test_watching_a_finished_run_evaluates_what_is_there_and_ends(run):
    path = run / 'evaluation' / str(STEPS) / 'results.json'
    path.unlink()
    evaluate.watch(str(run), every_seconds=1e9)
    assert path.is_file()


def test_resumed_run_equals_uninterrupted_run(config, run, tmp_path, monkeypatch):
    for step, number in ((1, signal.SIGTERM), (3, signal.SIGINT)):  # The first is before the first checkpoint is due.

        def stop(k, batch, step=step, number=number):
            if k == step + 1:  # Batches come one ahead.
                os.kill(os.getpid(), number)
            return batch

        with monkeypatch.context() as patch:
            change_batches(patch, stop)
            with pytest.raises(Preempted, match=f'{number.name}: step {step} of') as caught:
                train.train(config, str(tmp_path))
        assert caught.value.exit_code == 42
        assert checkpoints.list_steps(tmp_path)[-1] == step
        assert not (tmp_path / 'finished.json').exists()
    train.train(config, str(tmp_path))
    expected, found = restored(config, run, STEPS), restored(config, tmp_path, STEPS)
    assert_equal(found, expected)
    steps = logged_steps(tmp_path)
    assert steps == [1, 2, 3, 4]


def test_a_damaged_newest_checkpoint_is_passed_over_and_made_again(config, run, tmp_path, capfd):
    workdir = tmp_path / 'run'
    shutil.copytree(run, workdir)
    for path in (workdir / 'checkpoints' / str(STEPS) / 'variables').rglob('*'):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
    assert draem_jax.load(workdir).step == 2
    with pytest.raises(UserError, match=f'step {STEPS} in .* is damaged'):
        draem_jax.load(workdir, step=STEPS)
    train.train(config, str(workdir))
    assert f"step {STEPS} in '{workdir}' is damaged" in capfd.readouterr().err
    assert_equal(restored(config, workdir, STEPS), restored(config, run, STEPS))
    assert logged_steps(workdir) == [1, 2, 3, 4]


@pytest.fixture
def small_networks(monkeypatch):
    monkeypatch.setattr(networks, 'make_model', lambda axis_name=None, **model: OneBlock(axis_name))


def test_the_rate_falls_after_the_steps_that_the_config_says(config, tmp_path, small_networks):
    config = config.copy_and_resolve_references()
    config.optimizer.decay_at = (0.8, 0.9)
    train.train(config, str(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    rates = [line['learning_rate'] for line in lines if 'loss' in line]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-4, 2e-5])  # 80 % and 90 % of 4 steps are 3 and 4.


def test_not_a_number_in_the_data_ends_a_run_before_it_spoils_anything(config, tmp_path, small_networks, monkeypatch):
    config = config.copy_and_resolve_references()
    train.train(config, str(tmp_path / 'good'))
    config.training.log_every_steps = 0  # Then the host looks before it saves, and no checkpoint may come of step 4.

    def spoil(k, batch):
        return {**batch, 'augmented': np.where(k == 3, np.float32(np.nan), batch['augmented'].astype(np.float32))}

    change_batches(monkeypatch, spoil)
    with pytest.raises(Diverged, match=r'step 3, learning rate 0\.0001: .*loss nan'):
        train.train(config, str(tmp_path / 'bad'))
    assert checkpoints.list_steps(tmp_path / 'bad') == [2]
    assert_equal(restored(config, tmp_path / 'bad', 2), restored(config, tmp_path / 'good', 2))
    assert not (tmp_path / 'bad' / 'finished.json').exists()
    assert not (tmp_path / 'bad' / 'metrics.jsonl').exists()


def test_a_finished_run_is_left_alone(config, run, capsys):
    before = (run / 'metrics.jsonl').read_text()
    calibrated = (run / 'calibration.json').read_text()
    for name in ('finished.json', 'calibration.json'):
        (run / name).unlink()  # As if it had died just after the last checkpoint.
    train.train(config, str(run))
    assert (run / 'calibration.json').read_text() == calibrated
    assert 'Nothing to do' in capsys.readouterr().out
    assert json.loads((run / 'finished.json').read_text())['step'] == STEPS
    assert (run / 'metrics.jsonl').read_text() == before


def test_a_workdir_of_another_config_is_refused(config, run):
    other = config.copy_and_resolve_references()
    other.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match=r'optimizer\.learning_rate'):
        train.train(other, str(run))


def test_warm_start_takes_the_networks_of_another_run(config, run, tmp_path):
    warm = config.copy_and_resolve_references()
    warm.training.warm_start = str(run)
    with checkpoints.open_checkpoints(tmp_path) as manager:
        state = train.first_state(warm, *train.build(warm, STEPS)[:2], manager)
    trained = restored(config, run, STEPS)
    assert int(state.step) == 0
    jax.tree.map(np.testing.assert_array_equal, state.params, trained.params)
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, trained.batch_stats)
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.opt_state))


def test_a_checkpoint_of_other_networks_is_refused_with_both_shapes(run, config):
    template = networks.init_variables(networks.Draem(4, 2), tuple(config.dataset.image_size), seed=0)
    with pytest.raises(UserError, match='does not fit'):
        checkpoints.restore_variables(run, template)


def test_a_step_that_is_not_there_is_named_with_those_that_are(run):
    with pytest.raises(UserError, match=r'step 3 .* Found: 2, 4'):
        evaluate.evaluate_checkpoint(str(run), step=3)


def test_a_folder_of_good_images_alone_is_tested_on_some_of_them(config, run, tmp_path):
    flat = tmp_path / 'flat'
    shutil.copytree(pathlib.Path(config.dataset.root) / 'train' / 'good', flat)
    # The networks of the other run: only where the test comes from is of interest here.
    shutil.copytree(run, tmp_path / 'run', ignore=shutil.ignore_patterns('evaluation'))
    config = config.copy_and_resolve_references()
    config.dataset.root = str(flat)
    (tmp_path / 'run' / 'config.json').write_text(json.dumps({'schema': run_directory.SCHEMA, **config.to_dict()}))
    with pytest.raises(UserError, match='trained on all of them'):
        evaluate.evaluate_checkpoint(str(tmp_path / 'run'), changes={'dataset.test_fraction': 0.25})
    names = {'': {'validation': ['001.png'], 'test': ['000.png', '004.png']}}
    (tmp_path / 'run' / 'held_out.json').write_text(json.dumps(names))
    found = evaluate.evaluate_checkpoint(str(tmp_path / 'run'))
    assert found['counts'] == {'normal': 2, 'defective': 64, 'by_type': {'simulated': 64}}
    assert found['dataset']['split'] == 'simulated'
    assert 'held-out normal images' in found['dataset']['note']
    page = (tmp_path / 'run' / 'evaluation' / str(STEPS) / 'report' / 'index.html').read_text()
    assert found['dataset']['note'] in page
    with (tmp_path / 'run' / 'evaluation' / str(STEPS) / 'scores.csv').open() as file:
        assert [line['filename'] for line in csv.DictReader(file)][:2] == ['000.png', '004.png']


def test_several_categories_are_evaluated_each_and_in_the_mean(config, run, tmp_path):
    for category in ('bottle', 'screw'):
        shutil.copytree(config.dataset.root, tmp_path / 'mvtec' / category)
    (tmp_path / 'mvtec' / 'screw' / 'test' / 'block' / '000.png').unlink()
    (tmp_path / 'mvtec' / 'screw' / 'ground_truth' / 'block' / '000_mask.png').unlink()
    shutil.copytree(run, tmp_path / 'run')
    config = config.copy_and_resolve_references()
    shutil.rmtree(tmp_path / 'run' / 'evaluation', ignore_errors=True)
    config.dataset.update({'name': 'mvtec_ad', 'category': 'bottle,screw', 'root': str(tmp_path / 'mvtec')})
    (tmp_path / 'run' / 'config.json').write_text(json.dumps({'schema': run_directory.SCHEMA, **config.to_dict()}))
    found = evaluate.evaluate_checkpoint(str(tmp_path / 'run'))
    folder = tmp_path / 'run' / 'evaluation' / str(STEPS)
    each = [json.loads((folder / name / 'results.json').read_text()) for name in ('bottle', 'screw')]
    assert [one['counts']['defective'] for one in each] == [4, 3]
    for name, value in found['metrics'].items():
        assert value == pytest.approx(np.mean([one['metrics'][name] for one in each]), abs=1e-12)
    assert not (folder / 'report').exists()
    with (folder / 'results.csv').open() as file:
        assert [line['category'] for line in csv.DictReader(file)] == ['bottle', 'screw', 'mean']


def test_a_folder_of_runs_gives_a_table(run, tmp_path):
    for seed in (0, 1):
        shutil.copytree(run, tmp_path / 'sweep' / 'parts' / f'seed_{seed}')
    (tmp_path / 'sweep' / 'parts' / 'seed_1' / 'evaluation' / str(STEPS) / 'results.json').unlink(missing_ok=True)
    evaluate.evaluate_sweep(str(tmp_path / 'sweep'))
    with (tmp_path / 'sweep' / 'table.csv').open() as file:
        lines = list(csv.DictReader(file))
    assert [line['category'] for line in lines] == ['parts', 'mean']
    assert float(lines[0]['pixel_auroc_std']) == 0.0  # The same networks twice.
    (tmp_path / 'sweep' / 'parts' / 'seed_1' / 'finished.json').unlink()
    assert evaluate.evaluate_sweep(str(tmp_path / 'sweep'), {'evaluation.score_window': 3}) == 0
    with (tmp_path / 'sweep' / 'table.csv').open() as file:
        assert next(csv.DictReader(file))['seeds'] == '1'
    results = json.loads((tmp_path / 'sweep/parts/seed_0/evaluation' / str(STEPS) / 'results.json').read_text())
    assert results['options']['score_window'] == 3
    before = contents(tmp_path / 'sweep')
    assert evaluate.evaluate_sweep(str(tmp_path / 'sweep'), {'evaluation.score_window': 5}) == 0
    assert {path: after for path, after in contents(tmp_path / 'sweep').items() if path in before} == before
    new = {
        path.relative_to(tmp_path / 'sweep').as_posix() for path in contents(tmp_path / 'sweep') if path not in before
    }
    assert {name for name in new if '/' not in name} == {'table_score_window=5.csv', 'table_score_window=5.md'}
    assert f'parts/seed_0/evaluation/{STEPS}_score_window=5/results.json' in new
    (tmp_path / 'sweep' / 'parts' / 'seed_0' / 'finished.json').write_text('{')
    with pytest.raises(UserError, match='could be evaluated'):
        evaluate.evaluate_sweep(str(tmp_path / 'sweep'))


def test_the_best_checkpoint_is_chosen_by_the_validation_alone(run, tmp_path):
    shutil.copytree(run, tmp_path / 'run')
    log = tmp_path / 'run' / 'metrics.jsonl'
    for best, scores in ((2, (0.9, 0.5)), (STEPS, (0.5, 0.9))):
        lines = [{'step': step, 'validation/pixel_ap': score} for step, score in zip((2, STEPS), scores, strict=True)]
        log.write_text(''.join(json.dumps(line) + '\n' for line in [*lines, {'step': 3, 'validation/pixel_ap': 1.0}]))
        assert evaluate.best_step(tmp_path / 'run') == best
    log.write_text('')
    with pytest.raises(UserError, match='validation_fraction'):
        evaluate.best_step(tmp_path / 'run')


def test_a_run_keeps_to_what_it_holds_out(config, run):
    names = json.loads((run / 'held_out.json').read_text())
    assert len(names['']['validation']) == 2  # A quarter of eight.
    assert names['']['test'] == []  # There are test images.
    again = inputs.load(**config.dataset, pinned=names)
    assert again.held_out_names == names
