"""A 3x3 convolution and its gradients as a CPU computes them fastest; on other backends XLA's own are as good."""

import jax
import jax.numpy as jnp
from jax import lax

# What a part of the images may take, in bytes, for the kernel's gradient: it is read again and again, so it has to stay
# in a core's second cache; and from which size on parts are faster than XLA's own gradient.
_PART_BYTES = 2**19
_PARTED_FROM = 2**21

# Up to how many channels XLA for a CPU takes a convolution for too narrow for its fast code.
_NARROW = 16


def _same_convolution(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _packed_convolution(x, kernel):
    """`_same_convolution` with some neighbours in a row as one pixel, where there are few channels.

    XLA for a CPU gives float32 convolutions of more than 16 channels to YNNPACK, which computes up to eight times as
    fast as what the others get. This multiplies more, by zeros; it pays where they are at most 16.

    Args:
        x: [B, H, W, C].
        kernel: [3, 3, C, O].

    Returns:
        [B, H, W, O].
    """
    B, H, W, C = x.shape
    features = kernel.shape[3]
    # Of fewer channels so many would have to come together that the zeros cost more than is won.
    packed = next((count for count in (1, 2, 4) if count * max(C, features) > _NARROW), 1)
    if packed == 1 or W % packed:
        return _same_convolution(x, kernel)
    # Cells of `packed` pixels begin one pixel outside: what one of as many pixels of the result needs, with a pixel
    # more on either side, lies in the cell at its place and the next.
    cells = jnp.pad(x, ((0, 0), (0, 0), (1, packed - 1), (0, 0))).reshape(B, H, W // packed + 1, packed * C)
    moved = [jnp.pad(kernel, ((0, 0), (k, 2 * packed - 3 - k), (0, 0), (0, 0))) for k in range(packed)]
    wide = jnp.stack(moved, axis=3).reshape(3, 2, packed * C, packed * features)
    out = lax.conv_general_dilated(cells, wide, (1, 1), ((1, 1), (0, 0)), dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return out.reshape(B, H, W, features)


@jax.custom_vjp
def convolve3x3(x, kernel):
    return _packed_convolution(x, kernel)


def _convolve3x3_forward(x, kernel):
    return _packed_convolution(x, kernel), (x, kernel)


def _convolve3x3_backward(saved, gradient):
    x, kernel = saved
    input_gradient = _packed_convolution(gradient, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    if x.shape[3] > gradient.shape[3] and kernel.size < x.size:
        # Seen from the output the image is shifted the other way; the side with more channels takes the part of a
        # kernel in the products below, where channels are what is cheap.
        kernel_gradient = _kernel_gradient(gradient, x)[::-1, ::-1].transpose(0, 1, 3, 2)
    else:
        kernel_gradient = _kernel_gradient(x, gradient)
    return input_gradient, kernel_gradient.astype(kernel.dtype)


def _kernel_gradient(x, gradient):
    """[3, 3, C, O] from x [B, H, W, C] and the gradient of the result, [B, H, W, O]."""
    if max(x.nbytes, gradient.nbytes) >= _PARTED_FROM:
        return _correlate3x3(x, gradient)
    shape = jax.ShapeDtypeStruct((3, 3, x.shape[3], gradient.shape[3]), x.dtype)
    return jax.linear_transpose(lambda kernel: _same_convolution(x, kernel), shape)(gradient)[0]


def _correlate3x3(x, gradient):
    """Sums of products of the pixels of `x`, shifted by -1 to 1 either way, and those of `gradient`.

    It is a convolution of which the gradient is the kernel, as large as the image: in parts of a few rows of one image.

    Args:
        x: [B, H, W, C].
        gradient: [B, H, W, O].

    Returns:
        [3, 3, C, O] float32.
    """
    B, H, W, C = x.shape
    rows = H
    while rows % 2 == 0 and rows * gradient.nbytes // (B * H) > _PART_BYTES:
        rows //= 2
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def add_part(total, part):
        image, top = part // (H // rows), part % (H // rows) * rows
        pixels = lax.dynamic_slice(padded, (image, top, 0, 0), (1, rows + 2, W + 2, C))
        weights = lax.dynamic_slice(gradient, (image, top, 0, 0), (1, rows, W, gradient.shape[3]))
        total += lax.conv_general_dilated(
            pixels.transpose(3, 1, 2, 0),  # Channels in the place of images, and one channel.
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


convolve3x3.defvjp(_convolve3x3_forward, _convolve3x3_backward)
