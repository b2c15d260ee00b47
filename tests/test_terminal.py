"""Text for a terminal: columns that line up, names that stay in their line, output that ends no script."""

import os
import pathlib
import subprocess
import sys

import pytest

from draem_jax.terminal import align, printable

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_the_first_column_is_flush_left_and_the_others_are_flush_right():
    assert align([('', 'count'), ('scratch', '7'), ('dent', '12')]) == [
        '         count',
        'scratch      7',
        'dent        12',
    ]


def test_no_line_ends_in_spaces():
    assert align([('a', ''), ('long', 'name')], left=2) == ['a', 'long  name']


def test_a_wider_gap_sets_columns_apart():
    assert align([('a', 'b', 'c')], separator=' | ', wide_before=(2,)) == ['a | b |  c']


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match='zip'):
        align([('a', 'b'), ('c',)])


@pytest.mark.parametrize(
    ('name', 'shown'),
    [('größe 1.png', 'größe 1.png'), ('line\nbreak\u2028', 'line?break?'), ('\udcff\x1b[2J', '??[2J')],
)
def test_what_cannot_be_printed_becomes_a_question_mark(name, shown):
    assert printable(name) == shown


def run(code, *arguments, **options):
    """What a Python process with forgiving output does; it imports nothing heavy."""
    code = f'import sys\nfrom draem_jax.terminal import make_forgiving\nmake_forgiving()\n{code}'
    streams = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, **options}
    return subprocess.run([sys.executable, '-c', code, *arguments], cwd=ROOT, check=False, **streams)


def test_what_an_encoding_lacks_becomes_a_question_mark_and_the_rest_is_printed():
    environment = {**os.environ, 'PYTHONIOENCODING': 'cp1252', 'PYTHONUTF8': '0'}
    code = "print('größe 测试 \\udcff'); print('测', file=sys.stderr); print('after')"
    result = run(code, env=environment)
    assert result.stdout.decode('cp1252').splitlines() == ['größe ?? ?', 'after']
    assert (result.stderr.decode().splitlines(), result.returncode) == (['?'], 0)


@pytest.mark.parametrize('closed', ['stdout', 'stderr'])
def test_a_pipe_that_nobody_reads_ends_nothing(closed, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    code = f'for _ in range(10000):\n    print("line", file=sys.{closed})\nsys.{closed}.flush()\n'
    code += 'open(sys.argv[1], "w").write("done"); sys.exit(5)'
    with open(writing, 'wb') as pipe:
        result = run(code, tmp_path / 'done', **{closed: pipe})
    assert (tmp_path / 'done').read_text() == 'done'
    assert result.returncode == 5  # Not 120, with which Python ends if it cannot flush stdout.
    assert not result.stdout
    assert not result.stderr


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='/dev/full is of Linux.')
def test_stdout_on_a_full_disk_is_said_once_and_ends_nothing():
    with open('/dev/full', 'wb') as full:
        result = run('for _ in range(3):\n    print("line", flush=True)\nsys.exit(5)', stdout=full)
    assert result.returncode == 5
    (line,) = result.stderr.decode().splitlines()
    assert line == 'Warning: cannot write to <stdout>: No space left on device. The work goes on.'


def test_a_forgiving_stream_is_otherwise_the_stream_itself():
    code = 'make_forgiving()\nprint(sys.stdout.fileno(), sys.stdout.isatty(), sys.stdout.encoding, sep="|")'
    code += '\nsys.stdout.writelines(["a", "b"])'
    result = run(code, env={**os.environ, 'PYTHONIOENCODING': 'utf-8'})
    assert (result.stdout, result.stderr) == (b'1|False|utf-8\nab', b'')
