"""The state of a training: what it holds, how it starts, and how it goes to a checkpoint and back."""

from typing import Any

import flax.struct
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

from draem_jax import checkpoints
from draem_jax.model.networks import Variables


@flax.struct.dataclass
class TrainState:
    """What a resumed run needs, and whether the training has diverged; the arrays are JAX's or NumPy's.

    Attributes:
        step: int32 scalar, the number of updates made.
        params: tree of the parameters of both networks, float32.
        batch_stats: tree of running means and variances, float32.
        opt_state: the optimizer's own tree.
        diverged_at: int32 scalar, the first step whose loss or gradient was not finite; 0 while there is none. That
            step and all later ones are skipped (see `divergence`). It is not saved: no checkpoint holds a diverged
            state.
        averages: the moving averages of `params` and `batch_stats`, as `variables`; None if the training keeps none.
    """

    step: jax.Array | np.ndarray
    params: Any
    batch_stats: Any
    opt_state: Any
    diverged_at: jax.Array | np.ndarray | np.int32 = np.int32(0)
    averages: Variables | None = None

    @property
    def variables(self) -> Variables:
        """{'params', 'batch_stats'}: all that inference needs, which are the averages where there are some."""
        return {'params': self.params, 'batch_stats': self.batch_stats} if self.averages is None else self.averages


def init_state(
    variables: Variables, optimizer: optax.GradientTransformation, *, keeps_averages: bool = False
) -> TrainState:
    """The state before the first step, as NumPy arrays, without compiling anything.

    Args:
        variables: {'params', 'batch_stats'} from `networks.init_variables` or from a checkpoint.
        optimizer: an optax optimizer that starts from zeros, as Adam does.
        keeps_averages: whether the state has moving averages, which start from `variables`.
    """
    shapes = jax.eval_shape(optimizer.init, variables['params'])
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    # A copy, because an update gives back the memory of the state before it, and each array only once.
    averages = jax.tree.map(np.array, variables) if keeps_averages else None
    return TrainState(np.zeros((), np.int32), variables['params'], variables['batch_stats'], zeros, averages=averages)


def save_state(manager: ocp.CheckpointManager, state: TrainState) -> None:
    """Starts writing a state under its step; returns as soon as the values are copied to the host.

    The next update may take the state's memory. `checkpoints.save` says what happens in the background, and when an
    error in it is raised.
    """
    checkpoints.save(manager, int(state.step), **_items(state))


def restore_state(manager: ocp.CheckpointManager, template: TrainState, step: int) -> TrainState:
    """The state saved at `step`, shaped like `template`.

    Raises:
        UserError: the checkpoint is damaged, or of networks of other shapes.
    """
    return _from_items(checkpoints.restore(manager, step, **_items(template)))


def restore_newest_state(manager: ocp.CheckpointManager, template: TrainState) -> TrainState | None:
    """The newest state that is not damaged, to go on training from it; None if none was ever saved.

    Damaged checkpoints newer than that are named and moved to `<workdir>/damaged/`: their steps are made again.

    Raises:
        UserError: all are damaged, or of networks of other shapes.
    """
    items = checkpoints.restore_newest(manager, **_items(template))
    return None if items is None else _from_items(items)


def _items(state: TrainState) -> dict[str, Any]:
    """The two items of a checkpoint: what inference needs, and what a resumed training needs besides."""
    progress = {'step': state.step, 'opt_state': state.opt_state}
    if state.averages is not None:
        progress['trained'] = {'params': state.params, 'batch_stats': state.batch_stats}
    return {'variables': state.variables, 'progress': progress}


def _from_items(items: dict[str, Any]) -> TrainState:
    variables, progress = items['variables'], items['progress']
    trained, averages = (progress['trained'], variables) if 'trained' in progress else (variables, None)
    return TrainState(
        progress['step'], trained['params'], trained['batch_stats'], progress['opt_state'], averages=averages
    )
