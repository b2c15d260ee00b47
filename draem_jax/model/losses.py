"""DRAEM's training loss: how far the reconstruction is from the normal image, and the segmentation from the mask.

References:
    Zavrtanik et al., DRAEM, ICCV 2021, equations 1 to 3 and 5.
"""

import functools

import jax
import jax.numpy as jnp

from draem_jax.model.similarity import edge_similarities, structural_similarity


def l2_loss(reconstruction: jax.Array, image: jax.Array) -> jax.Array:
    """Mean squared error of two [B, H, W, C] images; a scalar."""
    return jnp.mean(jnp.square(reconstruction - image))


def ssim_loss(reconstruction: jax.Array, image: jax.Array, *, dynamic_range: float | jax.Array = 1.0) -> jax.Array:
    """1 - the mean of `similarity.structural_similarity` of two [B, H, W, C] float32 images; a scalar in [0, 2]."""
    return 1 - jnp.mean(structural_similarity(reconstruction, image, dynamic_range=dynamic_range))


def msgms_loss(reconstruction: jax.Array, image: jax.Array) -> jax.Array:
    """1 - the mean over four scales of the mean of `similarity.edge_similarities`; a scalar in [0, 1).

    References:
        Zavrtanik, Kristan, Skocaj, Reconstruction by inpainting for visual anomaly detection, Pattern Recognition 2021.
    """
    means = [jnp.mean(similarity) for similarity in edge_similarities(reconstruction, image)]
    return 1 - jnp.mean(jnp.stack(means))


def authors_dynamic_range(lowest: float | jax.Array, highest: float | jax.Array) -> jax.Array:
    """L as the authors' code guesses it: 255 if `highest` exceeds 128, else 1; one more if `lowest` is below -0.5."""
    return jnp.where(highest > 128, 255.0, 1.0) - jnp.where(lowest < -0.5, -1.0, 0.0)


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


def mask_l1_loss(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean distance of the anomaly map from the mask: logits [B, H, W, 2], mask [B, H, W, 1] in {0, 1}; a scalar.

    References:
        Zhang et al., DeSTSeg: Segmentation Guided Denoising Student-Teacher for Anomaly Detection, CVPR 2023, section
        3.4, which adds it to the focal loss so that maps become sparse.
    """
    return jnp.mean(jnp.abs(jax.nn.softmax(logits.astype(jnp.float32))[..., 1] - mask[..., 0]))


def draem_loss(
    reconstruction: jax.Array | None,
    logits: jax.Array | None,
    image: jax.Array,
    mask: jax.Array,
    *,
    l2: float = 1.0,
    ssim: float = 1.0,
    msgms: float = 0.0,
    focal: float = 1.0,
    gamma: float = 2.0,
    mask_l1: float = 0.0,
    dynamic_range: float | jax.Array = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The sum that DRAEM minimises, with its parts.

    Args:
        reconstruction: [B, H, W, 3] float32; None of a network that only segments.
        logits: [B, H, W, 2] float32; None of a network that only reconstructs.
        image: [B, H, W, 3] float32 in [0, 1], the normal image.
        mask: [B, H, W, 1] float32, 1 where the anomaly was pasted.
        l2, ssim, focal: weights of the three parts, 1 in the paper.
        msgms: weight of `msgms_loss`, which the paper's table 3 adds to a network that only reconstructs.
        gamma: of the focal loss.
        mask_l1: weight of `mask_l1_loss`.
        dynamic_range: of SSIM, a number or a scalar array.

    Returns:
        The weighted sum, and its parts without their weights: 'l2' and 'ssim' where there is a reconstruction, 'focal'
        where there are logits, and 'msgms' and 'mask_l1' if they also have a weight.
    """
    parts = {}
    weights = {'l2': l2, 'ssim': ssim, 'msgms': msgms, 'focal': focal, 'mask_l1': mask_l1}
    if reconstruction is not None:
        parts['l2'] = l2_loss(reconstruction, image)
        parts['ssim'] = ssim_loss(reconstruction, image, dynamic_range=dynamic_range)
        if msgms:
            parts['msgms'] = msgms_loss(reconstruction, image)
    if logits is not None:
        parts['focal'] = focal_loss(logits, mask, gamma=gamma)
        if mask_l1:
            parts['mask_l1'] = mask_l1_loss(logits, mask)
    weighted = [weights[name] * part for name, part in parts.items()]
    return functools.reduce(jnp.add, weighted), parts
