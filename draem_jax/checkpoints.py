"""Saving and restoring runs with Orbax.

A checkpoint has three items: `variables` ({'params', 'batch_stats'}: all that inference needs), `progress`
({'step', 'opt_state'}: what a resumed training needs besides) and `hashes` (of the content of the other two). Orbax
makes a checkpoint appear whole or not at all, whenever the process dies; the hashes show what happened to it later.
"""

import concurrent.futures
import hashlib
import logging
import os
import pathlib
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

from draem_jax import devices
from draem_jax.errors import UserError, first_line
from draem_jax.threads import core_count

FOLDER = 'checkpoints'
DAMAGED_FOLDER = 'damaged'
_ITEMS = ('variables', 'progress', 'hashes')


class DamagedCheckpointError(UserError):
    """A checkpoint that cannot be read, or holds something else than was saved."""


def open_checkpoints(workdir, *, keep=3):
    """The checkpoints of a run, as an Orbax manager; use it in a `with` block, which finishes pending saves.

    What an interrupted save has left behind is removed.

    Args:
        workdir: the run's directory; checkpoints go to `<workdir>/checkpoints/<step>/`.
        keep: how many of the newest stay on disk.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.LatestN(keep),
        cleanup_tmp_directories=True,
    )
    return _open(workdir, options)


def save(manager, step, *, variables, progress):
    """Starts writing a checkpoint; returns as soon as Orbax has its own copy of the values.

    What goes wrong while writing is raised by the next save, or on leaving the manager's `with` block.

    Args:
        manager: from `open_checkpoints`.
        step: under which number.
        variables: tree of NumPy arrays, {'params', 'batch_stats'}.
        progress: likewise, {'step', 'opt_state'}.
    """
    hashes = {'algorithm': 'sha256', 'variables': content_hash(variables), 'progress': content_hash(progress)}
    manager.save(
        step,
        args=ocp.args.Composite(
            variables=ocp.args.StandardSave(variables),
            progress=ocp.args.StandardSave(progress),
            hashes=ocp.args.JsonSave(hashes),
        ),
    )


def restore(manager, step, **templates):
    """Reads items of one checkpoint and compares them with their hashes.

    Args:
        manager: from `open_checkpoints`.
        step: which checkpoint.
        **templates: the wanted items, 'variables' and perhaps 'progress', each as a tree of arrays or shapes.

    Returns:
        {item: tree shaped like its template}.

    Raises:
        DamagedCheckpointError: it cannot be read, or holds something else than was saved.
        UserError: it is of networks of other shapes.
    """
    name = f"The checkpoint of step {step} in '{manager.directory.parent}'"
    has_hashes = (manager.directory / str(step) / 'hashes').is_dir()
    arguments = {item: ocp.args.StandardRestore(_shapes(template)) for item, template in templates.items()}
    if has_hashes:
        arguments['hashes'] = ocp.args.JsonRestore()
    try:
        saved = ocp.StandardCheckpointHandler().metadata(manager.directory / str(step) / 'variables')
        difference = _first_difference(saved.tree, templates['variables'])
        restored = None if difference else manager.restore(step, args=ocp.args.Composite(**arguments))
    except (MemoryError, jax.errors.JaxRuntimeError):  # Not the fault of the files.
        raise
    except Exception as error:  # Orbax and its storage raise all kinds.
        raise DamagedCheckpointError(f'{name} is damaged: {_reason(error)}') from error
    if difference:
        raise UserError(
            f'{name} does not fit the networks of the config: {difference}. config.json says with which values of '
            '--config.model it was trained.'
        )
    if not has_hashes:
        _warn(f'{name} is from a version that saved no hashes: it could not be checked for damage.')
    for item in templates if has_hashes else ():
        if content_hash(restored[item]) != restored['hashes'].get(item):
            raise DamagedCheckpointError(f'{name} is damaged: its {item} are not those that were saved (SHA-256).')
    return restored


def restore_newest(manager, **templates):
    """The items of the newest checkpoint that is not damaged, to go on from it; None where none was ever saved.

    Damaged checkpoints newer than that are named and put aside, into `<workdir>/damaged/`: their steps come again.

    Args:
        manager: from `open_checkpoints`.
        **templates: as for `restore`.

    Raises:
        UserError: all are damaged, or of networks of other shapes.
    """
    step, items, damaged = _newest_intact(manager, lambda step: restore(manager, step, **templates))
    devices.wait_for_all('the checkpoints are read')  # Before one process moves those that are damaged.
    for error, damaged_step in damaged if devices.is_main() else ():
        aside = _put_aside(pathlib.Path(manager.directory), damaged_step)
        _warn(f"{error} It is put aside, to '{aside}', and step {step} taken instead.")
    if damaged:
        devices.wait_for_all('damaged checkpoints are put aside')
        manager.reload()
    return items


def list_steps(workdir, *, needs_some=False):
    """The steps of the checkpoints on disk, ascending.

    Args:
        workdir: the run's directory.
        needs_some: whether to raise where there is none.

    Raises:
        UserError: there is no checkpoint.
    """
    folder = _folder(workdir)
    steps = sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []
    if needs_some and not steps:
        raise UserError(
            f"No checkpoint in '{workdir}': it is not the directory of a run, or training has saved none yet."
        )
    return steps


def restore_variables(workdir, template, step=None):
    """Reads the networks of a run without its optimizer.

    Args:
        workdir: the run's directory.
        template: {'params', 'batch_stats'} of arrays or shapes.
        step: which checkpoint; None for the newest that is not damaged, where damaged ones are named.

    Returns:
        (step, variables shaped like `template`).

    Raises:
        UserError: the directory holds no checkpoint, or not this one, or networks of other shapes; or this one, or all
            of them, are damaged.
    """
    steps = list_steps(workdir, needs_some=True)
    if step is not None and step not in steps:
        raise UserError(f"No checkpoint of step {step} in '{workdir}'. Found: {', '.join(map(str, steps))}.")
    with _open(workdir) as manager:

        def restore_step(step):
            return restore(manager, step, variables=template)['variables']

        if step is not None:
            return step, restore_step(step)
        step, variables, damaged = _newest_intact(manager, restore_step)
        for error, _ in damaged:
            _warn(f'{error} Step {step} is taken instead.')
        return step, variables


def content_hash(tree):
    """SHA-256 over the leaves of a tree: their bytes, each with its path, dtype and shape; as a hexadecimal string."""

    def hash_leaf(item):
        path, leaf = item
        leaf = np.ascontiguousarray(leaf)
        name = f'{jax.tree_util.keystr(path, simple=True, separator="/")} {leaf.dtype.name} {np.shape(item[1])}\n'
        found = hashlib.sha256(name.encode())
        found.update(leaf.reshape(-1).view(np.uint8))
        return found.digest()

    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    with concurrent.futures.ThreadPoolExecutor(
        core_count()
    ) as threads:  # hashlib works without the interpreter's lock.
        return hashlib.sha256(b''.join(threads.map(hash_leaf, leaves))).hexdigest()


def _open(workdir, options=None):
    logging.getLogger('absl').addFilter(_is_not_of_orbax)
    return ocp.CheckpointManager(_folder(workdir), options=options, item_names=_ITEMS)


def _is_not_of_orbax(record):
    """What Orbax logs of a failure, in hundreds of lines, it raises too."""
    return f'{os.sep}orbax{os.sep}' not in record.pathname


def _newest_intact(manager, restore):
    """(step, `restore(step)`, damaged) of the newest checkpoint where `restore` finds no damage.

    `damaged` lists (error, step) of those newer than it. Without any checkpoint: (None, None, []).
    """
    damaged = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            return step, restore(step), damaged
        except DamagedCheckpointError as error:
            damaged.append((error, step))
    if damaged:
        raise UserError(f"{damaged[0][0]} No other is intact: remove '{manager.directory}' to start anew.")
    return None, None, []


def _first_difference(saved, wanted):
    """In words, the first leaf whose dtype or shape is another in two trees; None where there is no such."""
    saved, wanted = (
        {
            jax.tree_util.keystr(path, simple=True, separator='/'): f'{np.dtype(leaf.dtype).name} {list(leaf.shape)}'
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (saved, wanted)
    )
    for path in sorted(saved.keys() | wanted.keys()):
        here, there = wanted.get(path, 'nothing'), saved.get(path, 'nothing')
        if here != there:
            return f"'{path}' is {there} in the checkpoint and {here} in the config"
    return None


def _put_aside(folder, step):
    """Moves the checkpoint of a step to `<workdir>/damaged/`, beside any that came there before; returns where to."""
    target = folder.parent / DAMAGED_FOLDER
    target.mkdir(exist_ok=True)
    earlier = sum(path.name.partition('_')[0] == str(step) for path in target.iterdir())
    return (folder / str(step)).rename(target / (f'{step}_{earlier + 1}' if earlier else str(step)))


def _shapes(tree):
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), tree)


def _folder(workdir):
    return pathlib.Path(workdir).resolve() / FOLDER


def _reason(error):
    return first_line(error).partition(' See full TensorStore')[0][:300]


def _warn(line):
    if devices.is_main():
        print(line, file=sys.stderr)
