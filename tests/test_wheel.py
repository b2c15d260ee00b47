"""The wheel: every file of the folder draem_jax and no other."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

pytest.importorskip('setuptools', minversion='77', reason='pyproject.toml takes setuptools 77 or newer.')


def test_the_wheel_holds_every_module_and_template_of_draem_jax_and_no_other_file(tmp_path):
    source = tmp_path / 'source'
    source.mkdir()
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    # The other packages of the repository are there to be left out.
    for package in ('commands', 'configs', 'data', 'draem_jax'):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns('__pycache__'))
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, '-c', build], cwd=source, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if '.dist-info/' not in name}
    files = (ROOT / 'draem_jax').rglob('*')
    expected = {
        path.relative_to(ROOT).as_posix() for path in files if path.is_file() and '__pycache__' not in path.parts
    }
    assert shipped == expected
    assert {'draem_jax/py.typed', 'draem_jax/evaluation/templates/report.html'} <= shipped
