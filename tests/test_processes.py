"""Two processes of two devices each, over the loopback: they equal one process, stop together, lose each other."""

import contextlib
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
from draem_jax import checkpoints, processes, run_directory
from draem_jax.errors import UserError

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


@pytest.fixture(scope='module', autouse=True)
def terminated_as_interrupted():
    """SIGTERM ends pytest as Ctrl-C does: every `with` and every fixture is left, which ends the processes."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


class Processes:
    """Two processes of a script, for a `with`; each writes what it says to a file of its own.

    Each leads a process group. However the block is left, both groups are killed: what runs for 10^6 steps would
    outlive a test that failed.
    """

    def __init__(self, folder, script, *arguments):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        flags = [f'--coordinator=127.0.0.1:{port}', '--process_count=2']
        self._environment = {
            **os.environ,
            'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
            'PYTHONUNBUFFERED': '1',
        }
        self._command = [sys.executable, script, *arguments, *flags]
        self._files = [folder / f'{script}.{index}.log' for index in (0, 1)]
        self._processes = []

    def __enter__(self):
        with contextlib.ExitStack() as on_error:
            on_error.callback(self.kill)
            for index, path in enumerate(self._files):
                with path.open('w') as file:
                    process = subprocess.Popen(
                        [*self._command, f'--process_index={index}'],
                        cwd=ROOT,
                        env=self._environment,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                self._processes.append(process)
            on_error.pop_all()
        return self

    def __exit__(self, *error):
        self.kill()

    def wait_for(self, path, seconds=300):
        """Returns once a file is there."""
        end = time.monotonic() + seconds
        while not path.exists():
            if time.monotonic() > end or any(each.poll() is not None for each in self._processes):
                pytest.fail(f'No {path}: {self.said()}')
            time.sleep(0.02)

    def send(self, index, number):
        self._processes[index].send_signal(number)

    def exit_codes(self, seconds=300):
        return [each.wait(seconds) for each in self._processes]

    def kill(self):
        for each in self._processes:
            with contextlib.suppress(ProcessLookupError):  # It has ended, and so have its children.
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()

    def said(self):
        return [file.read_text() for file in self._files]


def flags_of(config, workdir, *, steps=10**6):
    """The config on the command line, but for the length: unless `steps` says one, it goes on until it is stopped."""
    config = config.copy_and_resolve_references()
    config.training.steps = steps
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
    with Processes(tmp_path_factory.mktemp('logs'), 'train.py', *flags_of(config, workdir)) as started:
        started.wait_for(workdir / 'checkpoints' / '2')
        started.send(1, signal.SIGTERM)
        yield workdir, started


# What comes before the last lines of each of two processes: they find each other.
CONNECTED = """
import pathlib, sys
from commands import command_line
from draem_jax import processes
def main():
    processes.connect(**command_line.hosts())
    index = processes.process_index()
    {body}
