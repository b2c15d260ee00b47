"""The sweep: which cells it runs, on which devices, and what becomes of failures and signals.

Most tests put short scripts in the place of train.py and evaluate.py, which leave the same files.
"""

import csv
import fcntl
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import textwrap
import time
import types

import pytest
import submitit
import trees

import data
import sweep
from commands import launchers, sweep_table
from configs import folder, quickstart
from draem_jax.errors import Preempted, UserError
from draem_jax.evaluation import results

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUICKSTART = f'--config={ROOT}/configs/quickstart.py'

TRAIN = """
import os, pathlib, signal, sys, time
sys.path.insert(0, {root!r})
from absl import flags
from configs import command_line
from draem_jax import runs

def main():
    config, workdir = flags.FLAGS.config, flags.FLAGS.workdir
    category, seed = config.dataset.category, config.training.seed
    runs.start(workdir, config.to_dict())
    here = pathlib.Path(__file__).parent
    {behaviour}
    runs.write_json(pathlib.Path(workdir) / 'finished.json', {{'step': config.training.steps}})

command_line.define_config_file()
flags.DEFINE_string('workdir', None, '', required=True)
command_line.run(main)
"""

EVALUATE = """
import os, pathlib, signal, sys, time
sys.path.insert(0, {root!r})
from draem_jax import results, runs

workdir = sys.argv[1].removeprefix('--workdir=')
config = runs.read_config(workdir)
category, seed = config['dataset']['category'], config['training']['seed']
here = pathlib.Path(__file__).parent
{behaviour}
found = {{
    'dataset': config['dataset'],
    'options': config['evaluation'],
    'metrics': dict.fromkeys(results.METRICS, (len(category) + seed) / 10),
}}
runs.write_json(runs.evaluation_folder(workdir, runs.finished_step(workdir)) / 'results.json', found)
"""


class Sweep:
    """A sweep in a folder of its own, of scripts that behave as told: `train` and `evaluate` are lines of Python."""

    def __init__(self, path):
        self.workdir, self._scripts = path / 'sweep', path
        self.behave()

    def behave(self, train='', evaluate=''):
        for name, script, behaviour in (('train', TRAIN, train), ('evaluate', EVALUATE, evaluate)):
            lines = textwrap.indent(textwrap.dedent(behaviour), '    ' * (script is TRAIN)).strip() or 'pass'
            (self._scripts / f'{name}.py').write_text(script.format(behaviour=lines, root=str(ROOT)))

    def plan(self, categories='wood,metal', seeds='0', **changes):
        config = quickstart.get_config()
        config.update_from_flattened_dict(changes)
        arguments = [QUICKSTART, *(f'--config.{field}={value}' for field, value in changes.items())]
        return sweep.plan(config, self.workdir, categories, seeds, arguments, self._scripts)

    def run(self, *arguments, slots=({},), **changes):
        cell_jobs = self.plan(*arguments, **changes)
        return sweep.run_cells(
            cell_jobs, self.workdir, lambda rest: launchers.run_locally(rest, slots, every_seconds=0.01)
        )

    def commands(self, cell):
        """The scripts that were started for a cell, in their order."""
        log = self.workdir / cell / 'log.txt'
        lines = log.read_text().splitlines() if log.exists() else []
        return [pathlib.Path(line.split()[4]).stem for line in lines if line.startswith('--- ')]

    def wrote(self, name):
        return (self._scripts / name).read_text()


@pytest.fixture
def swept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Where nothing of ours is found by chance.
    monkeypatch.setenv('PYTHONPATH', '')
    return Sweep(tmp_path)


def test_every_cell_is_trained_with_its_category_its_seed_and_the_flags_given(swept):
    assert swept.run('wood,metal', '3,5,3', **{'training.steps': 7}) == 0
    cells = sweep_table.cells(swept.workdir)
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
    slots = launchers.slots(1, lambda: ('gpu', 2), {})
    assert swept.run('wood,metal', '0,1,2', slots=slots) == 0
    runs = [line.split() for line in swept.wrote('times').splitlines()]
    runs = [(float(start), float(end), device) for start, end, device in runs]
    assert len(runs) == 6
    under_way = [{device for start, end, device in runs if start <= moment < end} for moment, _, _ in runs]
    counts = [sum(start <= moment < end for start, end, _ in runs) for moment, _, _ in runs]
    assert max(counts) == 2
    assert [len(devices) for devices in under_way] == counts


@pytest.mark.parametrize(
    ('devices_per_run', 'visible', 'expected'),
    [
        (1, None, ['0', '1', '2', '3', '4']),
        (2, None, ['0,1', '2,3']),
        (2, '7, 3,GPU-0aa,GPU-1bb,MIG-2', ['7,3', 'GPU-0aa,GPU-1bb']),
        (3, '', ['0,1,2']),
    ],
)
def test_gpus_are_shared_out_by_the_names_they_have(devices_per_run, visible, expected):
    environment = {} if visible is None else {'CUDA_VISIBLE_DEVICES': visible}
    found = launchers.slots(devices_per_run, lambda: ('gpu', 5), environment)
    assert found == [{'CUDA_VISIBLE_DEVICES': ids} for ids in expected]


