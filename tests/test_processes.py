"""Two processes of two devices each, over the loopback: they equal one process, stop together, lose each other."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_training import draw_data_set, tiny_config

import evaluate
import train
from configs import folder
from draem_jax import checkpoints, run_directory

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    draw_data_set(root)
    return tiny_config(root)


@pytest.fixture(scope='module')
def one(config, tmp_path_factory):
    """The directory of a run in one process, with four devices."""
    workdir = tmp_path_factory.mktemp('one')
    train.train(config, str(workdir))
    return workdir


class Processes:
    """Two processes of a script; each writes what it says to a file of its own."""

    def __init__(self, folder, script, *arguments):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        flags = [f'--coordinator=127.0.0.1:{port}', '--process_count=2']
        environment = {**os.environ, 'XLA_FLAGS': '--xla_force_host_platform_device_count=2', 'PYTHONUNBUFFERED': '1'}
        self._files = [folder / f'{script}.{index}.log' for index in (0, 1)]
        self._processes = [
            subprocess.Popen(
                [sys.executable, script, *arguments, *flags, f'--process_index={index}'],
                cwd=ROOT,
                env=environment,
                stdout=file.open('w'),
                stderr=subprocess.STDOUT,
            )
            for index, file in enumerate(self._files)
        ]

    def wait_for(self, path, seconds=300):
        """Returns once a file is there."""
        end = time.monotonic() + seconds
        while not path.exists():
            if time.monotonic() > end or any(each.poll() is not None for each in self._processes):
                self.kill()  # They would go on without us.
                pytest.fail(f'No {path}: {self.said()}')
            time.sleep(0.02)

    def send(self, index, number):
        self._processes[index].send_signal(number)

    def exit_codes(self, seconds=300):
        try:
            return [each.wait(seconds) for each in self._processes]
        finally:
            self.kill()

    def kill(self):
        for each in self._processes:
            each.kill()

    def said(self):
        return [file.read_text() for file in self._files]


def flags_of(config, workdir):
    """The config on the command line, but for the length: it goes on until it is stopped."""
    config = config.copy_and_resolve_references()
    config.training.steps = 10**6
    changed = []
    for section, fields in folder.get_config().items():
        changed += [
            f'--config.{section}.{field}={config[section][field]}'
            for field, value in fields.items()
            if config[section][field] != value
        ]
    return ['--config=configs/folder.py', *changed, f'--workdir={workdir}']


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return {line['step']: line['loss'] for line in lines if 'loss' in line}


@pytest.fixture(scope='module')
def two(config, tmp_path_factory):
    """(directory, processes) of a run in two processes, which ends because one of them is told to stop."""
    workdir = tmp_path_factory.mktemp('two') / 'run'
    processes = Processes(tmp_path_factory.mktemp('logs'), 'train.py', *flags_of(config, workdir))
    processes.wait_for(workdir / 'checkpoints' / '2')
    processes.send(1, signal.SIGTERM)
    return workdir, processes


def test_two_processes_stop_at_the_same_step_when_one_is_told_to(two):
    workdir, processes = two
    assert processes.exit_codes() == [42, 42], processes.said()
    main, other = processes.said()
    newest = checkpoints.list_steps(workdir)[-1]
    assert f'Stopped by a signal to another process: step {newest} of' in main
    assert f'Stopped by SIGTERM: step {newest} of' in other
    assert 'loss' not in other  # One process speaks for both.
    assert list(losses(workdir)) == [*range(1, newest + 1)]


def test_two_processes_train_as_one_does(two, one):
    found, expected = losses(two[0]), losses(one)
    common = [step for step in expected if step in found]
    assert common[:3] == [1, 2, 3]
    # Before anything was learnt, all that could differ is who made and saw which examples; later, so narrow networks
    # turn the order of a sum into thousandths.
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
    np.testing.assert_allclose(*([values[step] for step in common] for values in (found, expected)), rtol=5e-3)


def test_started_again_two_processes_go_on_and_one_that_loses_the_other_ends(config, two, tmp_path):
    workdir, _ = two
    stopped_at = checkpoints.list_steps(workdir)[-1]
    processes = Processes(tmp_path, 'train.py', *flags_of(config, workdir), '--heartbeat_timeout=10')
    processes.wait_for(workdir / 'checkpoints' / str(stopped_at + 2 - stopped_at % 2))
    processes.send(1, signal.SIGKILL)
    code, of_killed = processes.exit_codes(60)
    main = processes.said()[0]
    assert f'Going on from step {stopped_at}.' in main
    assert of_killed == -signal.SIGKILL
    # JAX is asked to tell us of it, but may be faster and end the process itself.
    assert code in (1, -signal.SIGABRT), main
    assert re.search('Error: Another process is gone|another task died', main)


def test_a_checkpoint_of_two_processes_is_one_of_one_process(config, two, capsys):
    workdir, _ = two
    newest = checkpoints.list_steps(workdir)[-1]
    config = config.copy_and_resolve_references()
    config.training.steps = newest + 1
    train.train(config, str(workdir))
    assert f'Going on from step {newest}.' in capsys.readouterr().out
    assert run_directory.finished_step(workdir) == newest + 1


def test_two_processes_evaluate_as_one_does(config, two, tmp_path):
    workdir, _ = two
    alone = evaluate.evaluate_checkpoint(str(workdir))
    processes = Processes(tmp_path, 'evaluate.py', f'--workdir={workdir}')
    assert processes.exit_codes() == [0, 0], processes.said()
    together = json.loads((run_directory.evaluation_folder(workdir, alone['step']) / 'results.json').read_text())
    assert together['counts'] == alone['counts']
    for name, value in alone['metrics'].items():
        assert together['metrics'][name] == pytest.approx(value, abs=1e-4)
    assert 'metrics in percent' not in processes.said()[1]
