"""The convolution for CPUs, and its gradients, against XLA's own."""

import jax
import numpy as np
import pytest
from jax import lax

from draem_jax.model import cpu_convolution

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize('width', [5, 8])  # of the image; pixels are not joined if it is odd
@pytest.mark.parametrize('channels', [(3, 4), (6, 8), (16, 8), (8, 16), (24, 8)])
@pytest.mark.parametrize('min_bytes_for_parts', [0, 2**30])  # the kernel's gradient in parts, and XLA's own
def test_convolution_has_the_values_and_gradients_of_lax(width, channels, min_bytes_for_parts, monkeypatch):
    monkeypatch.setattr(cpu_convolution, '_MIN_BYTES_FOR_PARTS', min_bytes_for_parts)
    monkeypatch.setattr(cpu_convolution, '_MAX_PART_BYTES', 400)
    image = RANDOM.normal(size=(2, 8, width, channels[0])).astype(np.float32)
    kernel = RANDOM.normal(size=(3, 3, *channels)).astype(np.float32)
    weight = RANDOM.normal(size=(2, 8, width, channels[1])).astype(np.float32)

    def lax_convolve(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

    def weighted_sum(convolve):
        return jax.value_and_grad(lambda x, k: (convolve(x, k) * weight).sum(), argnums=(0, 1))

    ours = weighted_sum(cpu_convolution.convolve3x3)(image, kernel)
    theirs = weighted_sum(lax_convolve)(image, kernel)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
