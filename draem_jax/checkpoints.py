"""Saving and restoring runs with Orbax.

A checkpoint has three items: `variables` ({'params', 'batch_stats'}: all that inference needs), `progress`
({'step', 'opt_state'}: what a resumed training needs besides; also 'trained', the newest params and batch_stats, where
`variables` are moving averages of these) and `hashes` (of the content of the other two). Orbax makes a checkpoint
appear whole or not at all, whenever the process dies. The hashes show damage that comes later.

A training waits only while its state is copied. Orbax's own threads hash the copy and write it.
"""

import asyncio
import concurrent.futures
import dataclasses
import errno
import functools
import hashlib
import json
import logging
import os
import pathlib
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from draem_jax import devices, processes
from draem_jax.devices import Tree
from draem_jax.errors import UserError, first_line
from draem_jax.threads import core_count

FOLDER = 'checkpoints'
DAMAGED_FOLDER = 'damaged'
_TREES = ('variables', 'progress')
_HASHES = 'hashes'
_ALIGNMENT = 64  # bytes: a cache line, and enough for every dtype
# Where each manager copies the state to. It is kept between saves: the system would fill a new one with zeros first.
_host_memory: weakref.WeakKeyDictionary[ocp.CheckpointManager, np.ndarray] = weakref.WeakKeyDictionary()


class DamagedCheckpointError(UserError):
    """A checkpoint that cannot be read, or holds something else than was saved."""


