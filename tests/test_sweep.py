"""The sweep on this machine: which cells it runs, and what becomes of failures and signals."""

import csv
import fcntl
import json
import statistics
import subprocess
import sys

import pytest
import trees
from scripted_sweep import QUICKSTART, ROOT, ScriptedSweep

import data
import sweep
from commands.cell_process import CellProcess, open_log
from commands.cells import list_cells
from commands.local_launcher import run_locally, slots
from configs import folder
from draem_jax.errors import Preempted, UserError
from draem_jax.evaluation import results


@pytest.fixture
def swept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Where nothing of ours is found by chance.
    monkeypatch.setenv('PYTHONPATH', '')
    return ScriptedSweep(tmp_path)


def test_every_cell_is_trained_with_its_category_its_seed_and_the_flags_given(swept):
    assert swept.run('wood,metal', '3,5,3', **{'training.steps': 7}) == 0
    cells = list_cells(swept.workdir)
    assert [(cell.category, cell.seed) for cell in cells] == [('metal', 3), ('metal', 5), ('wood', 3), ('wood', 5)]
    for cell in cells:
        config = json.loads((cell.workdir / 'config.json').read_text())
        assert config['dataset']['category'] == cell.category
        assert (config['training']['seed'], config['training']['steps']) == (cell.seed, 7)
        assert swept.commands(cell.workdir) == ['train', 'evaluate']


def test_the_table_has_means_and_deviations_over_seeds(swept):
    swept.run('wood,fabric', '0,2')
    with (swept.workdir / 'table.csv').open() as file:
        fabric, wood, mean = csv.DictReader(file)
    assert float(wood['pixel_ap']) == pytest.approx(statistics.mean([0.4, 0.6]))
    assert float(fabric['aupro_std']) == pytest.approx(statistics.stdev([0.6, 0.8]))
    assert float(mean['image_ap']) == pytest.approx(0.6)
    assert 'Left out' not in (swept.workdir / 'table.md').read_text()


def test_what_is_finished_is_skipped_and_the_rest_goes_on(swept, capsys):
    swept.run()
    (swept.workdir / 'wood/seed_0/evaluation/1800/results.json').unlink()
    assert swept.run() == 0
    assert 'metal, seed 0: finished before, skipped.' in capsys.readouterr().out
    assert swept.commands('metal/seed_0') == ['train', 'evaluate']
    assert swept.commands('wood/seed_0') == ['train', 'evaluate', 'evaluate']


def test_another_length_is_no_finished_cell(swept):
    swept.run('wood')
    swept.run('wood', **{'training.steps': 2000})
    assert swept.commands('wood/seed_0') == ['train', 'evaluate'] * 2
    assert (swept.workdir / 'wood/seed_0/evaluation/2000/results.json').is_file()


def test_another_way_to_evaluate_is_carried_out_even_where_it_failed_before(swept):
    swept.run('wood')
    swept.behave(evaluate='sys.exit(1)')
    swept.run('wood', **{'evaluation.score_window': 7})
    swept.behave()
    assert swept.run('wood', **{'evaluation.score_window': 7}) == 0
    assert swept.commands('wood/seed_0') == ['train', 'evaluate', 'train', 'evaluate', 'evaluate']


@pytest.mark.parametrize(('name', 'script'), [('finished.json', 'train'), ('evaluation/1800/results.json', 'evaluate')])
def test_a_damaged_file_of_a_finished_cell_is_made_anew(swept, name, script):
    swept.run('wood')
    (swept.workdir / 'wood/seed_0' / name).write_text('{"step": 18')
    assert swept.run('wood') == 0
    assert swept.commands('wood/seed_0') == ['train', 'evaluate', script]


def test_a_damaged_config_is_the_failure_of_its_cell_and_the_others_are_in_the_table(swept, capsys):
    swept.run()
    (swept.workdir / 'wood/seed_0/config.json').write_text('[]')
    assert swept.run() == 1
    assert "wood/seed_0/config.json' has schema None" in capsys.readouterr().err
    table = (swept.workdir / 'table.md').read_text()
    assert [line.split()[1] for line in table.splitlines()[2:4]] == ['metal', 'mean']


