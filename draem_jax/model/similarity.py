"""How alike two images are, pixel by pixel: by structure (SSIM) and by the strength of edges (MSGMS).

Losses are made of these maps, and for networks that only reconstruct so is the anomaly map.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from draem_jax.model.layers import upsample2x

_WINDOW_SIZE = 11
_SIGMA = 1.5

# The constant of Xue et al. for grey values in [0, 1]; the image, its half, its quarter and its eighth as in RIAD.
_EDGE_CONSTANT = 0.0026
_SCALES = 4


def structural_similarity(first: jax.Array, second: jax.Array, *, dynamic_range: float | jax.Array = 1.0) -> jax.Array:
    """SSIM at each pixel of two images, in each channel.

    Args:
        first: [B, H, W, C] float32.
        second: [B, H, W, C] float32.
        dynamic_range: L of the formula, the extent of the values; a number or a scalar array.

    Returns:
        [B, H, W, C] float32, at most 1.

    References:
        Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004, equation 13;
        11x11 Gaussian window of sigma 1.5, C1 = (0.01 L)^2, C2 = (0.03 L)^2, zeros outside the image.
    """
    count = second.shape[0]
    c1 = (0.01 * dynamic_range) ** 2
    c2 = (0.03 * dynamic_range) ** 2
    moments = [first, second, first**2, second**2, first * second]
    means = gaussian_mean(jnp.concatenate(moments), _SIGMA, _WINDOW_SIZE)
    mu_r, mu_i, mean_rr, mean_ii, mean_ri = (means[k * count : (k + 1) * count] for k in range(5))
    variances = (mean_rr - mu_r**2) + (mean_ii - mu_i**2)
    covariance = mean_ri - mu_r * mu_i
    return ((2 * mu_r * mu_i + c1) * (2 * covariance + c2)) / ((mu_r**2 + mu_i**2 + c1) * (variances + c2))


def edge_similarities(first: jax.Array, second: jax.Array) -> list[jax.Array]:
    """GMS, the likeness of two images' gradient magnitudes, at four scales.

    (2 g h + c) / (g^2 + h^2 + c), where g and h are the magnitudes of the Prewitt gradients of the mean over the
    channels, and c = 0.0026. Each scale has half the height and width of the one before, as means of 2x2 pixels. The
    outermost pixels are repeated beyond the border, so that it is no edge.

    Args:
        first: [B, H, W, C] float32, values about [0, 1], H and W multiples of 8.
        second: likewise.

    Returns:
        Four arrays in (0, 1], [B, H, W, 1] to [B, H/8, W/8, 1].

    References:
        Xue et al., Gradient Magnitude Similarity Deviation, IEEE TIP 2014, equations 1 to 4 (GMS); Zavrtanik, Kristan,
        Skocaj, Reconstruction by inpainting for visual anomaly detection, Pattern Recognition 2021 (MSGMS).
    """
    pair = jnp.stack([first.mean(axis=-1), second.mean(axis=-1)])  # [2, B, H, W]
    similarities = []
    for scale in range(_SCALES):
        if scale:
            _, B, H, W = pair.shape
            pair = pair.reshape(2, B, H // 2, 2, W // 2, 2).mean(axis=(3, 5))
        g, h = _gradient_magnitude(pair)
        similarities.append(((2 * g * h + _EDGE_CONSTANT) / (g**2 + h**2 + _EDGE_CONSTANT))[..., None])
    return similarities


def multi_scale_edge_similarity(first: jax.Array, second: jax.Array) -> jax.Array:
    """MSGMS: the mean of `edge_similarities`, each enlarged to the size of the image; [B, H, W] in (0, 1]."""

    def enlarge(similarity: jax.Array) -> jax.Array:
        while similarity.shape[1] < first.shape[1]:
            similarity = upsample2x(similarity)
        return similarity[..., 0]

    return functools.reduce(jnp.add, map(enlarge, edge_similarities(first, second))) / _SCALES


def _gradient_magnitude(images: jax.Array) -> jax.Array:
    """[..., H, W] -> [..., H, W]: the length of the Prewitt gradient."""
    border = [(0, 0)] * (images.ndim - 2) + [(1, 1)] * 2
    padded = jnp.pad(images, border, mode='edge')
    rows = (padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]) / 3
    columns = (padded[..., :, :-2] + padded[..., :, 1:-1] + padded[..., :, 2:]) / 3
    across, down = rows[..., 2:] - rows[..., :-2], columns[..., 2:, :] - columns[..., :-2, :]
    # The slope of a square root has no bound at 0, which is the gradient of every plain surface.
    return jnp.sqrt(across**2 + down**2 + 1e-12)


def gaussian_mean(images: jax.Array, sigma: float, window_size: int, *, is_whole: bool = False) -> jax.Array:
    """The mean around each pixel of [N, H, W, C] under a Gaussian window, as two products with banded matrices.

    A depthwise convolution is many times slower on a CPU. The bands end at the border, as if zeros lay beyond it. The
    precision is the highest because variances are differences of nearly equal numbers.

    Args:
        images: [N, H, W, C] float32.
        sigma: of the Gaussian, in pixels.
        window_size: side of the window in pixels, odd.
        is_whole: divide by the part of the window that lies in the image, so that nothing darkens towards its border.
    """
    height, width = images.shape[1:3]
    exact = lax.Precision.HIGHEST
    images = jnp.einsum('hk,nkwc->nhwc', _gaussian_band(height, sigma, window_size, is_whole), images, precision=exact)
    return jnp.einsum('wk,nhkc->nhwc', _gaussian_band(width, sigma, window_size, is_whole), images, precision=exact)


def _gaussian_band(size: int, sigma: float, window_size: int, is_whole: bool) -> jax.Array:
    """[size, size] float32: row k holds the taps of the Gaussian centred on k, cut at the ends."""
    offset = np.arange(size)[:, None] - np.arange(size)[None, :]
    taps = np.exp(-((np.arange(window_size) - window_size // 2) ** 2) / (2 * sigma**2))
    band = np.exp(-(offset**2) / (2 * sigma**2)) * (np.abs(offset) <= window_size // 2) / taps.sum()
    if is_whole:
        band /= band.sum(axis=1, keepdims=True)
    return jnp.asarray(band, jnp.float32)