def open_checkpoints(workdir: str | os.PathLike[str], *, keep: int = 3) -> ocp.CheckpointManager:
    """The checkpoints of a run, as an Orbax manager; use it in a `with` block, which finishes pending saves.

    In the background it also removes what an interrupted save has left behind; the first save waits for that.

    Args:
        workdir: the run's directory; checkpoints go to `<workdir>/checkpoints/<step>/`.
        keep: how many of the newest stay on disk.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.LatestN(keep),
        cleanup_tmp_directories=True,
        # If a full disk has no room for them, Orbax's other threads would wait for them, and the process would not end
        # for five minutes.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
    )
    return _open(workdir, options)


def save(manager: ocp.CheckpointManager, step: int, *, variables: Tree, progress: Tree) -> None:
    """Copies the values to the host's memory and starts writing them as a checkpoint.

    When it returns, the values may change and their buffers may be donated. Hashing and writing go on in the
    background. A save that is still being written is waited for first: there is never more than one copy, and
    checkpoints appear in the order in which they were saved. Its memory is kept for the next save, as long as the
    manager lives. Every process calls this; the main one writes.

    An error in the background is raised by the next save, or on leaving the manager's `with` block, which waits too.
    The checkpoint it happened in never appears; those before it are whole.

    Args:
        manager: from `open_checkpoints`.
        step: the number to save it under.
        variables: {'params', 'batch_stats'} of arrays, JAX's or NumPy's.
        progress: {'step', 'opt_state'} of arrays, and perhaps 'trained'.
    """
    manager.wait_until_finished()
    trees = _copy_to_host({'variables': variables, 'progress': progress}, manager)
    items = {name: ocp.args.PyTreeSave(tree) for name, tree in trees.items()}
    hashes = _HashesSave(trees)
    try:
        manager.save(step, args=ocp.args.Composite(**items, **{_HASHES: hashes}))
    finally:
        hashes.may_start.set()


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
    _ignore_late_answers()
    name = f"The checkpoint of step {step} in '{manager.directory.parent}'"
    has_hashes = (manager.directory / str(step) / _HASHES).is_dir()
    arguments = {item: ocp.args.StandardRestore(_shapes(template)) for item, template in templates.items()}
    if has_hashes:
        arguments[_HASHES] = ocp.args.JsonRestore()
    try:
        saved = ocp.StandardCheckpointHandler().metadata(manager.directory / str(step) / 'variables')
        difference = _first_difference(saved.tree, templates['variables'])
        restored: Any = None if difference else manager.restore(step, args=ocp.args.Composite(**arguments))
    except (MemoryError, jax.errors.JaxRuntimeError):  # Not the fault of the files.
        raise
    except Exception as error:  # Orbax and its storage raise all kinds.
        if _is_about_permission(error):
            raise UserError(f'{name} cannot be read: {_reason(error)}. Make it readable for this user.') from error
        raise DamagedCheckpointError(f'{name} is damaged: {_reason(error)}') from error
    if difference:
        raise UserError(
            f'{name} does not fit the networks of the config: {difference}. config.json says with which values of '
            '--config.model it was trained.'
        )
    if not has_hashes:
        _warn(f'{name} is from a version that saved no hashes: it could not be checked for damage.')
    hashes = restored[_HASHES] if has_hashes and isinstance(restored[_HASHES], dict) else {}
    for item in templates if has_hashes else ():
        if content_hash(restored[item]) != hashes.get(item):
            raise DamagedCheckpointError(f'{name} is damaged: its {item} are not those that were saved (SHA-256).')
    return restored


@functools.cache
def _ignore_late_answers() -> None:
    """Keeps Python from printing the error of reads that answer to nobody.

    When a file of a checkpoint turns out to be damaged, Orbax gives up reading the others and closes its event loop.
    The threads of its storage then tell the closed loop of each, which raises where nobody can catch it.
    """
    usual = sys.unraisablehook

    def hook(unraisable: 'sys.UnraisableHookArgs') -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'):
            usual(unraisable)

    sys.unraisablehook = hook


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
    processes.meet('the checkpoints are read')  # Only then may one process move the damaged ones.
    for error, damaged_step in damaged if processes.is_main() else ():
        aside = _put_aside(pathlib.Path(manager.directory), damaged_step)
        _warn(f"{error} It is put aside, to '{aside}', and step {step} taken instead.")
    if damaged:
        processes.meet('damaged checkpoints are put aside')
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
    try:
        steps = sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []
    except OSError as error:
        raise _unreadable(folder, error) from error
    if needs_some and not steps:
        raise UserError(
            f"No checkpoint in '{workdir}': it is not the directory of a run, or training has saved none yet."
        )
    return steps


def check_step(workdir: str | os.PathLike[str], step: int | None) -> None:
    """Raises UserError unless there is a checkpoint of this step; with None, unless there is one at all."""
    steps = list_steps(workdir, needs_some=True)
    if step is not None and step not in steps:
        raise UserError(f"No checkpoint of step {step} in '{workdir}'. Found: {', '.join(map(str, steps))}.")


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
    check_step(workdir, step)
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


@dataclasses.dataclass
class _HashesSave(ocp.args.CheckpointArgs):
    """Asks for an item of the hashes of other items, {item: tree of NumPy arrays}.

    Hashing takes all cores. It begins when `may_start` is set, so that the training waits for Orbax alone.
    """

    trees: dict[str, Tree]
    may_start: threading.Event = dataclasses.field(default_factory=threading.Event)


class _HashesHandler(ocp.JsonCheckpointHandler):
    """Computes hashes in a thread of Orbax, which waits for them as for all that it writes; the file is plain JSON."""

    async def async_save(self, directory: pathlib.Path, args: _HashesSave) -> list[Any]:
        """Starts the thread; returns what Orbax waits for."""

        async def write() -> None:
            args.may_start.wait()
            if processes.is_main():
                hashes = {name: content_hash(tree) for name, tree in args.trees.items()}
                (directory / 'metadata').write_text(json.dumps({'algorithm': 'sha256', **hashes}))

        return [ocp.future.CommitFutureAwaitingContractedSignals(write(), name=_HASHES)]


class _ArrayWriter(ocp.type_handlers.NumpyHandler):
    """Orbax's handler of NumPy arrays, made quick for the caller, and quiet when the disk is full."""

    def __init__(self) -> None:
        # Orbax would copy the arrays once more, in one thread, while the training waits.
        super().__init__(deepcopy_host_arrays=False)

    async def _background_serialize(self, *args: Any, **kwargs: Any) -> None:
        """Writes arrays, each in a task. If one fails, the others end before the error is raised.

        Orbax would close the event loop under them, and Python print a traceback for each on stderr. It is a private
        method of Orbax: should another version not call it, nothing but these tracebacks will come back.
        """
        try:
            await super()._background_serialize(*args, **kwargs)
        except Exception:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others, return_exceptions=True)
            raise


