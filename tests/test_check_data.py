"""The tool that reads a data set through: its lines, its exit code, and that it writes nothing."""

import pathlib
import shutil
import subprocess
import sys

import pytest
from trees import draw_tree

import data
from configs import folder
from data import inspection
from draem_jax.errors import UserError
from tools import check_data

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture
def root(tmp_path):
    return draw_tree(tmp_path / 'part', train=3, good=2, scratched=2)


def test_description_lists_so_many_of_a_kind_and_counts_the_others(root):
    for k in range(3):
        (root / f'train/good/00{k}.png').write_bytes(b'')
    report = inspection.check(data.make_builder('folder', root=str(root)))
    lines = check_data.describe(report, limit=2).splitlines()
    assert sum('is empty' in line for line in lines) == 2
    assert 'error, unreadable file: ... and 1 more' in lines
    assert lines[-1] == '3 error(s), 0 warning(s).'
    assert 'test   scratch           2      2' in lines


def test_a_value_that_makes_no_sense_is_named_before_anything_is_read(root):
    config = folder.get_config()
    config.dataset.root, config.dataset.image_size = str(root), (32,)
    with pytest.raises(UserError, match=r'dataset\.image_size=.*expected \(height, width\)'):
        check_data.check_data(config)


def call(*arguments):
    script = [sys.executable, 'tools/check_data.py', '--config=configs/folder.py', *arguments]
    return subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_tool_exits_with_0_for_warnings_and_1_for_errors_and_writes_nothing(root):
    (root / 'test/good/000.png').rename(root / 'test/good/again.png')
    shutil.copy(root / 'test/good/001.png', root / 'test/good/again.png')
    before = sorted(root.rglob('*'))
    result = call(f'--config.dataset.root={root}')
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout.endswith('0 error(s), 1 warning(s).\n')
    (root / 'train/good/000.png').write_bytes(b'')
    result = call(f'--config.dataset.root={root}')
    assert (result.returncode, result.stderr) == (1, '')
    assert 'train/good/000.png' in result.stdout
    assert sorted(root.rglob('*')) == before


def test_the_tool_says_in_one_line_what_it_cannot_even_list(tmp_path):
    result = call(f'--config.dataset.root={tmp_path / "nowhere"}')
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: No folder '")
