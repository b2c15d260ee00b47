"""Checkpoints: written in the background; damaged, of other shapes, of an earlier version; without room on the disk."""

import asyncio
import collections
import errno
import gc
import itertools
import os
import shutil
import sys
import threading

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import tensorstore
from trees import fill_disk

from draem_jax import checkpoints, run_directory
from draem_jax.errors import UserError
from draem_jax.training.state import init_state, restore_newest_state, restore_state, save_state


def make_state(step, width=8):
    """A state with the leaves that a training has, other numbers at each step; 0-d, empty and bfloat16 among them."""
    random = np.random.default_rng(step)
    params = {
        'kernel': random.normal(size=(3, 3, 4, width)).astype(np.float32),
        'half': random.normal(size=(width,)).astype(jax.numpy.bfloat16),
    }
    stats = {'norm': {'mean': random.normal(size=(width,)).astype(np.float32)}}
    state = init_state({'params': params, 'batch_stats': stats}, optax.adam(1e-4))
    moments = jax.tree.map(lambda leaf: (leaf + step).astype(leaf.dtype), state.opt_state)
    return state.replace(step=np.int32(step), opt_state=moments)


TEMPLATE = make_state(0)
VARIABLES = {'params': TEMPLATE.params, 'batch_stats': TEMPLATE.batch_stats}


def assert_is_of_step(state, step):
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(make_state(step)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('saved')
    with checkpoints.open_checkpoints(workdir) as manager:
        for step in (2, 4):
            save_state(manager, make_state(step))
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    """The directory of a run with checkpoints of steps 2 and 4, to be damaged."""
    shutil.copytree(saved, tmp_path / 'run')
    return tmp_path / 'run'


@pytest.fixture(autouse=True)
def leftovers_collected():
    """Each test collects what it leaves. Orbax's reads of damaged checkpoints would complain in the tests after it."""
    yield
    gc.collect()


@pytest.fixture
def hashing(monkeypatch):
    """An event that all hashing waits for, so that a checkpoint stays pending until a test sets it."""
    may_go_on = threading.Event()
    content_hash = checkpoints.content_hash

    def wait_and_hash(tree):
        assert may_go_on.wait(timeout=60)
        return content_hash(tree)

    monkeypatch.setattr(checkpoints, 'content_hash', wait_and_hash)
    yield may_go_on
    may_go_on.set()


def resume(workdir):
    with checkpoints.open_checkpoints(workdir) as manager:
        return restore_newest_state(manager, TEMPLATE)


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 16
    path.write_bytes(content)


def largest_file(folder):
    return max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)