def _open(
    workdir: str | os.PathLike[str], options: ocp.CheckpointManagerOptions | None = None
) -> ocp.CheckpointManager:
    logging.getLogger('absl').addFilter(_is_not_of_orbax)
    logging.getLogger('asyncio').addFilter(_is_not_of_a_full_disk)
    folder = _folder(workdir)
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"'{folder}' is a file, where the checkpoints of a run should lie. Move it away.")
    try:
        return ocp.CheckpointManager(folder, options=options, handler_registry=_handlers())
    except PermissionError as error:
        raise _unreadable(folder, error) from error


def _handlers() -> ocp.handlers.CheckpointHandlerRegistry:
    """Which of Orbax's handlers writes and reads which item."""
    types = ocp.type_handlers.create_type_handler_registry((np.ndarray, _ArrayWriter()))
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in _TREES:
        registry.add(item, ocp.args.PyTreeSave, ocp.PyTreeCheckpointHandler(type_handler_registry=types))
    registry.add(_HASHES, _HashesSave, _HashesHandler())
    # The last handler of an item is the one that a checkpoint names, so Orbax alone, without this file, can read all.
    for item in _TREES:
        registry.add(item, ocp.args.StandardRestore, ocp.StandardCheckpointHandler())
    registry.add(_HASHES, ocp.args.JsonRestore, ocp.JsonCheckpointHandler())
    return registry


def _copy_to_host(tree: Tree, manager: ocp.CheckpointManager) -> Tree:
    """A tree of NumPy arrays of the same values, which nothing changes before the next call with the same manager.

    Only the main process writes, so the others get zeros of the same shapes that take no memory.
    """
    leaves, structure = jax.tree.flatten(tree)
    if not processes.is_main():
        return jax.tree.unflatten(structure, [np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape) for leaf in leaves])
    host = jax.device_get(leaves)
    # On a CPU JAX hands out its own buffers, which the next update overwrites. Elsewhere these are copies already.
    if not devices.on_cpu() and all(isinstance(leaf, jax.Array) for leaf in leaves):
        return jax.tree.unflatten(structure, host)
    starts = np.cumsum([0, *(-(-leaf.nbytes // _ALIGNMENT) * _ALIGNMENT for leaf in host)])
    block = _host_memory.get(manager)
    if block is None or block.nbytes < starts[-1]:
        # In one block, because the system gives it large pages, and gets it back when the manager is gone.
        block = _host_memory[manager] = np.empty(starts[-1], np.uint8)
    copies = [
        block[start : start + leaf.nbytes].view(leaf.dtype).reshape(leaf.shape)
        for start, leaf in zip(starts, host, strict=False)
    ]
    # Threads help here: NumPy releases the interpreter's lock.
    with concurrent.futures.ThreadPoolExecutor(core_count()) as threads:
        list(threads.map(np.copyto, copies, host))
    return jax.tree.unflatten(structure, copies)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """False for Orbax's own lines: it logs a failure in hundreds of them, and raises it too."""
    return f'{os.sep}orbax{os.sep}' not in record.pathname


def _is_not_of_a_full_disk(record: logging.LogRecord) -> bool:
    """False for what asyncio says about the other folders when Orbax could not make one of them, which is raised."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))


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


def _unreadable(folder: pathlib.Path, error: OSError) -> UserError:
    return UserError(f"Cannot read '{folder}': {error.strerror}. Make it readable for this user.")


def _is_about_permission(error: BaseException | None) -> bool:
    """Whether a file was not read because this user may not: that is no damage, and nothing to put aside."""
    while error is not None:
        if isinstance(error, PermissionError) or 'permission denied' in str(error).lower().replace('_', ' '):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: Exception) -> str:
    return first_line(error).partition(' See full TensorStore')[0][:300]


def _warn(line: str) -> None:
    processes.print_once(line, file=sys.stderr)
