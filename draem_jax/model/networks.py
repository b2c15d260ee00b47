"""The reconstructive and the discriminative network of DRAEM.

References:
    Zavrtanik, Kristan, Skocaj, DRAEM: A discriminatively trained reconstruction embedding for surface anomaly
    detection, ICCV 2021, section 3; widths and layers as in the authors' released code.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.module import InterceptorContext
from jax.typing import DTypeLike

from draem_jax import devices
from draem_jax.errors import UserError
from draem_jax.model.layers import (
    convolve,
    convolve_to_float32,
    max_pool2x2,
    normalise,
    scale_and_shift,
    upsample2x,
)

SIZE_MULTIPLE = 32  # five halvings in the discriminative network

Variables = dict[str, Any]  # {'params', 'batch_stats'}: trees of arrays, or of their shapes


class BatchNorm(nn.Module):
    """Batch normalisation over all pixels of all images of all devices; [B, H, W, C] in and out, of one dtype.

    `flax.linen.BatchNorm` does the same in float32. This one says where bfloat16 images meet float32 statistics: each
    pixel is normalised in float32 and rounded once.

    Attributes:
        axis_name: the mapped axis of devices over which batch statistics are averaged, or None.
        rectify: whether ReLU follows, as part of the same operation.

    References:
        Ioffe and Szegedy, Batch Normalization, 2015; epsilon and momentum as in PyTorch.
    """

    axis_name: str | None = None
    rectify: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        channels = x.shape[-1:]
        scale = self.param('scale', lambda key: 1 + 0.02 * jax.random.normal(key, channels))
        bias = self.param('bias', nn.initializers.zeros, channels)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels)
        running_var = self.variable('batch_stats', 'var', jnp.ones, channels)

        if not train:
            return scale_and_shift(
                x, scale, bias, running_mean.value, running_var.value, epsilon=self.epsilon, rectify=self.rectify
            )
        x, mean, var = normalise(x, scale, bias, self.epsilon, self.rectify, self.axis_name)
        running_mean.value += (1 - self.momentum) * (mean - running_mean.value)
        running_var.value += (1 - self.momentum) * (var - running_var.value)
        return x


class ConvBlock(nn.Module):
    """Convolution 3x3, batch normalisation and ReLU, once for each width.

    The convolutions carry no bias: the normalisation would subtract it again.

    Attributes:
        widths: output channels of each convolution.
        dtype: of the computation; parameters and batch statistics stay float32.
        axis_name: the mapped axis of devices over which batch statistics are averaged, or None.
        remat: keep only the block's input for the backward pass, which then computes the rest once more.
    """

    widths: tuple[int, ...]
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.remat and train:
            return nn.remat(lambda block, x: block.layers(x, train=True))(self, x)
        return self.layers(x, train=train)

    def layers(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The block itself, inside the scope of `__call__`."""
        for width in self.widths:
            x = nn.Conv(
                width,
                (3, 3),
                use_bias=False,
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(0.02),
                conv_general_dilated=convolve,
            )(x)
            x = BatchNorm(axis_name=self.axis_name, rectify=True)(x, train=train)
        return x


def last_convolution(channels: int, dtype: DTypeLike, name: str = 'output') -> nn.Conv:
    """The layer that ends a network of some dtype: convolution 3x3 with bias, [B, H, W, C] -> [B, H, W, channels].

    The result is always float32, because losses and maps would see the rounding. On accelerators the products of a
    bfloat16 network's last layer are of bfloat16 as well, which halves what it reads.
    """
    options: dict[str, Any] = {'dtype': jnp.float32, 'conv_general_dilated': convolve}
    if dtype == jnp.bfloat16 and not devices.on_cpu():
        options = {
            'promote_dtype': lambda *arrays, dtype: arrays,  # as they are
            'conv_general_dilated': lambda x, kernel, *_, **__: convolve_to_float32(x, kernel),
        }
    return nn.Conv(channels, (3, 3), kernel_init=nn.initializers.normal(0.02), name=name, **options)


class ReconstructiveSubnetwork(nn.Module):
    """Restores the normal image from one with an anomaly in it: [B, H, W, 3] -> [B, H, W, 3], linear output.

    Five encoder stages with four poolings, four decoder stages, no skips: what the bottleneck
    cannot hold is lost, and that is the point.

    Attributes:
        width: channels of the first stage; 128 in the paper.
    """

    width: int = 128
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        w = self.width
        options: dict[str, Any] = {'dtype': self.dtype, 'axis_name': self.axis_name, 'remat': self.remat}
        for level, width in enumerate((w, 2 * w, 4 * w, 8 * w, 8 * w)):
            if level > 0:
                x = max_pool2x2(x)
            x = ConvBlock((width, width), **options)(x, train=train)
        for width, next_width in ((8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w), (w, w)):
            x = ConvBlock((width,), **options)(upsample2x(x), train=train)
            x = ConvBlock((width, next_width), **options)(x, train=train)
        return last_convolution(3, self.dtype)(x)


