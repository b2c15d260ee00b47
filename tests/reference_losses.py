"""The three parts of the loss in float64 NumPy and SciPy, written straight from their formulas."""

import numpy as np
from scipy import ndimage, special


def reference_l2(a, b):
    """The mean squared error."""
    return ((a.astype(np.float64) - b) ** 2).mean()


def reference_ssim(a, b, dynamic_range=1.0):
    """1 - mean SSIM with SciPy's Gaussian filter, cut at 5 pixels, zeros outside; for each channel of each image."""

    def mean(x):
        return ndimage.gaussian_filter(x, (0, 1.5, 1.5, 0), mode='constant', radius=(0, 5, 5, 0))

    a, b = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * dynamic_range) ** 2, (0.03 * dynamic_range) ** 2
    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b, covariance = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2, mean(a * b) - mu_a * mu_b
    luminance = (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)
    return 1 - (luminance * (2 * covariance + c2) / (var_a + var_b + c2)).mean()


def reference_focal(logits, mask, gamma=2.0):
    """The mean of -(1 - p)^gamma log p."""
    probability = special.softmax(logits.astype(np.float64), axis=-1)
    p = np.where(mask[..., 0] == 1, probability[..., 1], probability[..., 0])
    return (-((1 - p) ** gamma) * np.log(p)).mean()
