"""Structural similarity of two 3D arrays (Wang et al. 2004)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter

_WINDOW = 7


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Mean structural similarity of two float arrays (K, J, I) in [0, 1], in cubes of 7 voxels.

    Returns:
        At most 1, which only equal arrays reach. Every axis needs at least 7 voxels to count edges fairly.
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    mean_1, mean_2 = _mean(first), _mean(second)
    variances = _mean(first * first) - mean_1**2 + _mean(second * second) - mean_2**2
    covariance = _mean(first * second) - mean_1 * mean_2
    c1, c2 = 0.01**2, 0.03**2
    brightness = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1)
    return float((brightness * (2 * covariance + c2) / (variances + c2)).mean())


def _mean(x: np.ndarray) -> np.ndarray:
    return uniform_filter(x, _WINDOW, mode="reflect")
