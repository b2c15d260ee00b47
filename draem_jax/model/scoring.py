"""Turns images into anomaly maps and image scores."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from draem_jax.model import networks, similarity
from draem_jax.model.networks import Variables, scale_images


def segmentation_map(logits: jax.Array) -> jax.Array:
    """The probability of an anomaly at each pixel: logits [B, H, W, 2] -> [B, H, W] in [0, 1]."""
    return jax.nn.softmax(logits.astype(jnp.float32))[..., 1]


def dissimilarity_map(reconstruction: jax.Array, images: jax.Array, kind: str) -> jax.Array:
    """How unlike an image its reconstruction is at each pixel, for networks that only reconstruct.

    Args:
        reconstruction: [B, H, W, 3] float32.
        images: [B, H, W, 3] float32 in [0, 1].
        kind: networks.SSIM, the mean over the channels of (1 - SSIM) / 2; or networks.MSGMS, 1 - MSGMS (`similarity`).

    Returns:
        [B, H, W] float32 in [0, 1].
    """
    if kind == networks.SSIM:
        maps = (1 - similarity.structural_similarity(reconstruction, images).mean(axis=-1)) / 2
    else:
        maps = 1 - similarity.multi_scale_edge_similarity(reconstruction, images)
    return jnp.clip(maps, 0, 1)  # Rounding leaves the interval by one part in 10^7.


def image_score(maps: jax.Array, window_size: int, top: float = 0.0) -> jax.Array:
    """The highest local mean of an anomaly map, or the mean over the pixels where it is highest.

    Args:
        maps: [B, H, W] float32.
        window_size: side of the square window in pixels, odd; 21 in the authors' code at 256 px. The window moves by
            one pixel, and the zeros beyond the border count.
        top: the part of the pixels, in [0, 1], whose local means are averaged, the highest ones; `count_top` says how
            many they are. 0 takes the highest one alone, as the authors do.

    Returns:
        [B] float32.
    """
    half = window_size // 2
    padding = ((0, 0), (half, half), (0, 0))
    sums = lax.reduce_window(maps, 0.0, lax.add, (1, window_size, 1), (1, 1, 1), padding)
    padding = ((0, 0), (0, 0), (half, half))
    sums = lax.reduce_window(sums, 0.0, lax.add, (1, 1, window_size), (1, 1, 1), padding)
    if not top:
        return jnp.max(sums, axis=(1, 2)) / window_size**2
    highest, _ = lax.top_k(sums.reshape(len(sums), -1), count_top(maps.shape[1:], top))
    return jnp.mean(highest, axis=1) / window_size**2


def count_top(image_size: tuple[int, ...], top: float) -> int:
    """How many pixels are the part `top` of an image of (height, width); at least one."""
    return max(1, round(top * math.prod(image_size)))


def make_predict(
    model: nn.Module, *, score_window: int, score_top: float = 0.0
) -> Callable[[Variables, jax.Array], dict[str, jax.Array]]:
    """Inference on a batch, to be mapped by `devices.parallel_predict` or jitted.

    Args:
        model: `networks.Draem`.
        score_window, score_top: side of the window and part of the pixels of `image_score`.

    Returns:
        predict(variables, images uint8 [B, H, W, 3]) -> {'reconstruction': uint8 [B, H, W, 3],
        'map': float32 [B, H, W] in [0, 1], 'score': float32 [B]}.
    """

    def predict(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
        scaled = scale_images(images)
        outputs: Any = model.apply(variables, scaled, train=False)
        reconstruction, logits = outputs
        kind = getattr(model, 'anomaly_map', networks.SEGMENTATION)
        if kind == networks.SEGMENTATION:
            maps = segmentation_map(logits)
        else:
            maps = dissimilarity_map(reconstruction, scaled, kind)
        visible = images  # A network that only segments takes the image for its own reconstruction.
        if reconstruction is not None:
            visible = jnp.round(255 * jnp.clip(reconstruction, 0, 1)).astype(jnp.uint8)
        return {'reconstruction': visible, 'map': maps, 'score': image_score(maps, score_window, score_top)}

    return predict
