"""One training in a directory at a time, and a dead one keeps nobody out."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from draem_jax import run_lock
from draem_jax.errors import UserError

HOLDER = """
import sys, time
from draem_jax import run_lock
with run_lock.hold(sys.argv[1]):
    print('held', flush=True)
    time.sleep(600)
"""


def test_a_second_training_is_told_who_is_there_and_changes_nothing(tmp_path):
    with run_lock.hold(tmp_path):
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(UserError) as caught, run_lock.hold(tmp_path):
            pytest.fail('Two hold the lock.')
        assert f"'{tmp_path}': process {os.getpid()} on {socket.gethostname()} holds" in str(caught.value)
        assert '\n' not in str(caught.value)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with run_lock.hold(tmp_path):
        pass


def test_nothing_is_left_and_what_was_there_stays(tmp_path):
    with run_lock.hold(tmp_path / 'runs' / 'new'):
        assert [path.name for path in (tmp_path / 'runs' / 'new').iterdir()] == [run_lock.FILE]
    assert list(tmp_path.iterdir()) == []
    with run_lock.hold(tmp_path / 'runs' / 'new'):
        (tmp_path / 'runs' / 'new' / 'config.json').touch()
    assert [path.name for path in tmp_path.rglob('*')] == ['runs', 'new', 'config.json']


def test_a_process_that_is_killed_gives_the_lock_back_at_once(tmp_path):
    holder = subprocess.Popen([sys.executable, '-c', HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b'held\n'
        with pytest.raises(UserError, match=f'process {holder.pid} on '), run_lock.hold(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert (tmp_path / run_lock.FILE).exists()
        with run_lock.hold(tmp_path):
            assert (tmp_path / run_lock.FILE).read_text().split() == [socket.gethostname(), str(os.getpid())]
    finally:
        holder.kill()
        holder.communicate()


def test_a_lock_whose_file_was_just_removed_is_taken_anew(tmp_path, monkeypatch):
    real, calls = fcntl.flock, []

    def flock(file, operation):
        if not calls:  # Between the opening and the locking, the one before leaves.
            (tmp_path / run_lock.FILE).unlink()
        calls.append(operation)
        real(file, operation)

    monkeypatch.setattr(run_lock.fcntl, 'flock', flock)
    with run_lock.hold(tmp_path):
        assert (tmp_path / run_lock.FILE).exists()
        with pytest.raises(UserError, match='A training is under way'), run_lock.hold(tmp_path):
            pass


@pytest.mark.parametrize(
    ('content', 'is_held'),
    [
        ('{here} {parent}', True),
        ('{here} {own}', False),
        ('{here} 999999999', False),
        ('elsewhere {parent}', False),
        ('\x00', False),
        ('', False),
    ],
)
def test_without_locks_a_living_process_of_this_machine_counts(tmp_path, monkeypatch, content, is_held):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_lock.fcntl, 'flock', flock)
    text = content.format(here=socket.gethostname(), parent=os.getppid(), own=os.getpid())
    (tmp_path / run_lock.FILE).write_text(text)
    if not is_held:
        with run_lock.hold(tmp_path):
            return
    with pytest.raises(UserError, match='delete the file if that process is no training'), run_lock.hold(tmp_path):
        pass
    assert (tmp_path / run_lock.FILE).read_text() == text


@pytest.mark.parametrize('below', ['', 'runs/new'])
def test_a_workdir_that_is_a_file_is_named(tmp_path, below):
    (tmp_path / 'photo.png').write_text('a file')
    workdir = tmp_path / 'photo.png' / below
    with pytest.raises(UserError, match=r"--workdir '.*photo\.png.* is a file"), run_lock.hold(workdir):
        pass
    assert (tmp_path / 'photo.png').read_text() == 'a file'
