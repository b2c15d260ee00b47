"""DRAEM's training loss: how far the reconstruction is from the normal image, and the segmentation from the mask.

References:
    Zavrtanik et al., DRAEM, ICCV 2021, equations 1 to 3 and 5.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_WINDOW_SIZE = 11
_SIGMA = 1.5


def l2_loss(reconstruction: jax.Array, image: jax.Array) -> jax.Array:
    """Mean squared error of two [B, H, W, C] images; a scalar."""
    return jnp.mean(jnp.square(reconstruction - image))


def ssim_loss(reconstruction: jax.Array, image: jax.Array, *, dynamic_range: float | jax.Array = 1.0) -> jax.Array:
    """1 - mean structural similarity of two images.

    Args:
        reconstruction: [B, H, W, C] float32.
        image: [B, H, W, C] float32.
        dynamic_range: L of the formula, the extent of the values; a number or a scalar array.

    Returns:
        Scalar in [0, 2].

    References:
        Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004, equation 13;
        11x11 Gaussian window of sigma 1.5, C1 = (0.01 L)^2, C2 = (0.03 L)^2, zeros outside the image.
    """
    count = image.shape[0]
    c1 = (0.01 * dynamic_range) ** 2
    c2 = (0.03 * dynamic_range) ** 2
    moments = [reconstruction, image, reconstruction**2, image**2, reconstruction * image]
    means = _gaussian_mean(jnp.concatenate(moments))
    mu_r, mu_i, mean_rr, mean_ii, mean_ri = (means[k * count : (k + 1) * count] for k in range(5))
    variances = (mean_rr - mu_r**2) + (mean_ii - mu_i**2)
    covariance = mean_ri - mu_r * mu_i
    similarity = ((2 * mu_r * mu_i + c1) * (2 * covariance + c2)) / ((mu_r**2 + mu_i**2 + c1) * (variances + c2))
    return 1 - jnp.mean(similarity)


def authors_dynamic_range(lowest: float | jax.Array, highest: float | jax.Array) -> jax.Array:
    """L as the authors' code guesses it: 255 if `highest` exceeds 128, else 1; one more if `lowest` is below -0.5."""
    return jnp.where(highest > 128, 255.0, 1.0) - jnp.where(lowest < -0.5, -1.0, 0.0)


def _gaussian_mean(images: jax.Array) -> jax.Array:
    """The Gaussian window's mean around each pixel of [N, H, W, C], as two products with banded matrices.

    A depthwise convolution is many times slower on a CPU. The bands end at the border, as if zeros lay beyond it.
    The precision is the highest because variances are differences of nearly equal numbers.
    """
    height, width = images.shape[1:3]
    exact = lax.Precision.HIGHEST
    images = jnp.einsum('hk,nkwc->nhwc', _gaussian_band(height), images, precision=exact)
    return jnp.einsum('wk,nhkc->nhwc', _gaussian_band(width), images, precision=exact)


def _gaussian_band(size: int) -> jax.Array:
    """[size, size] float32: row k holds the 11-tap Gaussian centred on k, cut at the ends."""
    offset = np.arange(size)[:, None] - np.arange(size)[None, :]
    taps = np.exp(-((np.arange(_WINDOW_SIZE) - _WINDOW_SIZE // 2) ** 2) / (2 * _SIGMA**2))
    band = np.exp(-(offset**2) / (2 * _SIGMA**2)) * (np.abs(offset) <= _WINDOW_SIZE // 2) / taps.sum()
    return jnp.asarray(band, jnp.float32)


def focal_loss(logits: jax.Array, mask: jax.Array, *, gamma: float = 2.0) -> jax.Array:
    """Cross-entropy that fades on pixels already classified well.

    Args:
        logits: [B, H, W, 2] scores of normal and anomalous.
        mask: [B, H, W, 1], 1 on anomalous pixels and 0 elsewhere.
        gamma: how fast easy pixels fade, at least 0; 0 is plain cross-entropy. A number, not a traced array.

    Returns:
        Scalar, the mean over pixels of -(1 - p)^gamma log p, p the probability of the true class.

    References:
        Lin et al., Focal Loss for Dense Object Detection, 2017, equation 4.
    """
    if gamma < 1:
        # The slope of a power below 1 has no bound at 0, where 1 - p is for a sure and right pixel. Of the margin by
        # which the true class leads, 1 - p is exp(-softplus(margin)), and no factor of the gradient exceeds 1.
        lead = logits[..., 1].astype(jnp.float32) - logits[..., 0].astype(jnp.float32)
        margin = jnp.where(mask[..., 0] > 0.5, lead, -lead)
        return jnp.mean(jnp.exp(-gamma * jax.nn.softplus(margin)) * jax.nn.softplus(-margin))
    log_probability = jax.nn.log_softmax(logits.astype(jnp.float32))
    log_p = jnp.where(mask[..., 0] > 0.5, log_probability[..., 1], log_probability[..., 0])
    return -jnp.mean((-jnp.expm1(log_p)) ** gamma * log_p)


def draem_loss(
    reconstruction: jax.Array,
    logits: jax.Array,
    image: jax.Array,
    mask: jax.Array,
    *,
    l2: float = 1.0,
    ssim: float = 1.0,
    focal: float = 1.0,
    gamma: float = 2.0,
    dynamic_range: float | jax.Array = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The sum that DRAEM minimises, with its parts.

    Args:
        reconstruction: [B, H, W, 3] float32.
        logits: [B, H, W, 2] float32.
        image: [B, H, W, 3] float32 in [0, 1], the normal image.
        mask: [B, H, W, 1] float32, 1 where the anomaly was pasted.
        l2, ssim, focal: weights of the three parts, 1 in the paper.
        gamma: of the focal loss.
        dynamic_range: of SSIM, a number or a scalar array.

    Returns:
        The weighted sum, and {'l2', 'ssim', 'focal'}: the parts without their weights.
    """
    parts = {
        'l2': l2_loss(reconstruction, image),
        'ssim': ssim_loss(reconstruction, image, dynamic_range=dynamic_range),
        'focal': focal_loss(logits, mask, gamma=gamma),
    }
    return l2 * parts['l2'] + ssim * parts['ssim'] + focal * parts['focal'], parts
