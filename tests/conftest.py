"""Every test: CPU with four virtual devices, strict dtypes and ranks, a compilation cache that stays; a small disk."""

import os
import pathlib
import shutil
import subprocess

import pytest

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=4'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('JAX_NUMPY_DTYPE_PROMOTION', 'strict')
os.environ.setdefault('JAX_NUMPY_RANK_PROMOTION', 'raise')
os.environ.setdefault(
    'JAX_COMPILATION_CACHE_DIR', str(pathlib.Path(__file__).resolve().parent.parent / '.cache' / 'jax')
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
# LLVM then takes half the time to compile, and what is compiled here runs for moments.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')


@pytest.fixture
def small_disk(tmp_path):
    """An empty folder with room for 256 KiB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', str(folder)]
    if os.geteuid() or not shutil.which('mount') or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip('A small disk takes root, on Linux.')
    yield folder
    subprocess.run(['umount', '--lazy', str(folder)], check=True)
