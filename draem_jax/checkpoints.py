"""Saving and restoring runs with Orbax.

A checkpoint has two items: `variables` ({'params', 'batch_stats'}: all that inference needs) and `progress`
({'step', 'opt_state'}: what a resumed training needs besides).
"""

import pathlib

import jax
import orbax.checkpoint as ocp

from draem_jax.errors import UserError
from draem_jax.training import TrainState

FOLDER = 'checkpoints'


def open_checkpoints(workdir, *, keep=3):
    """The checkpoints of a run, as an Orbax manager; use it in a `with` block, which finishes pending saves.

    Args:
        workdir: the run's directory; checkpoints go to `<workdir>/checkpoints/<step>/`.
        keep: how many of the newest stay on disk.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.LatestN(keep),
        cleanup_tmp_directories=True,
    )
    folder = pathlib.Path(workdir).resolve() / FOLDER
    return ocp.CheckpointManager(folder, options=options, item_names=('variables', 'progress'))


def save(manager, state):
    """Starts writing a `TrainState` under its step; returns as soon as the values are copied to the host."""
    state = jax.device_get(state)
    manager.save(
        int(state.step),
        args=ocp.args.Composite(
            variables=ocp.args.StandardSave({'params': state.params, 'batch_stats': state.batch_stats}),
            progress=ocp.args.StandardSave({'step': state.step, 'opt_state': state.opt_state}),
        ),
    )


def restore_state(manager, template, step):
    """The `TrainState` saved at `step`, shaped like `template`."""
    shapes = _shapes(template)
    restored = manager.restore(
        step,
        args=ocp.args.Composite(
            variables=ocp.args.StandardRestore({'params': shapes.params, 'batch_stats': shapes.batch_stats}),
            progress=ocp.args.StandardRestore({'step': shapes.step, 'opt_state': shapes.opt_state}),
        ),
    )
    return TrainState(
        restored.progress['step'],
        restored.variables['params'],
        restored.variables['batch_stats'],
        restored.progress['opt_state'],
    )


def list_steps(workdir, *, needs_some=False):
    """The steps of the checkpoints on disk, ascending.

    Args:
        workdir: the run's directory.
        needs_some: whether to raise where there is none.

    Raises:
        UserError: there is no checkpoint.
    """
    folder = pathlib.Path(workdir).resolve() / FOLDER
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
        step: which checkpoint; the newest when None.

    Returns:
        (step, variables shaped like `template`).

    Raises:
        UserError: the directory holds no checkpoint, or not this one, or networks of other shapes.
    """
    if not (pathlib.Path(workdir) / FOLDER).is_dir():
        raise UserError(
            f"No checkpoint in '{workdir}': it is not the directory of a run, or training has saved none yet."
        )
    with ocp.CheckpointManager(
        pathlib.Path(workdir).resolve() / FOLDER, item_names=('variables', 'progress')
    ) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise UserError(f"No checkpoint in '{workdir}': training has saved none yet.")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise UserError(f"No checkpoint of step {step} in '{workdir}'. Found: {', '.join(map(str, steps))}.")
        restore = ocp.args.StandardRestore(_shapes(template))
        try:
            restored = manager.restore(step, args=ocp.args.Composite(variables=restore))
        except ValueError as error:
            first_line = str(error).strip().splitlines()[0]
            raise UserError(
                f"The checkpoint of step {step} in '{workdir}' does not fit the networks of the config: {first_line}"
            ) from error
    return step, restored.variables


def _shapes(tree):
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), tree)