def flip_in_the_middle(folder):
    path = largest_file(folder)
    flip(path, path.stat().st_size // 2)


def truncate(folder):
    path = largest_file(folder)
    os.truncate(path, path.stat().st_size // 2)


def change_a_number(folder):
    """Stores another number, and correctly, so that no checksum of the storage can notice it."""
    state = make_state(4)
    state.params['kernel'][0, 0, 0, 0] += 1
    shutil.rmtree(folder)
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, variables)


def test_what_was_saved_comes_back_bit_for_bit(workdir):
    assert_is_of_step(resume(workdir), 4)
    step, variables = checkpoints.restore_variables(workdir, VARIABLES)
    assert step == 4
    np.testing.assert_array_equal(variables['params']['kernel'], make_state(4).params['kernel'])
    assert checkpoints.restore_variables(workdir, VARIABLES, 2)[0] == 2


def test_orbax_alone_reads_a_checkpoint_and_its_hashes_are_those_of_the_arrays(saved):
    with ocp.CheckpointManager(saved / 'checkpoints') as manager:
        items = manager.restore(4)
    state = make_state(4)
    np.testing.assert_array_equal(items['variables']['params']['kernel'], state.params['kernel'])
    np.testing.assert_array_equal(items['progress']['opt_state'][0]['mu']['kernel'], state.opt_state[0].mu['kernel'])
    assert items['hashes'] == {
        'algorithm': 'sha256',
        'variables': checkpoints.content_hash(state.variables),
        'progress': checkpoints.content_hash({'step': state.step, 'opt_state': state.opt_state}),
    }


def test_a_checkpoint_holds_the_state_of_its_save_though_updates_take_its_memory_at_once(tmp_path, hashing):
    update = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state, expected = jax.device_put(make_state(0)), {}
    with checkpoints.open_checkpoints(tmp_path) as manager:
        for step in (1, 4):
            state = update(state)
            expected[step] = jax.tree.map(np.array, state)
            hashing.clear()
            save_state(manager, state)
            for _ in range(2):
                state = jax.block_until_ready(update(state))
            hashing.set()
            manager.wait_until_finished()
        for step, saved in expected.items():
            restored = restore_state(manager, TEMPLATE, step)
            jax.tree.map(np.testing.assert_array_equal, restored.variables, saved.variables)
            jax.tree.map(np.testing.assert_array_equal, restored.opt_state, saved.opt_state)


def test_arrays_of_numpy_may_change_as_soon_as_a_save_returns(tmp_path, hashing):
    state = make_state(2)
    with checkpoints.open_checkpoints(tmp_path) as manager:
        save_state(manager, state)
        for leaf in jax.tree.leaves(state.params):
            leaf += 1
        hashing.set()
    assert_is_of_step(resume(tmp_path), 2)


def test_a_save_returns_before_the_checkpoint_is_written_and_leaving_the_block_waits_for_it(tmp_path, hashing):
    with checkpoints.open_checkpoints(tmp_path) as manager:
        save_state(manager, make_state(2))
        assert checkpoints.list_steps(tmp_path) == []
        threading.Timer(0.2, hashing.set).start()
    assert checkpoints.list_steps(tmp_path) == [2]


def test_a_save_waits_for_the_one_before_it(tmp_path, hashing):
    with checkpoints.open_checkpoints(tmp_path) as manager:
        save_state(manager, make_state(2))
        threading.Timer(0.2, hashing.set).start()
        save_state(manager, make_state(4))
        assert 2 in checkpoints.list_steps(tmp_path)
    assert checkpoints.list_steps(tmp_path) == [2, 4]


@pytest.mark.parametrize('saves_again', [True, False])
def test_an_error_in_the_background_is_raised_by_the_next_save_or_on_leaving(workdir, monkeypatch, saves_again):
    def fail(tree):
        raise OSError('no hash')

    later = []
    with (  # noqa: PT012
        pytest.raises(OSError, match='no hash'),
        checkpoints.open_checkpoints(workdir) as manager,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, 'content_hash', fail)
            save_state(manager, make_state(6))
            for thread in threading.enumerate():
                if thread.name == 'hashes':
                    threading.Thread.join(thread)
        if saves_again:
            save_state(manager, make_state(8))
        later.append('after the next save')
    assert later == ([] if saves_again else ['after the next save'])
    assert checkpoints.list_steps(workdir) == [2, 4]
    assert_is_of_step(resume(workdir), 4)


@pytest.mark.parametrize('damage', [flip_in_the_middle, truncate, change_a_number])
def test_a_damaged_newest_checkpoint_is_named_and_the_next_older_one_taken(workdir, damage, capfd):
    damage(workdir / 'checkpoints' / '4' / 'variables')
    step, variables = checkpoints.restore_variables(workdir, VARIABLES)
    assert step == 2
    np.testing.assert_array_equal(variables['params']['kernel'], make_state(2).params['kernel'])
    (line,) = capfd.readouterr().err.splitlines()
    assert f"step 4 in '{workdir}' is damaged" in line
    assert line.endswith('Step 2 is taken instead.')
    with pytest.raises(UserError, match=r'step 4 in .* is damaged') as caught:
        checkpoints.restore_variables(workdir, VARIABLES, 4)
    assert '\n' not in str(caught.value)


def test_steps_after_a_damaged_one_are_saved_at_once(workdir):
    truncate(workdir / 'checkpoints' / '4' / 'variables')
    with checkpoints.open_checkpoints(workdir) as manager:
        restore_newest_state(manager, TEMPLATE)
        for step in (3, 4):
            save_state(manager, make_state(step))
    assert checkpoints.list_steps(workdir) == [2, 3, 4]
    assert_is_of_step(resume(workdir), 4)


@pytest.mark.parametrize('damage', [flip_in_the_middle, truncate])
@pytest.mark.parametrize('item', ['variables', 'progress'])
def test_a_training_goes_on_from_the_next_older_one_and_saves_the_damaged_step_anew(workdir, damage, item, capfd):
    damage(workdir / 'checkpoints' / '4' / item)
    for time in (1, 2):
        assert_is_of_step(resume(workdir), 2)
        (line,) = capfd.readouterr().err.splitlines()
        assert f"step 4 in '{workdir}' is damaged" in line
        assert 'step 2 taken' in line
        assert len(list((workdir / 'damaged').iterdir())) == time  # Nothing is deleted.
        with checkpoints.open_checkpoints(workdir) as manager:
            save_state(manager, make_state(4))
        assert_is_of_step(resume(workdir), 4)
        assert not capfd.readouterr().err
        damage(workdir / 'checkpoints' / '4' / item)


def test_wherever_a_byte_is_flipped_or_a_file_cut_only_what_was_saved_is_restored(workdir):
    newest = workdir / 'checkpoints' / '4'
    files = [path for path in newest.rglob('*') if path.is_file() and path.stat().st_size]
    random, restored = np.random.default_rng(0), []
    for path in files:
        content = path.read_bytes()
        for position in random.integers(len(content), size=3):
            flip(path, position)
            restored.append(checkpoints.restore_variables(workdir, VARIABLES))
            path.write_bytes(content)
        os.truncate(path, len(content) // 2)
        restored.append(checkpoints.restore_variables(workdir, VARIABLES))
        path.write_bytes(content)
    assert {step for step, _ in restored} == {2, 4}
    for step, variables in restored:
        expected = make_state(step)
        for name in ('kernel', 'half'):
            np.testing.assert_array_equal(variables['params'][name], expected.params[name])
        np.testing.assert_array_equal(variables['batch_stats']['norm']['mean'], expected.batch_stats['norm']['mean'])


def test_where_all_are_damaged_nothing_is_moved_and_the_folder_is_named(workdir):
    for step in ('2', '4'):
        flip_in_the_middle(workdir / 'checkpoints' / step / 'variables')
    for restore in (resume, lambda workdir: checkpoints.restore_variables(workdir, VARIABLES)):
        with pytest.raises(UserError, match='No other is intact') as caught:
            restore(workdir)
        assert str(workdir / 'checkpoints') in str(caught.value)
    assert checkpoints.list_steps(workdir) == [2, 4]


def test_networks_of_another_width_are_no_damage_and_both_widths_are_named(workdir):
    wider = make_state(0, width=16)
    variables = {'params': wider.params, 'batch_stats': wider.batch_stats}
    for restore in (
        lambda: checkpoints.restore_variables(workdir, variables),
        lambda: restore_newest_state(checkpoints.open_checkpoints(workdir), wider),
    ):
        with pytest.raises(UserError, match='does not fit') as caught:
            restore()
        message = str(caught.value)
        assert "'batch_stats/norm/mean' is float32 [8] in the checkpoint and float32 [16] in the config" in message
        assert '\n' not in message
    assert checkpoints.list_steps(workdir) == [2, 4]


def test_a_checkpoint_of_an_earlier_version_is_restored_and_said_to_be_unchecked(workdir, capfd):
    shutil.rmtree(workdir / 'checkpoints' / '4' / 'hashes')
    assert_is_of_step(resume(workdir), 4)
    (line,) = capfd.readouterr().err.splitlines()
    assert 'step 4' in line
    assert 'could not be checked' in line


def test_the_hash_differs_where_a_path_a_shape_a_dtype_or_a_byte_does():
    number = np.arange(6, dtype=np.float32)
    trees = [
        {'a': number},
        {'b': number},
        {'a': number.reshape(2, 3)},
        {'a': number.view(np.int32)},
        {'a': np.nextafter(number, np.float32(1))},
        {'a': number[:3], 'b': number[3:]},
        {'a': number[:2], 'b': number[2:]},
        {'a': number[0]},
        {'a': number[:1]},
        {'a': number[:0]},
    ]
    assert len({checkpoints.content_hash(tree) for tree in trees}) == len(trees)
    assert checkpoints.content_hash({'a': jax.numpy.asarray(number)}) == checkpoints.content_hash(trees[0])
    # The order in memory does not matter.
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert checkpoints.content_hash([table.T]) == checkpoints.content_hash([table.T.copy()])


def test_only_the_newest_are_kept_and_leftovers_of_an_interrupted_save_go(tmp_path):
    with checkpoints.open_checkpoints(tmp_path, keep=2) as manager:
        for step in range(1, 6):
            save_state(manager, make_state(step))
    folder = tmp_path / 'checkpoints'
    assert sorted(path.name for path in folder.iterdir()) == ['4', '5']
    shutil.copytree(folder / '5', folder / '6.orbax-checkpoint-tmp')
    assert checkpoints.list_steps(tmp_path) == [4, 5]
    assert_is_of_step(resume(tmp_path), 5)
    with checkpoints.open_checkpoints(tmp_path, keep=2) as manager:
        save_state(manager, make_state(7))
    assert sorted(path.name for path in folder.iterdir()) == ['5', '7']


@pytest.mark.filterwarnings('error::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('leave', [0, 8192, 32768])
def test_on_a_full_disk_a_save_fails_in_one_line_and_the_older_checkpoint_stays(small_disk, leave, caplog):
    def save_4():
        with (
            pytest.raises(UserError, match='No space left') as caught,
            run_directory.explaining_a_full_disk(small_disk, 'Make room there.'),
            checkpoints.open_checkpoints(small_disk) as manager,
        ):
            save_state(manager, make_state(4))
        return str(caught.value)

    with checkpoints.open_checkpoints(small_disk) as manager:
        save_state(manager, make_state(2))
    fill_disk(small_disk, leave)
    message = save_4()
    # When it is collected, Orbax's manager asks whether its thread lives, and that while a thread starts hangs Python.
    gc.collect()
    assert str(small_disk) in message
    assert '\n' not in message
    assert not caplog.records  # Orbax would log hundreds of lines.
    assert checkpoints.list_steps(small_disk) == [2]
    (small_disk / 'filler').unlink()
    assert_is_of_step(resume(small_disk), 2)


def test_when_many_arrays_cannot_be_written_each_at_its_own_time_one_error_is_all_that_is_said(
    workdir, monkeypatch, caplog
):
    delays = collections.defaultdict(itertools.count)  # in each event loop 0, 1, 2, ... of its turns

    async def open_late(*args, **kwargs):
        for _ in range(next(delays[asyncio.get_running_loop()])):
            await asyncio.sleep(0)
        raise ValueError('No space left on device')

    monkeypatch.setattr(tensorstore, 'open', open_late)
    with pytest.raises(ValueError, match='No space left'), checkpoints.open_checkpoints(workdir) as manager:
        save_state(manager, make_state(6))
    for thread in threading.enumerate():
        if thread.name == 'np_type_handler':
            threading.Thread.join(thread)
    gc.collect()  # asyncio speaks of a task that nobody has asked for its error when it is collected.
    assert not caplog.records


def test_where_no_folder_can_be_made_no_thread_is_left_that_waits_for_it(workdir, monkeypatch):
    def is_full(path, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with checkpoints.open_checkpoints(workdir) as manager:
        monkeypatch.setattr(os, 'mkdir', is_full)
        with pytest.raises(OSError, match='No space left'):
            save_state(manager, make_state(6))
        monkeypatch.undo()
    waiting = {'hashes', 'np_type_handler', 'write_metadata_after_commits'}
    assert not waiting & {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(('number', 'is_told'), [(errno.ENOSPC, False), (errno.EIO, True)])
def test_asyncio_keeps_quiet_about_a_full_disk_and_about_nothing_else(workdir, caplog, number, is_told):
    checkpoints.open_checkpoints(workdir).close()
    gc.collect()
    caplog.clear()
    loop = asyncio.new_event_loop()
    loop.create_future().set_exception(OSError(number, os.strerror(number)))
    loop.close()
    gc.collect()
    assert bool(caplog.records) == is_told


def test_reads_that_answer_a_closed_event_loop_are_not_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'unraisablehook', sys.__unraisablehook__)
    checkpoints._ignore_late_answers.__wrapped__()
    loop = asyncio.new_event_loop()
    loop.close()

    class Answer:
        """Raises where nobody can catch it, as the threads of the storage below Orbax do."""

        def __init__(self, call):
            self.call = call

        def __del__(self):
            self.call()

    Answer(lambda: loop.call_soon_threadsafe(print))
    assert capsys.readouterr().err == ''
    Answer(lambda: 1 / 0)
    assert 'ZeroDivisionError' in capsys.readouterr().err
