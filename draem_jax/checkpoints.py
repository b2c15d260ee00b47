"""Saving and restoring runs with Orbax.

A checkpoint has three items: `variables` ({'params', 'batch_stats'}: all that inference needs), `progress`
({'step', 'opt_state'}: what a resumed training needs besides) and `hashes` (of the content of the other two). Orbax
makes a checkpoint appear whole or not at all, whenever the process dies. The hashes show damage that comes later.
"""

import concurrent.futures
import hashlib
import logging
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from draem_jax import devices
from draem_jax.devices import Tree
from draem_jax.errors import UserError, first_line
from draem_jax.threads import core_count

FOLDER = 'checkpoints'
DAMAGED_FOLDER = 'damaged'
_ITEMS = ('variables', 'progress', 'hashes')


class DamagedCheckpointError(UserError):
    """A checkpoint that cannot be read, or holds something else than was saved."""


def open_checkpoints(workdir: str | os.PathLike[str], *, keep: int = 3) -> ocp.CheckpointManager:
    """The checkpoints of a run, as an Orbax manager; use it in a `with` block, which finishes pending saves.

    It also removes what an interrupted save has left behind.

    Args:
        workdir: the run's directory; checkpoints go to `<workdir>/checkpoints/<step>/`.
        keep: how many of the newest stay on disk.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.LatestN(keep),
        cleanup_tmp_directories=True,
    )
    return _open(workdir, options)


def save(manager: ocp.CheckpointManager, step: int, *, variables: Tree, progress: Tree) -> None:
    """Starts writing a checkpoint; returns as soon as Orbax has its own copy of the values.

    An error while writing is raised by the next save, or on leaving the manager's `with` block.

    Args:
        manager: from `open_checkpoints`.
        step: the number to save it under.
        variables: {'params', 'batch_stats'} of NumPy arrays.
        progress: {'step', 'opt_state'} of NumPy arrays.
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


def restore(manager: ocp.CheckpointManager, step: int, **templates: Tree) -> dict[str, Tree]:
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
        restored: Any = None if difference else manager.restore(step, args=ocp.args.Composite(**arguments))
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


def restore_newest(manager: ocp.CheckpointManager, **templates: Tree) -> dict[str, Tree] | None:
    """The items of the newest checkpoint that is not damaged, to go on from it; None if none was ever saved.

    Damaged checkpoints newer than that are named and moved to `<workdir>/damaged/`: their steps are made again.

    Args:
        manager: from `open_checkpoints`.
        **templates: as for `restore`.

    Raises:
        UserError: all are damaged, or of networks of other shapes.
    """
    step, items, damaged = _newest_intact(manager, lambda step: restore(manager, step, **templates))
    devices.wait_for_all('the checkpoints are read')  # Only then may one process move the damaged ones.
    for error, damaged_step in damaged if devices.is_main() else ():
        aside = _put_aside(pathlib.Path(manager.directory), damaged_step)
        _warn(f"{error} It is put aside, to '{aside}', and step {step} taken instead.")
    if damaged:
        devices.wait_for_all('damaged checkpoints are put aside')
        manager.reload()
    return items


def list_steps(workdir: str | os.PathLike[str], *, needs_some: bool = False) -> list[int]:
    """The steps of the checkpoints on disk, ascending.

    Args:
        workdir: the run's directory.
        needs_some: whether to raise an error if there is none.

    Raises:
        UserError: there is no checkpoint, and `needs_some`.
    """
    folder = _folder(workdir)
    steps = sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []
    if needs_some and not steps:
        raise UserError(
            f"No checkpoint in '{workdir}': it is not the directory of a run, or training has saved none yet."
        )
    return steps


