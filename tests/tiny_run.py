"""The directory of a run whose networks were never trained, but give every image another score."""

import os
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from configs import folder
from draem_jax import checkpoints, run_directory
from draem_jax.model import networks
from draem_jax.training.optimizer import make_optimizer, make_schedule
from draem_jax.training.state import init_state, save_state

STEP = 7


class OneBlock(nn.Module):
    """Stands in for the networks in a training: one block of them, which compiles in a moment."""

    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        x = networks.ConvBlock((4,), axis_name=self.axis_name)(image, train=train)
        return nn.Conv(3, (1, 1))(x), nn.Conv(2, (1, 1))(x)


def write_run(
    workdir: pathlib.Path,
    *,
    root: str | os.PathLike[str] = '',
    image_size: tuple[int, int] = (32, 32),
    antialias: bool = False,
    batch_size: int = 4,
) -> pathlib.Path:
    """Writes config and checkpoint of step 7 into `workdir`; returns it."""
    config = folder.get_config()
    config.dataset.root = str(root)
    config.dataset.image_size = image_size
    config.dataset.antialias = antialias
    config.model.reconstructive_width = 2
    config.model.discriminative_width = 2
    config.evaluation.batch_size = batch_size
    config.evaluation.score_window = 3
    run_directory.start(workdir, config.to_dict())
    variables = networks.init_variables(networks.make_model(**config.model), image_size, seed=0)
    # With kernels as drawn for training next to nothing of an image would be left after so many layers.
    variables = jax.tree.map(lambda leaf: leaf * (12 if leaf.ndim == 4 else 1), variables)
    optimizer = make_optimizer(make_schedule(1, **config.optimizer))
    with checkpoints.open_checkpoints(workdir) as manager:
        save_state(manager, init_state(variables, optimizer).replace(step=np.int32(STEP)))
    return workdir


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture with coarse and fine structure, uint8 RGB."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 160, (height // 16 + 1, width // 16 + 1, 3)).repeat(16, 0).repeat(16, 1)
    return (coarse[:height, :width] + random.uniform(0, 90, (height, width, 3))).astype(np.uint8)
