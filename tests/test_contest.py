"""The benchmarks against PyTorch: they survive contenders that fail, clocks and signals, and say what they measured."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from benchmarks import contenders, rows, serving

ROOT = pathlib.Path(__file__).resolve().parent.parent
H100 = {'backend': 'gpu', 'kind': 'NVIDIA H100 80GB HBM3', 'capability': '9.0'}
T4 = {'backend': 'gpu', 'kind': 'Tesla T4', 'capability': '7.5'}
TPU = {'backend': 'tpu', 'kind': 'TPU v4', 'capability': ''}
CPU = {'backend': 'cpu', 'kind': 'cpu', 'capability': ''}


class Fakes:
    """Contests between processes that only say how fast they are (tests/fake_contest.py)."""

    def __init__(self, folder):
        self.log, self.out = folder / 'log', folder / 'out.json'
        self.log.touch()

    def start(self, *fakes, flags=(), **environment):
        """A contest in a process of its own."""
        return subprocess.Popen(
            [sys.executable, 'tests/fake_contest.py', *fakes, '--', '--repeats=4', f'--out={self.out}', *flags],
            cwd=ROOT,
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'FAKE_LOG': str(self.log), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *fakes, **options):
        """(exit code, what is printed, what is written) of a contest."""
        process = self.start(*fakes, **options)
        printed, _ = process.communicate(timeout=60)
        return process.returncode, printed, self.written()

    def written(self):
        return json.loads(self.out.read_text()) if self.out.exists() else None

    def rows(self):
        return {row['name']: row for each in self.written()['configurations'] for row in each['rows']}

    def living(self):
        """The process ids of contenders and of what they started that are still there, after a moment to die in."""
        words = self.log.read_text().replace(':', ' ').split()
        pids, end = {int(word) for word in words if word.isdecimal()}, time.monotonic() + 5
        while any(map(is_running, pids)) and time.monotonic() < end:
            time.sleep(0.02)
        return [pid for pid in pids if is_running(pid)]


def is_running(pid):
    """False too for a process that has ended and that nobody has asked for its exit code."""
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.fixture
def fakes(tmp_path):
    return Fakes(tmp_path)


def test_on_an_accelerator_whole_runs_take_turns_each_alone(fakes):
    code, _, _ = fakes.run('draem_jax a:0.01', 'PyTorch b:0.02', flags=['--batch=8'])
    order = [line.rsplit(' ', 1)[0] for line in fakes.log.read_text().splitlines()]
    one, two = ['start draem_jax a', 'end draem_jax a'], ['start PyTorch b', 'end PyTorch b']
    assert code == 0
    assert order == [*one, *two, *one, *two]
    assert {name: len(row['seconds']) for name, row in fakes.rows().items()} == {'draem_jax a': 4, 'PyTorch b': 4}


def test_out_of_memory_is_a_row_and_the_others_go_on(fakes):
    code, printed, _ = fakes.run('draem_jax a:memory', 'PyTorch b:0.02', flags=['--batch=8'])
    assert code == 0
    assert fakes.rows()['draem_jax a']['error'] == 'out of memory (16.00 GiB wanted)'
    assert fakes.rows()['PyTorch b']['median'] == 0.02
    assert 'out of memory (16.00 GiB wanted)' in printed


@pytest.mark.parametrize('turns', [0, 2])
def test_a_contender_that_dies_says_why_and_the_others_go_on(fakes, turns):
    fakes.run('draem_jax a:0.01', 'PyTorch b:dies', 'PyTorch c:0.03', flags=['--batch=8', f'--turns={turns}'])
    assert fakes.rows()['PyTorch b']['error'] == 'ended with exit code 1: I have no torch'
    assert fakes.rows()['PyTorch c']['median'] == 0.03


def test_a_contender_that_hangs_is_ended_and_the_others_go_on(fakes):
    flags = ['--batch=8', '--patience=0.02']
    fakes.run('draem_jax a:hangs', 'PyTorch b:0.02', flags=flags)
    assert fakes.rows()['draem_jax a']['error'] == 'no answer to "warm_up" within 0.02 minutes'
    assert fakes.rows()['PyTorch b']['median'] == 0.02
    assert fakes.living() == []


@pytest.mark.parametrize('turns', [0, 2])
def test_the_clock_ends_it_with_what_there_is(fakes, turns):
    flags = ['--batch=8,16', '--minutes=0.03', f'--turns={turns}']
    code, printed, written = fakes.run('draem_jax a:0.01', 'PyTorch b:hangs', flags=flags)
    assert (code, fakes.rows()['draem_jax a'].get('median')) == ((0, 0.01) if turns else (1, None))
    assert written['unfinished'] == [[256, 128, 64, 8], [256, 128, 64, 16]]
    assert '256 px, 128/64, batch 8; 256 px, 128/64, batch 16' in printed
    assert fakes.living() == []


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_rows_so_far_and_no_processes(fakes, number):
    process = fakes.start('draem_jax a:0.01', 'PyTorch b:hangs', flags=['--batch=8'])
    end = time.monotonic() + 30
    while 'helper' not in fakes.log.read_text() and time.monotonic() < end:
        time.sleep(0.02)
    while process.poll() is None and time.monotonic() < end:  # timeout(1) sends it more than once as well.
        process.send_signal(number)
        time.sleep(0.001)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert fakes.rows()['draem_jax a']['median'] == 0.01
    assert fakes.living() == []


@pytest.mark.parametrize(('loss', 'expected'), [('1.00005', 0), ('1.0002', 1), ('nan', 1)])
def test_a_failed_check_ends_with_1_and_keeps_the_rows(fakes, loss, expected):
    flags = ['--batch=8', '--check', '--pytorch=python']
    code, printed, written = fakes.run('draem_jax a:0.01', flags=flags, FAKE_LOSS=loss)
    assert code == expected
    assert fakes.rows()['draem_jax a']['median'] == 0.01
    assert bool(written['checks'][0]['error']) == bool(expected) == ('failed' in printed)


def test_a_check_without_pytorch_is_an_error_at_once(fakes):
    code, printed, written = fakes.run('draem_jax a:0.01', flags=['--check'])
    assert code == 2
    assert 'pass --pytorch as well' in printed
    assert written is None


def test_ratios_are_against_the_fastest_of_pytorch(fakes):
    fakes.run('draem_jax a:0.03', 'PyTorch b:0.04', 'PyTorch c:0.02', flags=['--batch=8'])
    assert {row['relative_to'] for row in fakes.rows().values()} == {'PyTorch c'}
    assert [row['relative'] for row in fakes.rows().values()] == pytest.approx([1.5, 2.0, 1.0])


def test_rows_count_three_forward_passes_a_training_step():
    entry = contenders.Entry('draem_jax bfloat16', 'bfloat16', [], facts={'forward_flops': 1e9, 'device': 'A100'})
    entry.seconds = [0.5, 0.2, 0.1]
    ceilings = {'bfloat16': {'matrix_tflops': 0.24}}
    (row,) = rows.make_rows([entry], 'train', 8, ceilings, are_paired=False)
    assert row['tflops'] == pytest.approx(3 * 8 * 1e9 / 0.2 / 1e12)
    assert row['images_per_second'] == pytest.approx(40)
    assert row['share_of_peak'] == pytest.approx(0.12 / 312)
    assert row['share_of_measured'] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ('dtype', 'setting', 'device', 'name'),
    [
        ('float32', None, CPU, 'float32'),
        ('float32', 'highest', CPU, 'float32'),
        ('float32', None, H100, 'tf32'),
        ('float32', 'default', H100, 'tf32'),
        ('float32', 'highest', H100, 'float32 highest'),
        ('float32', None, T4, 'float32 default'),
        ('float32', None, TPU, 'float32 default'),
        ('bfloat16', 'highest', H100, 'bfloat16'),
    ],
)
def test_precisions_are_named_by_what_the_device_computes(dtype, setting, device, name):
    assert contenders.name_precision(dtype, setting, device) == name


@pytest.mark.parametrize('named', [None, 'XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION'])
def test_a_fraction_of_the_memory_is_set_once(monkeypatch, named):
    flags = type('Flags', (), {'remat': False})
    for name in ('XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION'):
        monkeypatch.delenv(name, raising=False)
    if named:
        monkeypatch.setenv(named, '.5')
    environment = {**os.environ, **contenders.our_entry(flags, H100, 'bfloat16', 64, (4, 4), 8).environment}
    fractions = {name: value for name, value in environment.items() if name.endswith('MEM_FRACTION')}
    assert fractions == ({named: '.5'} if named else {'XLA_CLIENT_MEM_FRACTION': '.95'})


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (
            RuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.'),
            'out of memory (17179869184 bytes wanted)',
        ),
        (
            RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB'),
            'out of memory (2.00 GiB wanted)',
        ),
        (MemoryError('Unable to allocate 1.00 TiB for an array'), 'out of memory (1.00 TiB wanted)'),
        (MemoryError(), 'out of memory'),
        (ValueError('a\nb'), 'ValueError: a'),
        (KeyError(), 'KeyError: '),
    ],
)
def test_errors_become_one_line(error, line):
    assert serving.describe_error(error) == line


def test_later_losses_may_differ_more_than_the_first():
    ours = {'losses': [{'loss': 1.0}, {'loss': 1.0}], 'map_mean': 1.0}
    for first, later, mean, what in [(1, 1.005, 1, None), (1.005, 1, 1, 'step 1'), (1, 1, 1.1, 'map'), (1, 2, 1, '2')]:
        theirs = {'losses': [{'loss': first}, {'loss': later}], 'map_mean': mean}
        _, error = rows.compare_losses(ours, theirs)
        assert (what in error) if what else error is None
    _, error = rows.compare_losses(ours, {**ours, 'map_mean': math.nan})
    assert 'map' in error