def test_all_devices_are_one_slot_and_more_or_those_of_a_tpu_none():
    assert launchers.slots(0, lambda: pytest.fail('Nobody needs to know.')) == [{}]
    assert launchers.slots(4, lambda: ('tpu', 4)) == [{}]
    with pytest.raises(UserError, match=r'--devices_per_run=5: this machine has 4 \(gpu\)'):
        launchers.slots(5, lambda: ('gpu', 4))
    with pytest.raises(UserError, match=r'4 tpu devices .* not shared out'):
        launchers.slots(1, lambda: ('tpu', 4))


def test_virtual_devices_of_a_cpu_are_counted_and_shared_out(monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', '--xla_force_host_platform_device_count=5')
    first, second = launchers.slots(2)
    assert first == second
    monkeypatch.setenv('XLA_FLAGS', first['XLA_FLAGS'])
    assert launchers.find_devices() == ('cpu', 2)


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
    assert swept.wrote('stopped') == 'True'  # Of a session of its own, so Ctrl-C reached it through the sweep alone.
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
    orphan = launchers.CellProcess(cell_job)
    orphan._log.close()
    with pytest.raises(UserError, match='Another process'):
        launchers.open_log(cell_job)
    orphan.stop()
    orphan.wait()
    launchers.open_log(cell_job).close()


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
    assert sweep.run_cells(cell_jobs, swept.workdir, lambda rest: launchers.run_locally(rest, [{}])) == 0
    found = sweep_table.cells(swept.workdir)
    assert [(cell.category, cell.seed) for cell in found] == [('bolts_large', 0), ('folder', 0)]
    configs = [json.loads((cell.workdir / 'config.json').read_text()) for cell in found]
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


# ---- Through submitit ----


def on_local(swept, *arguments, **changes):
    cell_jobs = swept.plan(*arguments, **changes)
    parameters = {'name': 'sweep', 'timeout_min': 5}

    def launch(rest):
        return launchers.run_on_cluster(rest, swept.workdir, parameters, cluster='local', every_seconds=0.05)

    return sweep.run_cells(cell_jobs, swept.workdir, launch)


def test_jobs_do_what_the_local_launcher_does(swept, capsys):
    swept.behave(train="if category == 'metal': print('Error: loss nan'); sys.exit(3)")
    assert on_local(swept) == 1
    assert 'metal, seed 0: exit code 3: loss nan' in capsys.readouterr().err
    assert [cell.category for cell in sweep_table.cells(swept.workdir)] == ['metal', 'wood']
    assert swept.commands('wood/seed_0') == ['train', 'evaluate']


def test_a_job_that_is_preempted_saves_and_queues_again(swept):
    swept.behave(
        train="""
        if not (here / 'stopped').exists():
            def leave(*_):
                (here / 'stopped').touch()
                sys.exit(42)
            signal.signal(signal.SIGTERM, leave)
            import submitit
            os.kill(os.getppid(), submitit.JobEnvironment._usr_sig())
            time.sleep(30)
            sys.exit(1)
        """
    )
    assert on_local(swept, 'wood') == 0
    assert swept.commands('wood/seed_0') == ['train', 'train', 'evaluate']


def test_a_job_that_dies_is_a_failure_that_names_its_log(swept, monkeypatch, capsys):
    monkeypatch.setattr(submitit.Job, '_results_timeout_s', 0)  # It allows for slow file systems.
    swept.behave(train='os.kill(os.getppid(), signal.SIGKILL)')
    assert on_local(swept, 'wood') == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('Error: wood, seed 0: Job ')
    assert str(swept.workdir / 'jobs') in line


SBATCH = """#!{python}
import pathlib, sys
here = pathlib.Path(__file__).parent
text = pathlib.Path(sys.argv[-1]).read_text()
with (here / 'submitted').open('a') as file:
    file.write(text)
print('Submitted batch job 71')
"""
SACCT = """#!{python}
import pathlib
print((pathlib.Path(__file__).parent / 'states').read_text())
"""


def test_jobs_that_slurm_still_has_are_not_submitted_again(swept, tmp_path, monkeypatch, capsys):
    for name, text in (('sbatch', SBATCH), ('sacct', SACCT), ('srun', '#!{python}\n')):
        (tmp_path / name).write_text(text.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    cell_jobs = swept.plan()
    options = {'timeout_min': 60, 'gpus_per_node': 2, 'slurm_additional_parameters': {'account': 'vision'}}

    ctrl_c = types.SimpleNamespace(sleep=lambda _: os.kill(os.getpid(), signal.SIGINT), strftime=time.strftime)
    monkeypatch.setattr(launchers, 'time', ctrl_c)
    for state in ('PENDING', 'CANCELLED by 0'):
        (tmp_path / 'states').write_text(f'JobID|State\n71_0|PENDING\n71_1|{state}\n')
        with pytest.raises(Preempted, match='2 of 2'):
            sweep.run_cells(
                cell_jobs, swept.workdir, lambda rest: launchers.run_on_cluster(rest, swept.workdir, options)
            )
    out = capsys.readouterr().out
    assert 'wood, seed 0: submitted, job 71_0.' in out
    assert 'wood, seed 0: waits for job 71_0.' in out
    assert 'The jobs go on' in out
    array, single = swept.wrote('submitted').split('#!/bin/bash')[1:]
    for line in ('#SBATCH --array=0-1', '#SBATCH --gpus-per-node=2', '#SBATCH --time=60', '#SBATCH --account=vision'):
        assert line in array
    assert '--array' not in single  # The cancelled one alone.


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
    found = call(*arguments)
    (line,) = found.stderr.splitlines()
    assert (found.returncode, found.stdout, line[:7]) == (1, '', 'Error: ')
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
