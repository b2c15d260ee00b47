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
    convolve_reflected,
    convolve_to_float32,
    max_pool2x2,
    normalise,
    scale_and_shift,
    upsample2x,
)
from draem_jax.model.similarity import gaussian_mean

SIZE_MULTIPLE = 32  # five halvings in the discriminative network
BOTH, DISCRIMINATIVE, RECONSTRUCTIVE = 'both', 'discriminative', 'reconstructive'
SEGMENTATION, SSIM, MSGMS = 'segmentation', 'ssim', 'msgms'  # what an anomaly map is made of
ZEROS, REFLECT = 'zeros', 'reflect'  # what convolutions see beyond the border

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
        padding: ZEROS, or REFLECT, where images are at least 64 pixels high and wide.
    """

    widths: tuple[int, ...]
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    remat: bool = False
    padding: str = ZEROS

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
                conv_general_dilated=convolve if self.padding == ZEROS else convolve_reflected,
            )(x)
            x = BatchNorm(axis_name=self.axis_name, rectify=True)(x, train=train)
        return x


def last_convolution(
    channels: int,
    dtype: DTypeLike,
    name: str = 'output',
    bias_init: nn.initializers.Initializer = nn.initializers.zeros,
) -> nn.Conv:
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
    return nn.Conv(
        channels, (3, 3), kernel_init=nn.initializers.normal(0.02), bias_init=bias_init, name=name, **options
    )


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
    padding: str = ZEROS

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        w = self.width
        options = _block_options(self)
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
        anomaly_prior: the probability of an anomaly before the first step, where no feature speaks for or against one.
    """

    width: int = 64
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    remat: bool = False
    padding: str = ZEROS
    anomaly_prior: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        w = self.width
        options = _block_options(self)
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
        bias = prior_bias(self.anomaly_prior)
        return last_convolution(2, self.dtype, bias_init=lambda *_: jnp.asarray(bias))(x)


def _block_options(network: nn.Module) -> dict[str, Any]:
    """What all blocks of the networks share, as keywords of `ConvBlock` and of both networks."""
    return {name: getattr(network, name) for name in ('dtype', 'axis_name', 'remat', 'padding')}


def prior_bias(prior: float) -> np.ndarray:
    """The biases of the two logits at which an anomaly has the probability `prior`, float32 [2], of mean 0.

    The output of the last block is at least 0. Starting at even odds, narrow networks make all of its features say
    "normal", as nearly all pixels are, and an anomaly is where all features are 0: then only the bias is left, the map
    cannot exceed what it says, 0.52 to 0.62 in our runs, and strong anomalies tie. Starting at a low prior, "normal" is
    what is left where all features are 0, and they learn to speak for anomalies.

    References:
        Lin et al., Focal Loss for Dense Object Detection, 2017, section 4.1, which starts at 0.01 to keep the many easy
        pixels from ruling the first steps.
    """
    half = np.float32(math.log(prior / (1 - prior)) / 2)
    return np.array([-half, half])


