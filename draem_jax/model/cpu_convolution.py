"""3x3 convolution and its gradients for CPUs: the same numbers as XLA's own, up to rounding, in less time.

GPUs and TPUs need none of this. For a CPU, XLA compiles two cases badly: convolutions of few channels, and the gradient
of the kernel where images are large. This file expresses both as other convolutions, which XLA compiles well.
`layers.convolve` decides when they are used.
"""

import jax
import jax.numpy as jnp
from jax import lax

# XLA for a CPU gives float32 convolutions of more channels than these to YNNPACK, which is up to eight times as fast.
_FEW_CHANNELS = 16

# The kernel's gradient is computed in parts of the images. A part is read again and again, so it has to fit into a
# core's second cache. For images smaller than the second number XLA's own gradient is faster.
_MAX_PART_BYTES = 2**19
_MIN_BYTES_FOR_PARTS = 2**21


@jax.custom_vjp
def convolve3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution with zeros beyond the border: x [B, H, W, C], kernel [3, 3, C, O] -> [B, H, W, O]."""
    return _packed_convolution(x, kernel)


def _convolve3x3_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _packed_convolution(x, kernel), (x, kernel)


def _convolve3x3_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    input_gradient = _packed_convolution(gradient, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    if x.shape[3] > gradient.shape[3] and kernel.size < x.size:
        # The products are cheapest where the second array has more channels. Swapping the two mirrors the shifts.
        kernel_gradient = _kernel_gradient(gradient, x)[::-1, ::-1].transpose(0, 1, 3, 2)
    else:
        kernel_gradient = _kernel_gradient(x, gradient)
    return input_gradient, kernel_gradient.astype(kernel.dtype)


convolve3x3.defvjp(_convolve3x3_forward, _convolve3x3_backward)


def _packed_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution of XLA; where there are few channels, with neighbouring pixels of a row joined into one.

    Joining makes the channels many enough for the fast code. It also multiplies by zeros, which pays only where input
    and output both have few channels.

    Args:
        x: [B, H, W, C].
        kernel: [3, 3, C, O].

    Returns:
        [B, H, W, O].
    """
    B, H, W, C = x.shape
    features = kernel.shape[3]
    # With fewer than 5 channels even four pixels are not enough. Joining more would cost more in multiplications by
    # zero than the fast code gains.
    packed = next((count for count in (1, 2, 4) if count * max(C, features) > _FEW_CHANNELS), 1)
    if packed == 1 or W % packed:
        return _same_convolution(x, kernel)
    # Each cell joins `packed` pixels, and the first cell begins one pixel left of the image. So the cell of the result
    # at k, which needs its own pixels and one more on either side, finds them all in cells k and k + 1 of the input.
    cells = jnp.pad(x, ((0, 0), (0, 0), (1, packed - 1), (0, 0))).reshape(B, H, W // packed + 1, packed * C)
    shifted = [jnp.pad(kernel, ((0, 0), (k, 2 * packed - 3 - k), (0, 0), (0, 0))) for k in range(packed)]
    wide = jnp.stack(shifted, axis=3).reshape(3, 2, packed * C, packed * features)
    out = lax.conv_general_dilated(cells, wide, (1, 1), ((1, 1), (0, 0)), dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return out.reshape(B, H, W, features)


def _same_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """[3, 3, C, O] from x [B, H, W, C] and the gradient of the result, [B, H, W, O]."""
    if max(x.nbytes, gradient.nbytes) >= _MIN_BYTES_FOR_PARTS:
        return _correlate3x3(x, gradient)
    shape = jax.ShapeDtypeStruct((3, 3, x.shape[3], gradient.shape[3]), x.dtype)
    return jax.linear_transpose(lambda kernel: _same_convolution(x, kernel), shape)(gradient)[0]


def _correlate3x3(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Sums of products of the pixels of `x`, shifted by -1 to 1 either way, and those of `gradient`.

    This is a convolution with the gradient as its kernel, which is as large as the image. It is made in parts, each a
    few rows of one image, and the parts are added.

    Args:
        x: [B, H, W, C].
        gradient: [B, H, W, O].

    Returns:
        [3, 3, C, O] float32.
    """
    B, H, W, C = x.shape
    rows = H
    while rows % 2 == 0 and rows * gradient.nbytes // (B * H) > _MAX_PART_BYTES:
        rows //= 2
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def add_part(total: jax.Array, part: jax.Array) -> tuple[jax.Array, None]:
        image, top = part // (H // rows), part % (H // rows) * rows
        pixels = lax.dynamic_slice(padded, (image, top, 0, 0), (1, rows + 2, W + 2, C))
        weights = lax.dynamic_slice(gradient, (image, top, 0, 0), (1, rows, W, gradient.shape[3]))
        total += lax.conv_general_dilated(
            pixels.transpose(3, 1, 2, 0),  # The channels take the place of images, and the image that of channels.
            weights.transpose(1, 2, 0, 3),
            (1, 1),
            'VALID',
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            preferred_element_type=jnp.float32,
        )
        return total, None

    start = jnp.zeros((C, 3, 3, gradient.shape[3]), jnp.float32)
    total, _ = lax.scan(add_part, start, jnp.arange(B * H // rows))
    return total.transpose(1, 2, 0, 3)