def test_results_on_other_data_are_not_those_of_the_cell(swept):
    swept.run('wood')
    path = swept.workdir / 'wood/seed_0/evaluation/1800/results.json'
    record = json.loads(path.read_text())
    record['dataset']['root'] = '/elsewhere'
    path.write_text(json.dumps(record))
    (swept.workdir / 'table.md').unlink()
    sweep.write_table(swept.workdir)
    assert not (swept.workdir / 'table.md').exists()
    assert swept.run('wood') == 0
    assert swept.commands('wood/seed_0') == ['train', 'evaluate', 'evaluate']


def test_a_failure_is_named_with_its_reason_and_the_others_are_done(swept, capsys):
    swept.behave(train="if category == 'metal': print('Error: loss nan', file=sys.stderr); sys.exit(3)")
    assert swept.run('metal,wood', '0,1') == 1
    lines = capsys.readouterr().err.splitlines()
    logs = [swept.workdir / f'metal/seed_{seed}/log.txt' for seed in (0, 1)]
    assert lines == [f'Error: metal, seed {k}: exit code 3: loss nan ({log})' for k, log in enumerate(logs)]
    assert swept.commands('metal/seed_0') == ['train']
    assert swept.commands('wood/seed_1') == ['train', 'evaluate']
    table = (swept.workdir / 'table.md').read_text()
    assert 'Left out, for they are not finished: metal, seed 0; metal, seed 1.' in table
    assert table.splitlines()[2].startswith('| wood')
    swept.behave()
    assert swept.run('metal,wood', '0,1') == 0


def test_a_process_that_is_killed_is_a_failure(swept, capsys):
    swept.behave(evaluate='os.kill(os.getpid(), signal.SIGKILL)')
    assert swept.run('wood') == 1
    assert 'wood, seed 0: killed by SIGKILL' in capsys.readouterr().err
    assert not (swept.workdir / 'table.md').exists()


def test_cells_that_run_at_the_same_time_have_devices_of_their_own(swept):
    swept.behave(
        train="""
        start, device = time.monotonic(), os.environ['CUDA_VISIBLE_DEVICES']
        (here / f'{category}_{seed}').touch()
        while not all((here / name).exists() for name in ('wood_0', 'metal_0')) and time.monotonic() < start + 30:
            time.sleep(0.01)
        with (here / 'times').open('a') as file:
            file.write(f'{start} {time.monotonic()} {device}\\n')
        """
    )
    assert swept.run('wood,metal', '0,1,2', slots=slots(1, lambda: ('gpu', 2), {})) == 0
    runs = [line.split() for line in swept.wrote('times').splitlines()]
    runs = [(float(start), float(end), device) for start, end, device in runs]
    assert len(runs) == 6
    under_way = [{device for start, end, device in runs if start <= moment < end} for moment, _, _ in runs]
    counts = [sum(start <= moment < end for start, end, _ in runs) for moment, _, _ in runs]
    assert max(counts) == 2
    assert [len(devices) for devices in under_way] == counts


def test_being_asked_to_stop_is_passed_on_and_the_next_start_goes_on(swept, capsys):
    swept.behave(
        train="""
        if not (here / 'stopped').exists():
            def leave(*_):
                (here / 'stopped').write_text(f'{os.getsid(0) == os.getpid()}')
                sys.exit(42)
            signal.signal(signal.SIGTERM, leave)
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(30)
            sys.exit(1)
        """
    )
    with pytest.raises(Preempted, match='Stopped with 2 of 2 cells left') as caught:
        swept.run('wood,metal')
    assert caught.value.exit_code == 42
    # It has a session of its own, so Ctrl-C reached it only through the sweep.
    assert swept.wrote('stopped') == 'True'
    assert 'wood, seed 0: stopped after' in capsys.readouterr().out
    assert swept.commands('wood/seed_0') == ['train']
    assert swept.commands('metal/seed_0') == []
    assert swept.run('wood,metal') == 0
    assert swept.commands('wood/seed_0') == ['train', 'train', 'evaluate']