class Draem(nn.Module):
    """Both networks, one after the other, or one of them alone.

    The reconstruction is not detached: the segmentation loss trains the reconstructive network too.

    Attributes:
        reconstructive_width: channels of the first stage of the reconstructive network.
        discriminative_width: channels of the first stage of the discriminative network.
        dtype: of activations; parameters, batch statistics and both outputs are float32.
        axis_name: the mapped axis of devices over which batch statistics are averaged, or None.
        remat: train with less memory and more time: every block is computed once more on the way back.
        networks: BOTH; DISCRIMINATIVE alone, which sees the image only; or RECONSTRUCTIVE alone.
        anomaly_map: what `scoring.make_predict` makes the map of: SEGMENTATION, or SSIM or MSGMS of the image and its
            reconstruction.
        padding: what convolutions see beyond the border, ZEROS or REFLECT.
        anomaly_prior: of `DiscriminativeSubnetwork`.
        sees_difference: whether the discriminative network also sees |image - reconstruction|.
        high_pass_sigma: if it is not 0, the reconstructive network sees the image minus its Gaussian mean of that
            sigma in pixels, and so does not see the large-scale brightness that it is to restore.

    References:
        Zavrtanik et al., DRAEM, table 3 (one network alone); Zhang et al., DiffAD (ICCV 2023) and Rolih et al.,
        SuperSimpleNet (ICPR 2024), which give differences to their segmentation; Liu et al., FAIR: Frequency-aware
        Image Restoration for Industrial Visual Anomaly Detection (2023), which restores from high frequencies, with
        filters of its own.
    """

    reconstructive_width: int = 128
    discriminative_width: int = 64
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    remat: bool = False
    networks: str = BOTH
    anomaly_map: str = SEGMENTATION
    padding: str = ZEROS
    anomaly_prior: float = 0.5
    sees_difference: bool = False
    high_pass_sigma: float = 0.0

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array | None, jax.Array | None]:
        """Restores and segments.

        Args:
            image: [B, H, W, 3] float32 in [0, 1]; H and W multiples of 32.
            train: normalise with the batch's statistics (and update the running ones) or with the running ones.

        Returns:
            reconstruction [B, H, W, 3] float32, unbounded, and logits [B, H, W, 2] float32; None for what a missing
            network would give.
        """
        check_image_size(image.shape[1:3], self.padding)
        options = _block_options(self)
        narrow = image.astype(self.dtype)
        seen, reconstruction = [narrow], None
        if self.networks != DISCRIMINATIVE:
            given = high_pass(image, self.high_pass_sigma).astype(self.dtype) if self.high_pass_sigma else narrow
            restore = ReconstructiveSubnetwork(self.reconstructive_width, **options, name='reconstructive')
            reconstruction = restore(given, train=train)
            seen.insert(0, reconstruction.astype(self.dtype))
            if self.sees_difference:
                seen.append(jnp.abs(seen[1] - seen[0]))
        if self.networks == RECONSTRUCTIVE:
            return reconstruction, None
        segment = DiscriminativeSubnetwork(
            self.discriminative_width, anomaly_prior=self.anomaly_prior, **options, name='discriminative'
        )
        return reconstruction, segment(jnp.concatenate(seen, axis=-1), train=train)


def high_pass(images: jax.Array, sigma: float) -> jax.Array:
    """Images [B, H, W, C] float32 minus their Gaussian means; `sigma` in pixels."""
    return images - gaussian_mean(images, sigma, 2 * math.ceil(3 * sigma) + 1, is_whole=True)


def scale_images(images: jax.Array) -> jax.Array:
    """uint8 in 0..255 -> float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def check_image_size(size: tuple[int, ...], padding: str = ZEROS) -> None:
    """Raises UserError unless height and width are multiples of 32, and at least 64 where they are mirrored."""
    if any(side < SIZE_MULTIPLE or side % SIZE_MULTIPLE for side in size):
        raise UserError(
            f'Height and width must be multiples of {SIZE_MULTIPLE} (the discriminative network halves the image five '
            f'times); found {tuple(size)}.'
        )
    if padding == REFLECT and min(size) < 2 * SIZE_MULTIPLE:  # One pixel is left of 32, and it has no neighbour.
        raise UserError(f'model.padding={padding!r} takes images of at least 64 x 64 pixels; found {tuple(size)}.')


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
    biases and running means 0, running variances 1. The last biases of the discriminative network follow from its
    `anomaly_prior`.

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
        if [part.key for part in path[-3:]] == ['discriminative', 'output', 'bias']:
            return prior_bias(model.anomaly_prior)
        if name == 'kernel':
            return random.normal(0.0, 0.02, leaf.shape).astype(np.float32)
        if name == 'scale':
            return random.normal(1.0, 0.02, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, {'bias': 0.0, 'mean': 0.0, 'var': 1.0}[name], np.float32)

    return jax.tree_util.tree_map_with_path(draw, variable_shapes(model, image_size))


def make_model(*, dtype: str, axis_name: str | None = None, **options: Any) -> Draem:
    """`Draem` with its dtype by name: 'float32', 'bfloat16', or 'auto': float32 on a CPU, bfloat16 elsewhere.

    Args:
        dtype: the name.
        axis_name: the mapped axis of devices, or None.
        **options: further attributes of `Draem`.
    """
    if dtype == 'auto':
        dtype = 'float32' if devices.on_cpu() else 'bfloat16'
    return Draem(dtype=jnp.dtype(dtype), axis_name=axis_name, **options)
