"""The scripts from outside: exit codes, and one line on stderr for a mistake."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

from commands import command_line
from configs import small_cpu
from draem_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUICKSTART = '--config=configs/quickstart.py'

# A script as train.py is, without the seconds that TensorFlow and JAX take to load.
SCRIPT = """
from absl import flags
from commands import command_line
from draem_jax.errors import Diverged, Preempted, UserError

def main():
    command_line.folder('workdir')
    if flags.FLAGS.workdir == 'wrong':
        raise UserError("'wrong' is no directory.")
    if flags.FLAGS.workdir == 'two lines':
        raise UserError("'two\\nlines' is no directory.")
    if flags.FLAGS.workdir == 'unreadable':
        raise PermissionError(13, 'Permission denied', '/run/config.json')
    if flags.FLAGS.workdir == 'bug':
        raise RuntimeError('not the fault of the user')
    if flags.FLAGS.workdir == 'preempted':
        raise Preempted('Stopped at step 7.')
    if flags.FLAGS.workdir == 'diverged':
        raise Diverged('Diverged at step 7.')
    print(flags.FLAGS.config.training.batch_size, flags.FLAGS.config.dataset.category)

command_line.define_config_file()
flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
command_line.main(main)
"""

HOSTS_SCRIPT = """
from commands import command_line

command_line.define_hosts()
command_line.main(lambda: print(command_line.hosts()))
"""


def call(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def assert_one_line(result, *parts):
    assert result.returncode == 1, result
    (line,) = result.stderr.splitlines()
    assert line.startswith('Error: ')
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ('arguments', 'parts'),
    [
        ([QUICKSTART, '--workdir=run', '--config.training.batchsize=4'], ['config.training.batchsize', 'batch_size']),
        ([QUICKSTART, '--workdir=run', '--config.trainer.steps=4'], ['config.trainer', 'training']),
        ([QUICKSTART, '--workdir=run', '--config.training=4'], ['config.training']),
        ([QUICKSTART, '--workdir=run', '--config.training.batch_size=many'], ['config.training.batch_size', 'many']),
        ([QUICKSTART, '--workdir=run', '--config.training.batch_size=2.5'], ['config.training.batch_size', '2.5']),
        ([QUICKSTART, '--workdir=run', '--confg.training.steps=4'], ['confg']),
        ([QUICKSTART, '--workdir=run', '--steps=4'], ['steps']),
        ([QUICKSTART, '--workdir=run', 'extra'], ['extra']),
        ([QUICKSTART], ['--workdir']),
        (['--config=configs/quickstrat.py', '--workdir=run'], ['configs/quickstrat.py']),
        (['--config=configs', '--workdir=run'], ['configs']),
        (['--config=configs/__init__.py', '--workdir=run'], ['get_config']),
        (['--config=configs/default.py:papper', '--workdir=run'], ['papper', 'official, paper']),
        ([QUICKSTART, '--workdir=wrong'], ["'wrong' is no directory."]),
        ([QUICKSTART, '--workdir=two lines'], ["'two?lines' is no directory."]),
        ([QUICKSTART, '--workdir=unreadable'], ["Permission denied: '/run/config.json'."]),
        ([QUICKSTART, '--workdir=gs://bucket/run'], ["--workdir='gs://bucket/run': expected a path on this machine"]),
        ([QUICKSTART, '--workdir='], ['--workdir is empty']),
        ([QUICKSTART, '--workdir=run', f'--config.optimizer.decay_at={"-" * 9999}1'], ['is nested too deeply']),
    ],
    ids=lambda value: ' '.join(value)[:200] if isinstance(value[0], str) and value[0].startswith('--') else '',
)
def test_a_mistake_is_one_line_and_exit_code_1(arguments, parts):
    result = call('-c', SCRIPT, *arguments)
    assert_one_line(result, *parts)
    assert result.stdout == ''


def test_flags_reach_the_config():
    for arguments in (['--config.training.batch_size=4'], ['--config.training.batch_size', '4']):
        result = call('-c', SCRIPT, f'{QUICKSTART}:wood', '--workdir=run', *arguments)
        assert (result.returncode, result.stdout, result.stderr) == (0, '4 wood\n', '')


@pytest.mark.parametrize(
    ('value', 'files'),
    [
        ('a.py', ['a.py']),
        ('a.py,b.py', ['a.py', 'b.py']),
        ('a.py:screw,b.py,c.py:x', ['a.py:screw', 'b.py', 'c.py:x']),
        ('c/a.py:colours,screw,c/a.py:full,screw', ['c/a.py:colours,screw', 'c/a.py:full,screw']),
        ('a.py:x, b.py:y', ['a.py:x', 'b.py:y']),
        ('a.py:x,b.py,a.py:x', ['a.py:x', 'b.py']),
        ('a.py:b.pyx,c', ['a.py:b.pyx,c']),
        ('a.py,', ['a.py,']),
    ],
)
def test_only_a_comma_before_a_file_parts_two_configs(value, files):
    assert command_line.split_files(value) == files


FILES_SCRIPT = """
from absl import flags
from commands import command_line
def main():
    print(command_line.config_files())
    print(command_line.changes())
    print(flags.FLAGS.config and flags.FLAGS.config.dataset.category)
