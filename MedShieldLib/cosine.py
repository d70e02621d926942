"""Rounding of block cosine spectra, as lossy image compression does it.

JPEG serves as a benign shift and as a baseline defence. The converter's transforms are in `converter.py`.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

BLOCK = 8

# The luminance table of the JPEG standard (ITU-T T.81, annex K) for quality 50.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=np.float32,
)


def jpeg(unit: np.ndarray, quality: float) -> np.ndarray:
    """Every slice (last two axes) of an array in [0, 1] as JPEG of that quality (1 to 100) leaves it.

    The loss of JPEG alone: its coding is lossless. float32 in [0, 1], same shape.
    """
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    table = np.maximum(np.floor(_LUMINANCE * np.float32(scale) + np.float32(0.5)), 1)
    grey = np.round(np.clip(unit, 0, 1) * 255).astype(np.float32) - 128
    return np.clip(np.round(rounded(grey, table) + 128), 0, 255) / np.float32(255)


def rounded(x: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Round the orthonormal cosine spectrum of every block to multiples of `steps`; float32, same shape.

    Args:
        x: array; its last axes are cut into blocks, edges are repeated to fill the last ones.
        steps: rounding steps, one axis for each axis that is cut, each `BLOCK` long.
    """
    cut = range(x.ndim - steps.ndim, x.ndim)
    padding = [(0, -n % BLOCK if axis in cut else 0) for axis, n in enumerate(x.shape)]
    padded = np.pad(x.astype(np.float32, copy=False), padding, mode="edge")
    shape: list[int] = []
    for axis, n in enumerate(padded.shape):
        shape += [n // BLOCK, BLOCK] if axis in cut else [n]
    inner = tuple(range(x.ndim - steps.ndim + 1, len(shape), 2))
    spectrum = fft.dctn(padded.reshape(shape), axes=inner, norm="ortho", workers=-1)
    table = steps.astype(np.float32).reshape([n for length in steps.shape for n in (1, length)])
    spectrum = np.round(spectrum / table) * table
    back = fft.idctn(spectrum, axes=inner, norm="ortho", workers=-1).reshape(padded.shape)
    return back[tuple(slice(n) for n in x.shape)]
