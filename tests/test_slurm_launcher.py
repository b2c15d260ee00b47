"""Cells as jobs: submitit's local executor, and SLURM's commands replaced by scripts."""

import os
import signal
import sys
import types

import pytest
import submitit
from scripted_sweep import ScriptedSweep

import sweep
from commands import slurm_launcher
from commands.cells import list_cells
from draem_jax.errors import Preempted


@pytest.fixture
def swept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Where nothing of ours is found by chance.
    monkeypatch.setenv('PYTHONPATH', '')
    return ScriptedSweep(tmp_path)


def on_local(swept, *arguments, **changes):
    cell_jobs = swept.plan(*arguments, **changes)
    parameters = {'name': 'sweep', 'timeout_min': 5}

    def launch(rest):
        return slurm_launcher.run_on_cluster(rest, swept.workdir, parameters, cluster='local', every_seconds=0.05)

    return sweep.run_cells(cell_jobs, swept.workdir, launch)


def test_jobs_do_what_the_local_launcher_does(swept, capsys):
    swept.behave(train="if category == 'metal': print('Error: loss nan'); sys.exit(3)")
    assert on_local(swept) == 1
    assert 'metal, seed 0: exit code 3: loss nan' in capsys.readouterr().err
    assert [cell.category for cell in list_cells(swept.workdir)] == ['metal', 'wood']
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

    ctrl_c = types.SimpleNamespace(sleep=lambda _: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(slurm_launcher, 'time', ctrl_c)
    for state in ('PENDING', 'CANCELLED by 0'):
        (tmp_path / 'states').write_text(f'JobID|State\n71_0|PENDING\n71_1|{state}\n')
        with pytest.raises(Preempted, match='2 of 2'):
            sweep.run_cells(
                cell_jobs, swept.workdir, lambda rest: slurm_launcher.run_on_cluster(rest, swept.workdir, options)
            )
    out = capsys.readouterr().out
    assert 'wood, seed 0: submitted, job 71_0.' in out
    assert 'wood, seed 0: waits for job 71_0.' in out
    assert 'The jobs go on' in out
    array, single = swept.wrote('submitted').split('#!/bin/bash')[1:]
    for line in ('#SBATCH --array=0-1', '#SBATCH --gpus-per-node=2', '#SBATCH --time=60', '#SBATCH --account=vision'):
        assert line in array
    assert '--array' not in single  # The cancelled one alone.