command_line.define_hosts()
command_line.main(main, leave=processes.exit_process)
"""


def run_two(folder, body):
    """Runs some statements in two processes, which know their `index`: (exit codes, what each says)."""
    with Processes(folder, '-c', CONNECTED.format(body='\n    '.join(body))) as started:
        return started.exit_codes(), started.said()


def test_an_error_in_one_process_shows_its_traceback_and_ends_both(tmp_path):
    codes, (main, other) = run_two(tmp_path, ["if index: raise KeyError('a fault')", "processes.meet('never')"])
    assert codes == [1, 1]
    assert 'Traceback' in other
    assert "KeyError: 'a fault'" in other
    assert main == 'Error: process 1 has ended with an error, which its own output shows.\n'


def test_processes_that_do_not_see_the_same_are_told_which(tmp_path):
    body = [
        "processes.check_same(['a.png'], '1 file', 'Never asked.')",
        "print('The first comparison passed.')",
        "processes.check_same(['a.png', 'b.png'][: 2 - index], f'{2 - index} files', 'Is one missing?')",
    ]
    codes, said = run_two(tmp_path, body)
    assert codes == [1, 1]
    for text in said:
        assert text.startswith('The first comparison passed.\n')
        found = re.search(r'Process 0: 2 files \(SHA-256 (\w+)\)\. Process 1: 1 files \(SHA-256 (\w+)\)\. Is one', text)
        assert found[1] != found[2]


def test_a_folder_that_the_processes_do_not_share_is_named(tmp_path):
    shared, not_shared = tmp_path / 'shared', f'{tmp_path}/of_{{index}}'
    body = [
        f"processes.check_shared_folder('{shared}', '--workdir')",
        "print('The first one is shared.')",
        f"processes.check_shared_folder(f'{not_shared}', '--workdir')",
    ]
    codes, said = run_two(tmp_path, body)
    assert codes == [1, 1]
    assert all(text.startswith('The first one is shared.\n') for text in said)
    assert all("of_0' a folder that all hosts share?" in text or "of_1' a folder" in text for text in said)
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize(
    ('message', 'is_lost'),
    [
        ('Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:1234', True),
        ('NCCL operation ncclAllReduce failed: remote process exited or there was a network error', True),
        ('Incompatible shapes for broadcasting: shapes=[(2,), (3,)]', False),
        ('could not convert string to float', False),
    ],
)
def test_only_an_error_of_the_transport_means_that_another_process_is_gone(monkeypatch, message, is_lost):
    monkeypatch.setattr(processes, 'process_count', lambda: 2)
    expected = 'Another process is gone: ' if is_lost else ''
    with pytest.raises(ValueError, match=f'^{re.escape(expected + message)}'), processes.explaining_lost_processes():
        raise ValueError(message)


def test_a_process_that_says_half_of_where_the_others_are_is_told_the_rest():
    with pytest.raises(UserError, match='--process_index together'):
        processes.connect(coordinator='localhost:1234', process_count=2)


def test_a_process_that_no_environment_knows_is_told_what_to_say():
    code = 'from draem_jax import processes; processes.connect()'
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    line = result.stderr.splitlines()[-1]
    assert 'UserError: This process cannot connect to the others: coordinator_address' in line
    assert '--coordinator=HOST:PORT --process_count=N --process_index=I' in line


def test_two_processes_stop_at_the_same_step_when_one_is_told_to(two):
    workdir, started = two
    assert started.exit_codes() == [42, 42], started.said()
    main, other = started.said()
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
    with Processes(tmp_path, 'train.py', *flags_of(config, workdir), '--heartbeat_timeout=10') as started:
        started.wait_for(workdir / 'checkpoints' / str(stopped_at + 2 - stopped_at % 2))
        started.send(1, signal.SIGKILL)
        code, of_killed = started.exit_codes(60)
    main = started.said()[0]
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


def test_two_processes_go_on_from_it_to_their_end(config, two, tmp_path):
    workdir, _ = two
    newest = checkpoints.list_steps(workdir)[-1]
    with Processes(tmp_path, 'train.py', *flags_of(config, workdir, steps=newest + 2)) as started:
        assert started.exit_codes() == [0, 0], started.said()
    main, other = started.said()
    assert f'Going on from step {newest}.' in main
    assert f'Done: step {newest + 2}.' in main
    assert 'step' not in other
    assert run_directory.finished_step(workdir) == newest + 2


def test_two_processes_evaluate_as_one_does(config, two, tmp_path):
    workdir, _ = two
    alone = evaluate.evaluate_checkpoint(str(workdir))
    with Processes(tmp_path, 'evaluate.py', f'--workdir={workdir}') as started:
        assert started.exit_codes() == [0, 0], started.said()
    together = json.loads((run_directory.evaluation_folder(workdir, alone['step']) / 'results.json').read_text())
    assert together['counts'] == alone['counts']
    for name, value in alone['metrics'].items():
        assert together['metrics'][name] == pytest.approx(value, abs=1e-4)
    assert 'metrics in percent' not in started.said()[1]
