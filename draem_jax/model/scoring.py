"""Turns images into anomaly maps and image scores."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from draem_jax.model.networks import Variables, scale_images


def anomaly_map(logits: jax.Array) -> jax.Array:
    """The probability of an anomaly at each pixel: logits [B, H, W, 2] -> [B, H, W] in [0, 1]."""
    return jax.nn.softmax(logits.astype(jnp.float32))[..., 1]


def image_score(maps: jax.Array, window_size: int) -> jax.Array:
    """The highest local mean of an anomaly map.

    Args:
        maps: [B, H, W] float32.
        window_size: side of the square window in pixels, odd; 21 in the authors' code at 256 px. The window moves by
            one pixel, and the zeros beyond the border count.

    Returns:
        [B] float32.
    """
    half = window_size // 2
    padding = ((0, 0), (half, half), (0, 0))
    sums = lax.reduce_window(maps, 0.0, lax.add, (1, window_size, 1), (1, 1, 1), padding)
    padding = ((0, 0), (0, 0), (half, half))
    sums = lax.reduce_window(sums, 0.0, lax.add, (1, 1, window_size), (1, 1, 1), padding)
    return jnp.max(sums, axis=(1, 2)) / window_size**2


def make_predict(model: nn.Module, *, score_window: int) -> Callable[[Variables, jax.Array], dict[str, jax.Array]]:
    """Inference on a batch, to be mapped by `devices.parallel_predict` or jitted.

    Args:
        model: `networks.Draem`.
        score_window: side of the window of `image_score`.

    Returns:
        predict(variables, images uint8 [B, H, W, 3]) -> {'reconstruction': uint8 [B, H, W, 3],
        'map': float32 [B, H, W] in [0, 1], 'score': float32 [B]}.
    """

    def predict(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
        outputs: Any = model.apply(variables, scale_images(images), train=False)
        reconstruction, logits = outputs
        maps = anomaly_map(logits)
        visible = jnp.round(255 * jnp.clip(reconstruction, 0, 1)).astype(jnp.uint8)
        return {'reconstruction': visible, 'map': maps, 'score': image_score(maps, score_window)}

    return predict
