"""The operations that DRAEM's networks are made of, with gradients that are fast on every backend.

XLA's own operations and gradients are correct, but some are slow on a CPU. There its gradient of max pooling is some
twenty times slower than the one here. Its gradient of a convolution's kernel is up to four times slower than the one of
`cpu_convolution`, which is faster for convolutions of few channels too. Accelerators compute these well, but they wait
for memory and for each other: for them some operations here read less and exchange less.
"""

import functools
import itertools
from collections.abc import Sequence
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


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` for `nn.Conv`: the same numbers, up to rounding, in less time.

    The convolutions of these networks (stride 1, padding 'SAME', images [B, H, W, C]) are computed
    - on a CPU with `cpu_convolution`, if the kernel is 3x3;
    - in bfloat16 on accelerators with a multiple of eight input channels, the missing ones filled with zeros. Tensor
      cores read channels in eights, and XLA fills them up for float16 only.
    Any other convolution goes to `lax.conv_general_dilated` as it is.
    """
    usual = ('NHWC', 'HWIO', 'NHWC')
    is_usual = (
        x.ndim == kernel.ndim == 4
        and set(window_strides) == {1}
        and padding == 'SAME'
        and set(lhs_dilation or (1,)) == set(rhs_dilation or (1,)) == {1}
        and lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers)
        == lax.conv_dimension_numbers(x.shape, kernel.shape, usual)
        and feature_group_count == 1
        and all(option is None for option in options.values())
    )
    if is_usual and devices.on_cpu() and kernel.shape[:2] == (3, 3):
        return cpu_convolution.convolve3x3(x, kernel)
    if is_usual and not devices.on_cpu() and x.dtype == jnp.bfloat16:
        x, kernel = _fill_eights(x, axis=3), _fill_eights(kernel, axis=2)
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        **options,
    )


def convolve_reflected(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """3x3 convolution for `nn.Conv` with the image mirrored beyond its border, where `convolve` has zeros.

    It is `convolve` plus what the mirrored pixels add to the outermost rows and columns, because the fast ways of
    `convolve` know zeros alone.

    Args:
        x: [B, H, W, C], H and W at least 2.
        kernel: [3, 3, C, O] of the same dtype.

    Returns:
        [B, H, W, O].
    """
    plain = convolve(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    # The row above the image is its second, the row below its last but one; likewise the columns. The corners belong
    # to the rows, which are as much wider than the image.
    wide = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)), mode='reflect')

    def border(pixels: jax.Array, taps: jax.Array, padding: Sequence[tuple[int, int]]) -> jax.Array:
        return lax.conv_general_dilated(pixels, taps, (1, 1), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

    none = ((0, 0), (0, 0))
    above, below = border(wide[:, 1:2], kernel[:1], none), border(wide[:, -2:-1], kernel[2:], none)
    left = border(x[:, :, 1:2], kernel[:, :1], ((1, 1), (0, 0)))
    right = border(x[:, :, -2:-1], kernel[:, 2:], ((1, 1), (0, 0)))
    H, W = x.shape[1:3]
    plain += jnp.pad(above, ((0, 0), (0, H - 1), (0, 0), (0, 0))) + jnp.pad(below, ((0, 0), (H - 1, 0), (0, 0), (0, 0)))
    return (
        plain
        + jnp.pad(left, ((0, 0), (0, 0), (0, W - 1), (0, 0)))
        + jnp.pad(right, ((0, 0), (0, 0), (W - 1, 0), (0, 0)))
    )


def _fill_eights(x: jax.Array, axis: int) -> jax.Array:
    """Zeros behind the last value of an axis, until its length is a multiple of eight."""
    missing = -x.shape[axis] % 8
    if not missing:
        return x
    return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])


@jax.custom_vjp
def convolve_to_float32(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution of bfloat16 images to few features in float32, with zeros beyond the border.

    One matrix product multiplies each pixel by all nine taps of the kernel, and nine shifted images of the products
    are added. A convolution would not do: where its result is float32, XLA for GPUs first makes float32 copies of its
    operands (its pass OperandUpcaster). It leaves the operands of matrix products as they are.

    Args:
        x: [B, H, W, C] bfloat16.
        kernel: [3, 3, C, O] float32. It is rounded to bfloat16 for the products, and so is the gradient of the result.

    Returns:
        [B, H, W, O] float32; products and sums are float32.
    """
    H, W = x.shape[1:3]
    features = kernel.shape[3]
    products = lax.dot_general(x, _taps(kernel), (((3,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    padded = jnp.pad(products, ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = []
    for tap, (i, j) in enumerate(itertools.product(range(3), range(3))):
        parts.append(padded[:, i : i + H, j : j + W, tap * features : (tap + 1) * features])
    return functools.reduce(jnp.add, parts)


def _taps(kernel: jax.Array) -> jax.Array:
    """[3, 3, C, O] float32 -> [C, 9 O] bfloat16, filled up with zeros to a multiple of eight."""
    flat = kernel.transpose(2, 0, 1, 3).reshape(kernel.shape[2], -1)
    return _fill_eights(flat.astype(jnp.bfloat16), axis=1)


def _convolve_to_float32_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve_to_float32(x, kernel), (x, kernel)


def _convolve_to_float32_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    H, W = x.shape[1:3]
    padded = jnp.pad(gradient.astype(jnp.bfloat16), ((0, 0), (1, 1), (1, 1), (0, 0)))
    # A pixel's product with tap (i, j) went to the pixel of the result that lies (1 - i, 1 - j) from it.
    parts = [padded[:, 2 - i : 2 - i + H, 2 - j : 2 - j + W] for i, j in itertools.product(range(3), range(3))]
    products = _fill_eights(jnp.concatenate(parts, axis=3), axis=3)
    x_gradient = lax.dot_general(products, _taps(kernel), (((3,), (1,)), ((), ())))
    taps_gradient = lax.dot_general(x, products, (((0, 1, 2), (0, 1, 2)), ((), ())), preferred_element_type=jnp.float32)
    channels, features = kernel.shape[2:]
    kernel_gradient = taps_gradient[:, : 9 * features].reshape(channels, 3, 3, features).transpose(1, 2, 0, 3)
    return x_gradient, kernel_gradient


convolve_to_float32.defvjp(_convolve_to_float32_forward, _convolve_to_float32_backward)


def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, rectify: bool, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch normalisation with the statistics of the batch, in float32 for bfloat16 images too.

    On accelerators memory is short, so only `x` is kept for the gradient, in its own dtype: no float32 copy, and
    nothing for ReLU. It is also read only once for both statistics. On a CPU that takes longer than the gradient that
    JAX derives from two readings.

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
    out = _widen(x) * _per_channel(factor) + _per_channel(bias - mean * factor)
    return (jax.nn.relu(out) if rectify else out).astype(x.dtype)


def _combine_statistics(mean: jax.Array, var: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """The mean and the variance of all devices' values, from those of each device's, in one exchange.

    The variance is the mean of the variances plus the variance of the means. No large numbers are subtracted, as in
    E[x^2] - E[x]^2.

    Args:
        mean, var: [C] float32, of equally many values on every device.
        axis_name: the mapped axis of devices, or None.

    References:
        Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    """
    if axis_name is None or lax.axis_size(axis_name) == 1:
        return mean, var
    means, variances = jnp.moveaxis(lax.all_gather(jnp.stack([mean, var]), axis_name), 1, 0)  # [devices, C] each
    mean = means.mean(axis=0)
    return mean, variances.mean(axis=0) + jnp.square(means - mean[None]).mean(axis=0)


def _normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, rectify: bool, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    # Two passes: E[x^2] - E[x]^2 loses the variance of channels whose mean is large.
    wide = _widen(x)
    mean = _over_one_device(_channel_means(wide), axis_name)
    var = _over_one_device(_channel_means(jnp.square(wide - _per_channel(mean))), axis_name)
    mean, var = _combine_statistics(mean, var, axis_name)
    return scale_and_shift(x, scale, bias, mean, var, epsilon=epsilon, rectify=rectify), mean, var


def _over_one_device(values: jax.Array, axis_name: str | None) -> jax.Array:
    """The values as they are. If there is one device, XLA is made to compute them before what follows from them.

    It does not fuse across a mean over devices, even over one. Fused, the losses of a training on a CPU would differ in
    their last bits from those of earlier versions.
    """
    if axis_name is None or lax.axis_size(axis_name) > 1:
        return values
    return lax.pmean(values, axis_name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _lean_normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, rectify: bool, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    wide = _widen(x)
    mean, var = _combine_statistics(*_statistics_in_one_pass(wide), axis_name)
    out = scale_and_shift(wide, scale, bias, mean, var, epsilon=epsilon, rectify=rectify)
    return out.astype(x.dtype), mean, var


def _statistics_in_one_pass(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean and the variance of each channel of [B, H, W, C] float32, with both sums in one reading of the array.

    The sums are of d and of d^2, d = x - shift, and var = E[d^2] - E[d]^2. Rounding these two changes the variance by
    a relative error of the order of eps (1 + 2 k^2), eps = 6e-8, where k is the distance of the shift from the mean in
    standard deviations. With a shift of 0 that is the mean over the standard deviation, which is large for some
    channels. Here the shift is one pixel of the channel itself. For a pixel the mean of k^2 is 1 by the definition of
    the variance, whatever the distribution, and k^2 can never exceed the number of pixels. A pixel also costs no
    reduction, needs no history, and makes constant channels exact.
    """
    shift = x[0, x.shape[1] // 2, x.shape[2] // 2]
    centred = x - _per_channel(shift)
    mean = _channel_means(centred)
    var = _channel_means(jnp.square(centred)) - jnp.square(mean)
    return shift + mean, jnp.maximum(var, 0)


def _lean_normalise_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, rectify: bool, axis_name: str | None
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    out, mean, var = _lean_normalise(x, scale, bias, epsilon, rectify, axis_name)
    return (out, mean, var), (x, scale, bias, mean, var)


def _lean_normalise_backward(
    epsilon: float,
    rectify: bool,
    axis_name: str | None,
    saved: tuple[jax.Array, ...],
    gradients: tuple[jax.Array, ...],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, bias, mean, var = saved
    wide, gradient = _widen(x), _widen(gradients[0])
    if rectify:
        is_positive = scale_and_shift(wide, scale, bias, mean, var, epsilon=epsilon, rectify=False) > 0
        gradient = jnp.where(is_positive, gradient, 0)
    inverse = lax.rsqrt(var + epsilon)
    normal = (wide - _per_channel(mean)) * _per_channel(inverse)
    count = x.size // x.shape[-1]
    bias_mean, scale_mean = _channel_means(gradient), _channel_means(gradient * normal)
    # The images of all devices share the statistics, so the way through them is averaged over devices here. The
    # gradients of scale and bias are averaged later, with those of all other parameters.
    through_mean, through_var = _over_devices(jnp.stack([bias_mean, scale_mean]), axis_name)
    x_gradient = _per_channel(scale * inverse) * (
        gradient - _per_channel(through_mean) - normal * _per_channel(through_var)
    )
    return x_gradient.astype(x.dtype), count * scale_mean, count * bias_mean


_lean_normalise.defvjp(_lean_normalise_forward, _lean_normalise_backward)


def _widen(x: jax.Array) -> jax.Array:
    """The same in float32, or in float64 if it is float64: tests compare whole networks without rounding."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _per_channel(values: jax.Array) -> jax.Array:
    return values.reshape(1, 1, 1, -1)


def _channel_means(x: jax.Array) -> jax.Array:
    """The means over all but the last dimension."""
    return x.mean(axis=(0, 1, 2))


def _over_devices(values: jax.Array, axis_name: str | None) -> jax.Array:
    return values if axis_name is None else lax.pmean(values, axis_name)
