"""The fixed filters that serve as baseline defences: volume in, float32 voxels out.

Each takes a strength; which strength a target gets, and what a filter makes of it, is in `baselines.py`.
Filters that count in voxels act on voxels as far apart as the target can see (see `interleaved`): finer
detail means nothing to the target, and a change that is to matter fills whole cells of its grid.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pywt
import SimpleITK as sitk

from MedShieldLib import converter, cosine
from MedShieldLib.versions import Source

# Rounding steps of 8-bit grey levels by the larger index of a coefficient in its block (Liu et al. 2020).
_REFINEMENT = ((2, 30.0), (4, 5.0), (cosine.BLOCK, 80.0))


def gaussian(source: Source, strength: float) -> np.ndarray:
    """Gaussian blur; its standard deviation is `strength` seen voxels."""
    reach = np.float32(np.pi * strength * source.seen_mm)
    spectrum = source.spectrum
    return spectrum.filtered(lambda rows: np.exp(-2 * np.square(reach * spectrum.radius(rows))))


def low_pass(source: Source, strength: float) -> np.ndarray:
    """FFT low-pass at `strength` of the Nyquist frequency that the target sees."""
    return converter.low_pass(source.spectrum, strength * source.nyquist)


def median(source: Source, strength: float) -> np.ndarray:
    """Median of cubes, `strength` voxels to each side (Xu et al. 2018)."""

    def filtered(x: np.ndarray) -> np.ndarray:
        return sitk.GetArrayFromImage(sitk.Median(sitk.GetImageFromArray(x), [int(strength)] * 3))

    return interleaved(source, filtered)


def bit_depth(source: Source, strength: float) -> np.ndarray:
    """Intensity range in 2^`strength` levels (Xu et al. 2018)."""
    levels = 2**strength - 1
    return _in_unit(source, lambda x: np.round(np.clip(x, 0, 1) * levels) / np.float32(levels))


def jpeg(source: Source, strength: float) -> np.ndarray:
    """Every slice as JPEG of quality `strength` (Dziugaite et al. 2016)."""
    return _in_unit(source, lambda x: cosine.jpeg(x, strength))


def visu_shrink(source: Source, strength: float) -> np.ndarray:
    """Soft wavelet threshold sigma sqrt(2 ln n), sigma by the median deviation of the finest detail.

    Donoho and Johnstone 1994. Coefficients of almost 0 (air that was masked away) tell nothing of the noise.
    `strength` multiplies the threshold.
    """

    def filtered(x: np.ndarray) -> np.ndarray:
        finest = np.abs(pywt.dwtn(x, "db2", mode="periodization")["ddd"])
        finest = finest[finest > 1e-4 * finest.max()]
        sigma = np.median(finest) / 0.6745 if finest.size else 0.0
        return converter.wavelet_shrinkage(x, strength * sigma * np.sqrt(2 * np.log(x.size)), levels=3)

    return interleaved(source, filtered)


def frequency_refinement(source: Source, strength: float) -> np.ndarray:
    """Block cosine spectra, rounded finely in the middle bands and coarsely elsewhere (Liu et al. 2020).

    The paper's 8x8 blocks, steps and bands, in cubes; `strength` multiplies the steps.
    """
    largest = np.maximum.reduce(np.indices((cosine.BLOCK,) * 3))
    steps = np.select([largest < edge for edge, _ in _REFINEMENT], [step for _, step in _REFINEMENT])
    return _in_unit(source, lambda x: cosine.rounded(x, steps * strength / 255))


def interleaved(source: Source, filtered: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Filter each of the interleaved lattices of voxels that are as far apart as the target can see."""
    voxels = source.volume.voxels.astype(np.float32)
    steps = [max(1, round(source.seen_mm / mm)) for mm in reversed(source.volume.spacing)]
    out = np.empty_like(voxels)
    for first in product(*map(range, steps)):
        lattice = tuple(slice(begin, None, step) for begin, step in zip(first, steps, strict=True))
        out[lattice] = filtered(np.ascontiguousarray(voxels[lattice]))
    return out


def _in_unit(source: Source, filtered: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Filter on the scale on which the intensity range is [0, 1]."""
    low, high = converter.intensity_range(source.volume.voxels)
    scale = np.float32(high - low)
    return interleaved(source, lambda x: filtered((x - np.float32(low)) / scale) * scale + np.float32(low))
