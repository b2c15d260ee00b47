"""Checkpoints that are damaged, do not fit, come from an earlier version, or find no room. Nothing is compiled."""

import os
import shutil

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from trees import fill_disk

from draem_jax import checkpoints, run_directory
from draem_jax.errors import UserError
from draem_jax.training.state import init_state, restore_newest_state, save_state


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
    leftover = folder / '6.orbax-checkpoint-tmp'
    shutil.copytree(folder / '5', leftover)
    assert checkpoints.list_steps(tmp_path) == [4, 5]
    assert_is_of_step(resume(tmp_path), 5)
    assert not leftover.exists()


@pytest.mark.parametrize('leave', [0, 8192, 32768])
def test_on_a_full_disk_a_save_fails_in_one_line_and_the_older_checkpoint_stays(small_disk, leave, caplog):
    with checkpoints.open_checkpoints(small_disk) as manager:
        save_state(manager, make_state(2))
    fill_disk(small_disk, leave)
    with (
        pytest.raises(UserError, match='No space left') as caught,
        run_directory.explaining_a_full_disk(small_disk),
        checkpoints.open_checkpoints(small_disk) as manager,
    ):
        save_state(manager, make_state(4))
    assert str(small_disk) in str(caught.value)
    assert '\n' not in str(caught.value)
    assert not caplog.records  # Orbax would log hundreds of lines.
    assert checkpoints.list_steps(small_disk) == [2]
    (small_disk / 'filler').unlink()
    assert_is_of_step(resume(small_disk), 2)
