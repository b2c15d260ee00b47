"""The three operations that DRAEM's networks are made of, with gradients that are fast on every backend.

XLA's own gradients of these are correct; on a CPU the one of max pooling is some twenty times slower than
what is written here, and the one of a convolution's kernel up to four times; so are convolutions of few channels.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

# What a part of the images may take, in bytes, for the kernel's gradient: it is read again and again, so it has to stay
# in a core's second cache; and from which size on parts are faster than XLA's own gradient.
_PART_BYTES = 2**19
_PARTED_FROM = 2**21

# Up to how many channels XLA for a CPU takes a convolution for too narrow for its fast code.
_NARROW = 16


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
    """`lax.conv_general_dilated`, for `nn.Conv(conv_general_dilated=...)`; on a CPU by faster ways."""
    if jax.default_backend() == 'cpu' and kernel.shape[:2] == (3, 3):
        return _convolve3x3(x, kernel)
    return lax.conv_general_dilated(x, kernel, *args, **kwargs)


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
def _convolve3x3(x, kernel):
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


_convolve3x3.defvjp(_convolve3x3_forward, _convolve3x3_backward)


def normalise(x, scale, bias, epsilon, rectify, axis_name):
    """Batch normalisation with the statistics of the batch, in float32 whatever the dtype of the images.

    On accelerators, where memory is short, only `x` is kept for the gradient, in its own dtype: no float32 copy, and
    of ReLU nothing. On a CPU that takes longer than what JAX derives.

    Args:
        x: [B, H, W, C].
        scale, bias: [C] float32.
        epsilon: is added to the variance.
        rectify: whether ReLU follows.
        axis_name: the mapped axis of devices over which the statistics are averaged, or None.

    Returns:
        [B, H, W, C] of the dtype of `x`, and the mean and the variance, [C] float32, through which no gradient flows.

    References:
        Ioffe and Szegedy, Batch Normalization, 2015.
    """
    chosen = _normalise if jax.default_backend() == 'cpu' else _lean_normalise
    return chosen(x, scale, bias, epsilon, rectify, axis_name)


def scale_and_shift(x, scale, bias, mean, var, *, epsilon, rectify):
    """Normalises [B, H, W, C] with given statistics, [C] float32; each pixel is rounded once."""
    factor = scale * lax.rsqrt(var + epsilon)
    out = x.astype(jnp.float32) * _per_channel(factor) + _per_channel(bias - mean * factor)
    return (jax.nn.relu(out) if rectify else out).astype(x.dtype)


def _normalise(x, scale, bias, epsilon, rectify, axis_name):
    # Two passes: E[x^2] - E[x]^2 loses the variance of channels whose mean is large.
    wide = x.astype(jnp.float32)
    mean = _over_devices(_channel_means(wide), axis_name)
    var = _over_devices(_channel_means(jnp.square(wide - _per_channel(mean))), axis_name)
    return scale_and_shift(x, scale, bias, mean, var, epsilon=epsilon, rectify=rectify), mean, var


_lean_normalise = jax.custom_vjp(_normalise, nondiff_argnums=(3, 4, 5))


def _normalise_forward(x, scale, bias, epsilon, rectify, axis_name):
    out, mean, var = _normalise(x, scale, bias, epsilon, rectify, axis_name)
    return (out, mean, var), (x, scale, bias, mean, var)


def _normalise_backward(epsilon, rectify, axis_name, saved, gradients):
    x, scale, bias, mean, var = saved
    gradient = gradients[0].astype(jnp.float32)
    if rectify:
        is_positive = scale_and_shift(x, scale, bias, mean, var, epsilon=epsilon, rectify=False) > 0
        gradient = jnp.where(is_positive, gradient, 0)
    inverse = lax.rsqrt(var + epsilon)
    normal = (x.astype(jnp.float32) - _per_channel(mean)) * _per_channel(inverse)
    count = x.size // x.shape[-1]
    bias_mean, scale_mean = _channel_means(gradient), _channel_means(gradient * normal)
    # Every device's images have a share in the statistics; the parameters' gradients are averaged with all others.
    through_mean, through_var = _over_devices(bias_mean, axis_name), _over_devices(scale_mean, axis_name)
    x_gradient = _per_channel(scale * inverse) * (
        gradient - _per_channel(through_mean) - normal * _per_channel(through_var)
    )
    return x_gradient.astype(x.dtype), count * scale_mean, count * bias_mean


_lean_normalise.defvjp(_normalise_forward, _normalise_backward)


def _per_channel(values):
    return values.reshape(1, 1, 1, -1)


def _channel_means(x):
    """The means over all but the last dimension, of float32."""
    return x.mean(axis=(0, 1, 2))


def _over_devices(values, axis_name):
    return values if axis_name is None else lax.pmean(values, axis_name)
