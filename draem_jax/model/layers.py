"""The operations that DRAEM's networks are made of, with gradients that are fast on every backend.

XLA's own operations and gradients are correct, but some are slow on a CPU. There its gradient of max pooling is some
twenty times slower than the one here. Its gradient of a convolution's kernel is up to four times slower than the one of
`cpu_convolution`, which is faster for convolutions of few channels too.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from draem_jax import devices
from draem_jax.model import cpu_convolution


@jax.custom_vjp
def max_pool2x2(x: jax.Array) -> jax.Array:
    """The maximum of each 2x2 cell: [B, H, W, C] -> [B, H/2, W/2, C], H and W even.

    Among equal maxima the first in reading order receives the whole gradient, as in PyTorch.
    """
    return functools.reduce(jnp.maximum, _corners(x))


def _corners(x: jax.Array) -> list[jax.Array]:
    """The four [B, H/2, W/2, C] images of a 2x2 cell's corners, in reading order."""
    return [x[:, i::2, j::2, :] for i in (0, 1) for j in (0, 1)]


def _max_pool2x2_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    largest = max_pool2x2(x)
    return largest, (x, largest)


def _max_pool2x2_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    x, largest = saved
    free = jnp.ones_like(largest, dtype=bool)
    parts = []
    for corner in _corners(x):
        wins = free & (corner == largest)
        parts.append(jnp.where(wins, gradient, jnp.zeros_like(gradient)))
        free = free & ~wins
    return (_interleave(parts),)


def _interleave(parts: list[jax.Array]) -> jax.Array:
    """Four images of a 2x2 cell's corners, in reading order -> one image of twice the height and width."""
    top, bottom = (jnp.stack(parts[i : i + 2], axis=3) for i in (0, 2))  # [B, H, W, 2, C]
    cells = jnp.stack([top, bottom], axis=2)  # [B, H, 2, W, 2, C]
    B, H, _, W, _, C = cells.shape
    return cells.reshape(B, 2 * H, 2 * W, C)


max_pool2x2.defvjp(_max_pool2x2_forward, _max_pool2x2_backward)


def upsample2x(x: jax.Array) -> jax.Array:
    """Bilinear enlargement with the corners kept in place: [B, H, W, C] -> [B, 2H, 2W, C].

    This is the `align_corners=True` of PyTorch: output i lies at i (n - 1) / (2 n - 1) of the n inputs, hence
    out[2k] = x[k] + (x[k-1] - x[k]) k / (2n - 1) and out[2k+1] = x[k] + (x[k+1] - x[k]) (n - 1 - k) / (2n - 1).
    """
    return _upsample_axis(_upsample_axis(x, axis=1), axis=2)


