"""The state of a training: what it holds, how it starts, and how it goes to a checkpoint and back."""

from typing import Any

import flax.struct
import jax
import numpy as np

from draem_jax import checkpoints


@flax.struct.dataclass
class TrainState:
    """What a resumed run needs, and whether there is anything to resume.

    Attributes:
        step: int32 scalar, the number of updates made.
        params: parameters of both networks, float32.
        batch_stats: running means and variances, float32.
        opt_state: of the optimizer.
        diverged_at: int32 scalar, the first step whose loss or gradient was not finite, which was not made and after
            which none is; 0 as long as there is none. Not saved: of a diverged state there is no checkpoint.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    diverged_at: jax.Array = np.int32(0)


def init_state(variables, optimizer):
    """The state before the first step, as NumPy arrays, without compiling anything.

    Args:
        variables: {'params', 'batch_stats'} from `networks.init_variables` or from a checkpoint.
        optimizer: an optax optimizer that starts from zeros, as Adam does.
    """
    shapes = jax.eval_shape(optimizer.init, variables['params'])
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return TrainState(np.zeros((), np.int32), variables['params'], variables['batch_stats'], zeros)


def save_state(manager, state):
    """Starts writing a `TrainState` under its step; returns as soon as the values are copied to the host.

    What goes wrong while writing is raised by the next save, or on leaving the manager's `with` block.
    """
    state = jax.device_get(state)
    checkpoints.save(manager, int(state.step), **_items(state))


def restore_state(manager, template, step):
    """The `TrainState` saved at `step`, shaped like `template`.

    Raises:
        UserError: the checkpoint is damaged, or of networks of other shapes.
    """
    return _from_items(checkpoints.restore(manager, step, **_items(template)))


def restore_newest_state(manager, template):
    """The newest `TrainState` that is not damaged, to go on training from it; None where none was ever saved.

    Damaged checkpoints newer than that are named and put aside, into `<workdir>/damaged/`: their steps come again.

    Raises:
        UserError: all are damaged, or of networks of other shapes.
    """
    items = checkpoints.restore_newest(manager, **_items(template))
    return None if items is None else _from_items(items)


def _items(state):
    """The two items of a checkpoint: what inference needs, and what a resumed training needs besides."""
    return {
        'variables': {'params': state.params, 'batch_stats': state.batch_stats},
        'progress': {'step': state.step, 'opt_state': state.opt_state},
    }


def _from_items(items):
    variables, progress = items['variables'], items['progress']
    return TrainState(progress['step'], variables['params'], variables['batch_stats'], progress['opt_state'])