command_line.define_config_file(takes_several=True)
command_line.main(main)
"""


@pytest.mark.parametrize('words', [['--config=F'], ['--config', 'F']])
def test_several_configs_are_listed_and_the_first_one_tells_the_types(words):
    files = ['configs/ablations.py:colours,bottle', 'configs/quickstart.py']
    words = [word.replace('F', ','.join(files)) for word in words]
    result = call('-c', FILES_SCRIPT, *words, '--config.optimizer.decay_at', '(0.5,)', '--config.training.steps=4')
    assert (result.returncode, result.stderr) == (0, '')
    listed, changes, category = result.stdout.splitlines()
    assert ast.literal_eval(listed) == files
    assert ast.literal_eval(changes) == {'optimizer.decay_at': (0.5,), 'training.steps': 4}
    assert category == 'bottle'


def test_without_a_config_no_files_are_listed():
    result = call('-c', FILES_SCRIPT)
    assert (result.returncode, result.stdout, result.stderr) == (0, '[]\n{}\nNone\n', '')


def test_a_loaded_config_is_the_files_own_with_the_values_given():
    arguments = ['--config.optimizer.decay_at=()', '--config.dataset.root=a b', '--config.model.remat=True']
    config = command_line.load_config([f'--config={ROOT}/configs/small_cpu.py:authors64', *arguments])
    expected = small_cpu.get_config('authors64')
    expected.optimizer.decay_at, expected.dataset.root, expected.model.remat = (), 'a b', True
    assert config.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ('file', 'change', 'message'),
    [
        ('configs/quickstrat.py', 'training.steps=4', r'No such file .*quickstrat\.py'),
        ('configs/ablations.py:nonsense', 'training.steps=4', 'ablations.py:nonsense: expected one of'),
        ('configs/__init__.py', 'training.steps=4', "no attribute 'get_config'"),
        ('configs/default.py', 'training.steps=many', 'training.steps=many'),
        ('configs/default.py', 'training.step=4', 'step'),
    ],
)
def test_a_config_that_cannot_be_loaded_is_one_line(file, change, message):
    command_line.load_config([f'--config={ROOT}/configs/quickstart.py'])  # Nothing of it is left for the next.
    with pytest.raises(UserError, match=message) as caught:
        command_line.load_config([f'--config={ROOT}/{file}', f'--config.{change}'])
    assert len(str(caught.value).splitlines()) == 1


TUPLES_SCRIPT = """
from absl import flags
from commands import command_line
def main():
    config = flags.FLAGS.config
    print(config.optimizer.decay_at, config.synthesis.operations, config.dataset.root)
    print(command_line.changes())