def restore_variables(workdir: str | os.PathLike[str], template: Tree, step: int | None = None) -> tuple[int, Tree]:
    """Reads the networks of a run without its optimizer.

    Args:
        workdir: the run's directory.
        template: {'params', 'batch_stats'} of arrays or shapes.
        step: which checkpoint; None for the newest that is not damaged. Damaged ones that are newer are named.

    Returns:
        (step, variables shaped like `template`).

    Raises:
        UserError: there is no checkpoint, or not this one; or it holds networks of other shapes; or it is damaged, and
            without `step` all are.
    """
    steps = list_steps(workdir, needs_some=True)
    if step is not None and step not in steps:
        raise UserError(f"No checkpoint of step {step} in '{workdir}'. Found: {', '.join(map(str, steps))}.")
    with _open(workdir) as manager:

        def restore_step(step: int) -> Tree:
            return restore(manager, step, variables=template)['variables']

        if step is not None:
            return step, restore_step(step)
        step, variables, damaged = _newest_intact(manager, restore_step)
        for error, _ in damaged:
            _warn(f'{error} Step {step} is taken instead.')
        return step, variables


def content_hash(tree: Tree) -> str:
    """SHA-256 of the leaves of a tree, each with its path, dtype, shape and bytes; as a hexadecimal string."""

    def hash_leaf(item: tuple[Any, Any]) -> bytes:
        path, leaf = item
        leaf = np.ascontiguousarray(leaf)
        name = f'{jax.tree_util.keystr(path, simple=True, separator="/")} {leaf.dtype.name} {np.shape(item[1])}\n'
        content = hashlib.sha256(name.encode())
        content.update(leaf.reshape(-1).view(np.uint8).data)
        return content.digest()

    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    # Threads help here: hashlib releases the interpreter's lock.
    with concurrent.futures.ThreadPoolExecutor(core_count()) as threads:
        return hashlib.sha256(b''.join(threads.map(hash_leaf, leaves))).hexdigest()


def _open(
    workdir: str | os.PathLike[str], options: ocp.CheckpointManagerOptions | None = None
) -> ocp.CheckpointManager:
    logging.getLogger('absl').addFilter(_is_not_of_orbax)
    return ocp.CheckpointManager(_folder(workdir), options=options, item_names=_ITEMS)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """False for Orbax's own lines: it logs a failure in hundreds of them, and raises it too."""
    return f'{os.sep}orbax{os.sep}' not in record.pathname


def _newest_intact(
    manager: ocp.CheckpointManager, restore: Callable[[int], Tree]
) -> tuple[Any, Tree, list[tuple[DamagedCheckpointError, int]]]:
    """(step, `restore(step)`, damaged) of the newest checkpoint that `restore` reads without finding damage.

    `damaged` lists (error, step) of those newer than it. Without any checkpoint: (None, None, []).
    """
    damaged: list[tuple[DamagedCheckpointError, int]] = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            return step, restore(step), damaged
        except DamagedCheckpointError as error:
            damaged.append((error, step))
    if damaged:
        raise UserError(f"{damaged[0][0]} No other is intact: remove '{manager.directory}' to start anew.")
    return None, None, []


def _first_difference(saved: Tree, wanted: Tree) -> str | None:
    """The first leaf whose dtype or shape differs between two trees, in words; None if there is none."""
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


def _put_aside(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Moves the checkpoint of a step to `<workdir>/damaged/`, beside earlier ones; returns its new path."""
    target = folder.parent / DAMAGED_FOLDER
    target.mkdir(exist_ok=True)
    earlier = sum(path.name.partition('_')[0] == str(step) for path in target.iterdir())
    return (folder / str(step)).rename(target / (f'{step}_{earlier + 1}' if earlier else str(step)))


def _shapes(tree: Tree) -> Tree:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), tree)


def _folder(workdir: str | os.PathLike[str]) -> pathlib.Path:
    return pathlib.Path(workdir).resolve() / FOLDER


def _reason(error: Exception) -> str:
    return first_line(error).partition(' See full TensorStore')[0][:300]


def _warn(line: str) -> None:
    devices.print_once(line, file=sys.stderr)
