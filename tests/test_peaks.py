"""The names that JAX gives devices, and the figures of their makers."""

import pytest

from draem_jax.peaks import peak_tflops


@pytest.mark.parametrize(
    ('device_kind', 'expected'),
    [
        ('NVIDIA H100 80GB HBM3', 989),
        ('NVIDIA H100 PCIe', 756),
        ('NVIDIA H200', 989),
        ('NVIDIA A100-SXM4-80GB', 312),
        ('NVIDIA L40S', 362),
        ('NVIDIA L4', 121),
        ('Tesla T4', 65),
        ('TPU v5 lite', 197),
        ('TPU v5', 459),
        ('TPU v6 lite', 918),
        ('NVIDIA T400', None),  # Another card than the T4.
        ('cpu', None),
    ],
)
def test_the_peak_of_a_device_goes_by_its_name(device_kind, expected):
    assert peak_tflops(device_kind) == expected