command_line.define_config_{kind}()
command_line.main(main)
"""


@pytest.mark.parametrize(('kind', 'arguments'), [('file', [QUICKSTART]), ('overrides', [])])
def test_of_a_tuple_given_twice_the_last_one_counts(kind, arguments):
    arguments += ['--config.optimizer.decay_at=(0.5,)', '--config.synthesis.operations', "('rotate',)"]
    arguments += [
        '--config.dataset.root=a',
        '-config.optimizer.decay_at',
        '(0.6,)',
        '--config.optimizer.decay_at=(0.7,)',
    ]
    arguments += ['--config.synthesis.operations', "('invert', 'gamma')", '--config.dataset.root=b']
    result = call('-c', TUPLES_SCRIPT.format(kind=kind), *arguments)
    assert (result.returncode, result.stderr) == (0, '')
    values, changes = result.stdout.splitlines()
    assert values == "(0.7,) ('invert', 'gamma') b"
    expected = {'optimizer.decay_at': (0.7,), 'synthesis.operations': ('invert', 'gamma'), 'dataset.root': 'b'}
    assert ast.literal_eval(changes) == expected


def test_a_workdir_may_begin_with_the_home_folder(tmp_path):
    script = SCRIPT.replace("command_line.folder('workdir')", "print(command_line.folder('workdir'))")
    environment = {**os.environ, 'HOME': str(tmp_path)}
    command = [sys.executable, '-c', script, QUICKSTART, '--workdir=~/runs/x']
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout.splitlines()[0] == str(tmp_path / 'runs' / 'x')


def test_a_pipe_that_nobody_reads_and_a_narrow_encoding_end_no_script():
    body = "def main():\n    print('n\u00fc\u4e2d' * 9)\n    [print('line', flush=True) for _ in range(999)]"
    script = SCRIPT.replace('def main():', f'{body}\n    print("The end.", file=__import__("sys").stderr)')
    environment = {**os.environ, 'PYTHONIOENCODING': 'cp1252'}
    command = [sys.executable, '-c', script, QUICKSTART, '--workdir=run']
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().decode('cp1252') == 'n\u00fc?' * 9 + '\n'
    process.stdout.close()
    assert process.stderr.read() == b'The end.\n'
    process.stderr.close()
    assert process.wait() == 0


def test_arguments_reach_a_script_that_takes_them_wherever_they_stand():
    script = SCRIPT.replace('def main():', 'def main(arguments):\n    print(arguments)')
    script = script.replace('main(main)', 'main(main, takes_arguments=True)')
    result = call('-c', script, 'a.png', QUICKSTART, 'b c.png', '--workdir=run', '--', '--c.png', '-d.png')
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout.splitlines()[0] == "['a.png', 'b c.png', '--c.png', '-d.png']"


def test_being_asked_to_stop_and_diverging_have_exit_codes_of_their_own_and_one_line():
    stopped = call('-c', SCRIPT, QUICKSTART, '--workdir=preempted')
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (42, 'Stopped at step 7.\n', '')
    diverged = call('-c', SCRIPT, QUICKSTART, '--workdir=diverged')
    assert (diverged.returncode, diverged.stdout, diverged.stderr) == (3, '', 'Error: Diverged at step 7.\n')


def test_a_bug_keeps_its_traceback():
    result = call('-c', SCRIPT, QUICKSTART, '--workdir=bug')
    assert result.returncode not in (0, 42)
    assert 'Traceback' in result.stderr


def test_help_explains_the_flags_and_is_no_mistake():
    result = call('-c', SCRIPT, '--help')
    assert (result.returncode, result.stderr) == (0, '')
    for flag in ('--config', '--workdir'):
        assert flag in result.stdout


def test_train_names_an_unknown_config_field(tmp_path):
    result = call('train.py', QUICKSTART, f'--workdir={tmp_path}', '--config.training.batchsize=4')
    assert_one_line(result, 'config.training.batchsize')


@pytest.mark.parametrize('before', [[], ['a word'], ['--']])
def test_an_unknown_change_of_a_runs_config_is_named(monkeypatch, capsys, before):
    monkeypatch.setattr(sys, 'argv', ['evaluate.py', '--workdir=run', *before, '--config.model.width=4'])
    with pytest.raises(SystemExit) as caught:
        command_line.define_config_overrides()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith('Error: Unknown field config.model.width. Known: ')


def test_evaluate_names_a_directory_that_holds_no_run(tmp_path):
    assert_one_line(call('evaluate.py', f'--workdir={tmp_path}'), str(tmp_path))


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ([], None),
        (['--heartbeat_timeout=7'], None),
        (['--distributed'], (None, None, None, 100)),
        (['--distributed', '--heartbeat_timeout=7'], (None, None, None, 7)),
        (['--coordinator=host:1', '--process_count=2', '--process_index=0'], ('host:1', 2, 0, 100)),
    ],
)
def test_several_processes_are_asked_for_by_flag(arguments, expected):
    names = ('coordinator', 'process_count', 'process_index', 'heartbeat_timeout_seconds')
    result = call('-c', HOSTS_SCRIPT, *arguments)
    assert result.returncode == 0, result
    assert ast.literal_eval(result.stdout) == (expected and dict(zip(names, expected, strict=True)))