class DiscriminativeSubnetwork(nn.Module):
    """Segments the anomaly from [reconstruction, input]: [B, H, W, 6] -> logits [B, H, W, 2] of normal, anomalous.

    Attributes:
        width: channels of the first stage; 64 in the paper.
    """

    width: int = 64
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        w = self.width
        options: dict[str, Any] = {'dtype': self.dtype, 'axis_name': self.axis_name, 'remat': self.remat}
        skips = []
        for level, width in enumerate((w, 2 * w, 4 * w, 8 * w, 8 * w, 8 * w)):
            if level > 0:
                x = max_pool2x2(x)
            x = ConvBlock((width, width), **options)(x, train=train)
            skips.append(x)
        for width, skip in zip((8 * w, 4 * w, 2 * w, w, w), reversed(skips[:-1]), strict=True):
            x = ConvBlock((width,), **options)(upsample2x(x), train=train)
            x = jnp.concatenate([x, skip], axis=-1)
            x = ConvBlock((width, width), **options)(x, train=train)
        return last_convolution(2, self.dtype)(x)


class Draem(nn.Module):
    """Both networks, one after the other.

    The reconstruction is not detached: the segmentation loss trains the reconstructive network too.

    Attributes:
        reconstructive_width: channels of the first stage of the reconstructive network.
        discriminative_width: channels of the first stage of the discriminative network.
        dtype: of activations; parameters, batch statistics and both outputs are float32.
        axis_name: the mapped axis of devices over which batch statistics are averaged, or None.
        remat: train with less memory and more time: every block is computed once more on the way back.
    """

    reconstructive_width: int = 128
    discriminative_width: int = 64
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Restores and segments.

        Args:
            image: [B, H, W, 3] float32 in [0, 1]; H and W multiples of 32.
            train: normalise with the batch's statistics (and update the running ones) or with the running ones.

        Returns:
            reconstruction [B, H, W, 3] float32, unbounded, and logits [B, H, W, 2] float32.
        """
        check_image_size(image.shape[1:3])
        options: dict[str, Any] = {'dtype': self.dtype, 'axis_name': self.axis_name, 'remat': self.remat}
        image = image.astype(self.dtype)
        reconstruction = ReconstructiveSubnetwork(self.reconstructive_width, **options, name='reconstructive')(
            image, train=train
        )
        pair = jnp.concatenate([reconstruction.astype(self.dtype), image], axis=-1)
        logits = DiscriminativeSubnetwork(self.discriminative_width, **options, name='discriminative')(
            pair, train=train
        )
        return reconstruction, logits


def scale_images(images: jax.Array) -> jax.Array:
    """uint8 in 0..255 -> float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def check_image_size(size: tuple[int, ...]) -> None:
    """Raises UserError unless height and width are multiples of 32."""
    if any(side < SIZE_MULTIPLE or side % SIZE_MULTIPLE for side in size):
        raise UserError(
            f'Height and width must be multiples of {SIZE_MULTIPLE} (the discriminative network halves the image five '
            f'times); found {tuple(size)}.'
        )


def variable_shapes(model: nn.Module, image_size: tuple[int, int]) -> Variables:
    """The shapes of what `init_variables` makes, as a tree of jax.ShapeDtypeStruct: a template to restore into."""
    check_image_size(image_size)
    image = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
    return jax.eval_shape(lambda image: model.init(jax.random.key(0), image, train=False), image)


def forward_flops(model: nn.Module, image_size: tuple[int, int]) -> int:
    """Floating-point operations of the convolutions for one image; a multiplication and an addition count as two.

    A training step takes three times as many: the gradients with respect to the inputs take as many again, and so do
    those with respect to the kernels.

    Args:
        model: `Draem`, or one of its networks.
        image_size: (height, width), multiples of 32.
    """
    total = 0

    def count(
        call: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any], context: InterceptorContext
    ) -> Any:
        nonlocal total
        output = call(*arguments, **options)
        if isinstance(context.module, nn.Conv) and context.method_name == '__call__':
            kernel_size: Any = context.module.kernel_size
            taps = math.prod(kernel_size) * arguments[0].shape[-1]
            total += 2 * taps * output.size
        return output

    with nn.intercept_methods(count):
        variable_shapes(model, image_size)
    return total


def init_variables(model: nn.Module, image_size: tuple[int, int], seed: int) -> Variables:
    """Parameters and batch statistics of `model`, as NumPy arrays, without compiling anything.

    `jax.jit(model.init)` would compile for up to a minute. Here the shapes come from an abstract evaluation, and NumPy
    draws the values: convolution kernels from N(0, 0.02), scales of the normalisation from N(1, 0.02),
    biases and running means 0, running variances 1.

    Args:
        model: a module called as `model(image, train=...)`.
        image_size: (height, width), multiples of 32.
        seed: of NumPy's generator.

    Returns:
        {'params': ..., 'batch_stats': ...}, float32.
    """
    random = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == 'kernel':
            return random.normal(0.0, 0.02, leaf.shape).astype(np.float32)
        if name == 'scale':
            return random.normal(1.0, 0.02, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, {'bias': 0.0, 'mean': 0.0, 'var': 1.0}[name], np.float32)

    return jax.tree_util.tree_map_with_path(draw, variable_shapes(model, image_size))


def make_model(
    *,
    reconstructive_width: int,
    discriminative_width: int,
    dtype: str,
    remat: bool = False,
    axis_name: str | None = None,
) -> Draem:
    """`Draem` with its dtype by name: 'float32', 'bfloat16', or 'auto': float32 on a CPU, bfloat16 elsewhere."""
    if dtype == 'auto':
        dtype = 'float32' if devices.on_cpu() else 'bfloat16'
    return Draem(reconstructive_width, discriminative_width, dtype=jnp.dtype(dtype), axis_name=axis_name, remat=remat)