def _upsample_axis(x: jax.Array, axis: int) -> jax.Array:
    n = x.shape[axis]
    shape = [1] * x.ndim
    shape[axis] = n
    toward_previous = (jnp.arange(n, dtype=jnp.float32) / (2 * n - 1)).reshape(shape).astype(x.dtype)
    toward_next = (jnp.arange(n - 1, -1, -1, dtype=jnp.float32) / (2 * n - 1)).reshape(shape).astype(x.dtype)
    # At the two ends the weight is 0, so what stands in for the missing neighbour does not matter.
    previous = lax.concatenate([lax.slice_in_dim(x, 0, 1, axis=axis), lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)
    following = lax.concatenate([lax.slice_in_dim(x, 1, n, axis=axis), lax.slice_in_dim(x, n - 1, n, axis=axis)], axis)
    even = x + (previous - x) * toward_previous
    odd = x + (following - x) * toward_next
    out = jnp.stack([even, odd], axis=axis + 1)
    return out.reshape(x.shape[:axis] + (2 * n,) + x.shape[axis + 1 :])


def convolve(x: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """`lax.conv_general_dilated` for `nn.Conv`, but `cpu_convolution` for 3x3 kernels on a CPU.

    The latter has stride 1 and padding 'SAME', whatever the other arguments say: the networks use no others with 3x3.
    """
    if devices.on_cpu() and kernel.shape[:2] == (3, 3):
        return cpu_convolution.convolve3x3(x, kernel)
    return lax.conv_general_dilated(x, kernel, *args, **kwargs)


def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, rectify: bool, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch normalisation with the statistics of the batch, in float32 whatever the dtype of the images.

    On accelerators memory is short, so only `x` is kept for the gradient, in its own dtype: no float32 copy, and
    nothing for ReLU. On a CPU that takes longer than the gradient that JAX derives.

    Args:
        x: [B, H, W, C].
        scale, bias: [C] float32.
        epsilon: added to the variance.
        rectify: whether ReLU follows.
        axis_name: the mapped axis of devices over which the statistics are averaged, or None.

    Returns:
        [B, H, W, C] of the dtype of `x`, and the mean and the variance, [C] float32, for the running statistics
        only: on accelerators no gradient flows through them.

    References:
        Ioffe and Szegedy, Batch Normalization, 2015.
    """
    chosen = _normalise if devices.on_cpu() else _lean_normalise
    return chosen(x, scale, bias, epsilon, rectify, axis_name)


def scale_and_shift(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    *,
    epsilon: float,
    rectify: bool,
) -> jax.Array:
    """Normalises [B, H, W, C] with given statistics, [C] float32; each pixel is rounded once."""
    factor = scale * lax.rsqrt(var + epsilon)
    out = x.astype(jnp.float32) * _per_channel(factor) + _per_channel(bias - mean * factor)
    return (jax.nn.relu(out) if rectify else out).astype(x.dtype)


def _normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, rectify: bool, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    # Two passes: E[x^2] - E[x]^2 loses the variance of channels whose mean is large.
    wide = x.astype(jnp.float32)
    mean = _over_devices(_channel_means(wide), axis_name)
    var = _over_devices(_channel_means(jnp.square(wide - _per_channel(mean))), axis_name)
    return scale_and_shift(x, scale, bias, mean, var, epsilon=epsilon, rectify=rectify), mean, var


_lean_normalise = jax.custom_vjp(_normalise, nondiff_argnums=(3, 4, 5))


def _normalise_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, rectify: bool, axis_name: str | None
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    out, mean, var = _normalise(x, scale, bias, epsilon, rectify, axis_name)
    return (out, mean, var), (x, scale, bias, mean, var)


def _normalise_backward(
    epsilon: float,
    rectify: bool,
    axis_name: str | None,
    saved: tuple[jax.Array, ...],
    gradients: tuple[jax.Array, ...],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, bias, mean, var = saved
    gradient = gradients[0].astype(jnp.float32)
    if rectify:
        is_positive = scale_and_shift(x, scale, bias, mean, var, epsilon=epsilon, rectify=False) > 0
        gradient = jnp.where(is_positive, gradient, 0)
    inverse = lax.rsqrt(var + epsilon)
    normal = (x.astype(jnp.float32) - _per_channel(mean)) * _per_channel(inverse)
    count = x.size // x.shape[-1]
    bias_mean, scale_mean = _channel_means(gradient), _channel_means(gradient * normal)
    # The images of all devices share the statistics, so the way through them is averaged over devices here. The
    # gradients of scale and bias are averaged later, with those of all other parameters.
    through_mean, through_var = _over_devices(bias_mean, axis_name), _over_devices(scale_mean, axis_name)
    x_gradient = _per_channel(scale * inverse) * (
        gradient - _per_channel(through_mean) - normal * _per_channel(through_var)
    )
    return x_gradient.astype(x.dtype), count * scale_mean, count * bias_mean


_lean_normalise.defvjp(_normalise_forward, _normalise_backward)


def _per_channel(values: jax.Array) -> jax.Array:
    return values.reshape(1, 1, 1, -1)


def _channel_means(x: jax.Array) -> jax.Array:
    """The means over all but the last dimension, of float32."""
    return x.mean(axis=(0, 1, 2))


def _over_devices(values: jax.Array, axis_name: str | None) -> jax.Array:
    return values if axis_name is None else lax.pmean(values, axis_name)