def test_a_slot_that_becomes_free_while_others_are_stopping_stays_free(swept):
    swept.behave(
        train="""
        def leave(*_):
            time.sleep(0.5 if category == 'metal' else 0)
            sys.exit(42)
        signal.signal(signal.SIGTERM, leave)
        (here / category).touch()
        while not ((here / 'wood').exists() and (here / 'metal').exists()):
            time.sleep(0.01)
        if category == 'wood':
            os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(30)
        """
    )
    with pytest.raises(Preempted, match='Stopped with 3 of 3 cells left'):
        swept.run('wood,metal,fabric', slots=({}, {}))
    assert swept.commands('fabric/seed_0') == []


def test_an_evaluation_that_is_stopped_is_left_for_the_next_start(swept):
    swept.behave(evaluate='os.kill(os.getppid(), signal.SIGTERM); time.sleep(30)')
    with pytest.raises(Preempted, match='Stopped with 1 of 1 cells left'):
        swept.run('wood')
    swept.behave()
    assert swept.run('wood') == 0
    assert swept.commands('wood/seed_0') == ['train', 'evaluate', 'evaluate']


def test_a_training_that_ends_while_it_is_asked_to_stop_is_not_evaluated(swept):
    swept.behave(train='signal.signal(signal.SIGTERM, signal.SIG_IGN); os.kill(os.getppid(), 15); time.sleep(0.5)')
    with pytest.raises(Preempted, match='1 of 1'):
        swept.run('wood')
    assert swept.commands('wood/seed_0') == ['train']


def test_a_cell_that_another_process_works_on_is_left_alone(swept, capsys):
    (swept.workdir / 'wood/seed_0').mkdir(parents=True)
    with (swept.workdir / 'wood/seed_0/log.txt').open('w') as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert swept.run() == 1
    assert 'wood, seed 0: Another process is at work' in capsys.readouterr().err
    assert swept.commands('wood/seed_0') == []
    assert swept.commands('metal/seed_0') == ['train', 'evaluate']


def test_a_cell_is_locked_by_its_process_even_when_the_sweep_is_gone(swept):
    (cell_job,) = swept.plan('wood')
    cell_job.cell.workdir.mkdir(parents=True)
    swept.behave(train="(here / 'runs').touch()\nwhile not (here / 'end').exists(): time.sleep(0.01)")
    orphan = CellProcess(cell_job)
    orphan._log.close()
    with pytest.raises(UserError, match='Another process'):
        open_log(cell_job)
    orphan.stop()
    orphan.wait()
    open_log(cell_job).close()


def test_a_workdir_that_cannot_be_written_to_is_one_line(swept):
    swept.workdir.mkdir()
    (swept.workdir / 'metal').write_text('a file')
    with pytest.raises(UserError, match=r"Cannot write to --workdir '.*/metal"):
        swept.run('wood,metal')
    assert not (swept.workdir / 'wood/seed_0/log.txt').exists()


def test_a_log_that_cannot_be_written_to_is_the_failure_of_its_cell(swept, capsys):
    (swept.workdir / 'wood/seed_0/log.txt').mkdir(parents=True)
    assert swept.run() == 1
    assert "Error: wood, seed 0: Cannot write to '" in capsys.readouterr().err
    assert swept.commands('metal/seed_0') == ['train', 'evaluate']


def test_all_categories_are_those_of_the_data_set(swept):
    assert [cell_job.cell.category for cell_job in swept.plan('all')] == ['fabric', 'wood', 'metal']
    assert [cell_job.cell.category for cell_job in swept.plan(None)] == ['metal']
    assert [cell_job.cell.seed for cell_job in swept.plan('wood,wood', '1,2,1')] == [1, 2]
    for name in ('mvtec_ad', 'visa'):
        assert len(data.category_names(name)) == {'mvtec_ad': 15, 'visa': 12}[name]


@pytest.mark.parametrize(
    ('categories', 'seeds', 'message'),
    [
        ('wood,glass', '0', r"no category 'glass'. Known: fabric, wood, metal\."),
        ('wood,', '0', "no category ''"),
        ('wood', '0,x', "--seeds='0,x'"),
        ('wood', '-1', "--seeds='-1'"),
        ('wood', '', "--seeds=''"),
        ('wood', '9999999999', 'training.seed=9999999999'),
    ],
)
def test_a_mistake_is_found_before_anything_is_started(swept, categories, seeds, message):
    with pytest.raises(UserError, match=message):
        swept.plan(categories, seeds)


