"""SSIM and MSGMS against SciPy, straight from their formulas."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from draem_jax.model import similarity

RANDOM = np.random.default_rng(0)
FIRST = RANDOM.uniform(0, 1, (2, 24, 32, 3)).astype(np.float32)
SECOND = np.clip(FIRST + RANDOM.normal(0, 0.2, FIRST.shape), 0, 1).astype(np.float32)


def edge_similarity(a, b):
    """GMS of two grey images [H, W] in float64."""

    def magnitude(image):
        return np.hypot(*(ndimage.prewitt(image, axis, mode='nearest') / 3 for axis in (0, 1)))

    g, h = magnitude(a), magnitude(b)
    return (2 * g * h + 0.0026) / (g**2 + h**2 + 0.0026)


def reference_similarities(a, b):
    """GMS of two [H, W, 3] images at four scales."""
    a, b = a.astype(np.float64).mean(-1), b.astype(np.float64).mean(-1)
    for scale in range(4):
        if scale:
            a, b = ((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4 for x in (a, b))
        yield edge_similarity(a, b)


def test_edge_similarities_agree_with_scipy_at_every_scale():
    ours = jax.jit(similarity.edge_similarities)(FIRST, SECOND)
    for k in range(2):
        for scale, expected in enumerate(reference_similarities(FIRST[k], SECOND[k])):
            np.testing.assert_allclose(ours[scale][k, ..., 0], expected, rtol=1e-4)


def test_the_map_is_the_mean_over_the_scales_enlarged_with_aligned_corners():
    expected = np.zeros((24, 32))
    for part in reference_similarities(FIRST[0], SECOND[0]):
        while part.shape != (24, 32):  # Each doubling interpolates between aligned corners.
            part = ndimage.zoom(part, 2, order=1)
        expected += part / 4
    ours = jax.jit(similarity.multi_scale_edge_similarity)(FIRST, SECOND)
    np.testing.assert_allclose(ours[0], expected, rtol=1e-4)


def test_an_image_is_like_itself_and_like_its_brighter_copy_in_edges_alone():
    edges, structure = map(jax.jit, (similarity.multi_scale_edge_similarity, similarity.structural_similarity))
    brighter = FIRST / 2 + 0.5
    np.testing.assert_allclose(edges(FIRST, FIRST), 1, rtol=1e-6)
    np.testing.assert_allclose(structure(FIRST, FIRST), 1, rtol=1e-3)
    offset = FIRST * 0.5 + np.float32(0.4)
    same_edges = edges(FIRST * 0.5, offset)
    np.testing.assert_allclose(same_edges, 1, rtol=1e-4)
    assert structure(FIRST * 0.5, offset).mean() < 0.9
    assert edges(FIRST, brighter).mean() < 0.95


def test_the_gradient_of_plain_surfaces_is_finite():
    plain = np.full((1, 8, 8, 3), 0.5, np.float32)

    def loss(x):
        return sum(part.mean() for part in similarity.edge_similarities(x, FIRST[:1, :8, :8]))

    gradient = jax.jit(jax.grad(loss))(plain)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize('sigma', [1.0, 2.5])
def test_whole_gaussian_means_are_those_of_scipy_divided_by_what_lies_inside(sigma):
    size = 2 * int(np.ceil(3 * sigma)) + 1
    radius = size // 2

    def blur(x):
        return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode='constant', radius=(0, radius, radius, 0))

    expected = blur(FIRST.astype(np.float64)) / blur(np.ones(FIRST.shape))
    np.testing.assert_allclose(similarity.gaussian_mean(FIRST, sigma, size, is_whole=True), expected, rtol=1e-5)
