"""How fast devices could be at best, by the figures of their makers."""

import re

# TFLOP/s of one device in dense bfloat16 matrix products (float16 on the T4, which has no bfloat16). The keys are whole
# words in the names that JAX gives devices; the first that fits counts. Sources: NVIDIA's data sheets of the cards
# (H100 without more words is the SXM module) and of the Ada architecture (float32 accumulation), half of what they give
# with sparsity; Google Cloud's pages of TPU v4, v5e, v5p and v6e.
_PEAK_TFLOPS = {
    'B200': 2250.0,
    'H100 PCIe': 756.0,
    'H100 NVL': 835.0,
    'H100': 989.0,
    'H200': 989.0,
    'GH200': 989.0,
    'A100': 312.0,
    'L40S': 362.0,
    'L40': 181.0,
    'L4': 121.0,
    'T4': 65.0,
    'RTX 4090': 165.2,
    'TPU v4': 275.0,
    'TPU v5 lite': 197.0,
    'TPU v5e': 197.0,
    'TPU v5': 459.0,
    'TPU v6': 918.0,
}


def peak_tflops(device_kind: str) -> float | None:
    """TFLOP/s (10^12) of one device in dense bfloat16 matrix products, or None where it is not known.

    Args:
        device_kind: the name that JAX gives the device: `jax.devices()[0].device_kind`.
    """
    return next((value for name, value in _PEAK_TFLOPS.items() if re.search(rf'\b{name}\b', device_kind)), None)
