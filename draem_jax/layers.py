"""The three operations that DRAEM's networks are made of, with gradients that are fast on every backend.

XLA's own gradients of these are correct; on a CPU the one of max pooling is some twenty times slower than
what is written here, and the one of a wide convolution's kernel up to four times.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

# Below this many input or output channels the matrix products are too thin to gain anything.
_WIDE = 128


@jax.custom_vjp
def max_pool2x2(x):
    """The maximum of each 2x2 cell: [B, H, W, C] -> [B, H/2, W/2, C], H and W even.

    Among equal maxima the first in reading order receives the whole gradient, as in PyTorch.
    """
    return functools.reduce(jnp.maximum, _corners(x))


def _corners(x):
    """The four [B, H/2, W/2, C] images of a 2x2 cell's corners, in reading order."""
    return [x[:, i::2, j::2, :] for i in (0, 1) for j in (0, 1)]


def _max_pool2x2_forward(x):
    largest = max_pool2x2(x)
    return largest, (x, largest)


def _max_pool2x2_backward(saved, gradient):
    x, largest = saved
    free = jnp.ones_like(largest, dtype=bool)
    parts = []
    for corner in _corners(x):
        wins = free & (corner == largest)
        parts.append(jnp.where(wins, gradient, jnp.zeros_like(gradient)))
        free = free & ~wins
    return (_interleave(parts),)


def _interleave(parts):
    """Four images of a 2x2 cell's corners, in reading order -> one image of twice the height and width."""
    top, bottom = (jnp.stack(parts[i : i + 2], axis=3) for i in (0, 2))  # [B, H, W, 2, C]
    cells = jnp.stack([top, bottom], axis=2)  # [B, H, 2, W, 2, C]
    B, H, _, W, _, C = cells.shape
    return cells.reshape(B, 2 * H, 2 * W, C)


max_pool2x2.defvjp(_max_pool2x2_forward, _max_pool2x2_backward)


def upsample2x(x):
    """Bilinear enlargement with the corners kept in place: [B, H, W, C] -> [B, 2H, 2W, C].

    This is the `align_corners=True` of PyTorch: output i lies at i (n - 1) / (2 n - 1) of the n inputs, hence
    out[2k] = x[k] + (x[k-1] - x[k]) k / (2n - 1) and out[2k+1] = x[k] + (x[k+1] - x[k]) (n - 1 - k) / (2n - 1).
    """
    return _upsample_axis(_upsample_axis(x, axis=1), axis=2)


def _upsample_axis(x, axis):
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


def convolve(x, kernel, *args, **kwargs):
    """`lax.conv_general_dilated`, for `nn.Conv(conv_general_dilated=...)`; on a CPU with a faster kernel gradient."""
    if jax.default_backend() == 'cpu' and kernel.shape[:2] == (3, 3) and min(kernel.shape[2:]) >= _WIDE:
        return _convolve3x3(x, kernel)
    return lax.conv_general_dilated(x, kernel, *args, **kwargs)


def _same_convolution(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


@jax.custom_vjp
def _convolve3x3(x, kernel):
    return _same_convolution(x, kernel)


def _convolve3x3_forward(x, kernel):
    return _same_convolution(x, kernel), (x, kernel)


def _convolve3x3_backward(saved, gradient):
    x, kernel = saved
    (input_gradient,) = jax.linear_transpose(lambda x: _same_convolution(x, kernel), x)(gradient)
    # The kernel's gradient at offset (i, j) is the product of the image shifted by (i, j) and the output's gradient.
    B, H, W, C = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    flat_gradient = gradient.reshape(B * H * W, -1)
    rows = [
        padded[:, i : i + H, j : j + W, :].reshape(B * H * W, C).T @ flat_gradient for i in range(3) for j in range(3)
    ]
    return input_gradient, jnp.stack(rows).reshape(kernel.shape)


_convolve3x3.defvjp(_convolve3x3_forward, _convolve3x3_backward)