def folder_plan(path, categories, own='', root='parts'):
    config = folder.get_config()
    config.dataset.root, config.dataset.category = root, own
    arguments = [f'--config={ROOT}/configs/folder.py', f'--config.dataset.root={root}']
    return sweep.plan(config, path / 'sweep', categories, '0', arguments, path)


def test_a_folder_without_categories_is_a_cell_that_the_table_reads_back(swept, tmp_path):
    cell_jobs = folder_plan(tmp_path, None) + folder_plan(tmp_path, 'bolts/large')
    assert sweep.run_cells(cell_jobs, swept.workdir, lambda rest: run_locally(rest, [{}])) == 0
    cells = list_cells(swept.workdir)
    assert [(cell.category, cell.seed) for cell in cells] == [('bolts_large', 0), ('folder', 0)]
    configs = [json.loads((cell.workdir / 'config.json').read_text()) for cell in cells]
    assert [config['dataset']['category'] for config in configs] == ['bolts/large', '']


@pytest.mark.parametrize('category', ['..', '/etc', '.', 'bolts/../../nuts', '../bolts'])
def test_no_category_leads_out_of_the_sweep(tmp_path, category):
    for arguments in ((category,), (None, category)):
        with pytest.raises(UserError, match=r'is no folder below --config\.dataset\.root'):
            folder_plan(tmp_path, *arguments)


def test_categories_of_a_folder_are_named_one_by_one_and_kept_apart(tmp_path):
    with pytest.raises(UserError, match="--categories=all: 'folder' has no category 'all'"):
        folder_plan(tmp_path, 'all')
    with pytest.raises(UserError, match="would share the folder 'a_b'"):
        folder_plan(tmp_path, 'a/b,a_b')


# ---- The scripts themselves ----


def call(*arguments):
    command = [sys.executable, 'sweep.py', *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ('arguments', 'parts'),
    [
        ([QUICKSTART], ['--workdir']),
        ([QUICKSTART, '--workdir=.', '--launcher=fork'], ['launcher=fork', 'local|slurm']),
        (['--workdir=.'], ['--config=configs/']),
        ([QUICKSTART, '--workdir=.', '--launcher=slurm', '--slurm_options=a'], ['key=value']),
        ([QUICKSTART, '--workdir=.', '--launcher=slurm'], ['sbatch']),
        ([QUICKSTART, '--workdir=.', '--devices_per_run=64'], ['--devices_per_run=64', 'cpu']),
    ],
)
def test_wrong_flags_are_one_line(arguments, parts):
    result = call(*arguments)
    (line,) = result.stderr.splitlines()
    assert (result.returncode, result.stdout, line[:7]) == (1, '', 'Error: ')
    assert all(part in line for part in parts)


def test_a_cell_is_trained_evaluated_and_in_the_table(tmp_path):
    trees.draw_tree(tmp_path / 'parts')
    arguments = ['--config=configs/folder.py', f'--config.dataset.root={tmp_path / "parts"}', '--seeds=4']
    arguments += ['--config.dataset.image_size=(32, 32)', '--config.dataset.texture_count=4']
    # The networks of test_end_to_end, which are compiled already.
    arguments += ['--config.model.reconstructive_width=2', '--config.model.discriminative_width=2']
    arguments += ['--config.optimizer.decay_at=()', '--config.evaluation.score_window=3']
    arguments += ['--config.training.steps=1', '--config.training.batch_size=4', '--config.evaluation.batch_size=4']
    arguments += ['--config.dataset.validation_fraction=0', '--config.evaluation.report=false']
    first = call(*arguments, f'--workdir={tmp_path / "sweep"}')
    assert (first.returncode, first.stderr) == (0, '')
    line, _ = csv.DictReader((tmp_path / 'sweep/table.csv').read_text().splitlines())
    assert (line['category'], line['seeds']) == ('folder', '1')
    assert {name for name in results.METRICS if line[name]} == set(results.METRICS)
    again = call(*arguments, f'--workdir={tmp_path / "sweep"}')
    assert (again.returncode, again.stderr) == (0, '')
    assert again.stdout.startswith('folder, seed 4: finished before, skipped.')
