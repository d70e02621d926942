"""Where the evidence is: instability of the answer and energy of the suspicious band, as volumes."""

from __future__ import annotations

import numpy as np
import torch

from MedShieldLib import converter, slabs
from MedShieldLib.versions import Source
from MedShieldLib.volume import Volume

# Attacks live in the upper part of what the target can see; anatomy has most of its power below.
_BAND = (0.4, 1.0)
_REACH_MM = 4.0
# Finer ones nobody sees, and a file of them is many times as large.
_STEPS = 256


def combined(source: Source, unrest: np.ndarray) -> Volume:
    """Instability where it is, stressed by up to twice where the upper band is strong for this volume.

    Args:
        source: the volume under check.
        unrest: (K', J', I') in [0, 1] on the target's working grid, see `Observation.unrest`.

    Returns:
        float32 volume in [0, 1] in the source's geometry.
    """
    heat, energy = instability(source, unrest).voxels, band_energy(source, *_BAND).voxels

    def stress(rows: slice) -> None:
        steps = heat[rows]
        steps *= (energy[rows] + 1) * np.float32(_STEPS / 2)
        np.round(steps, out=steps)
        steps /= _STEPS

    slabs.each(heat, stress)
    return source.volume.with_voxels(heat)


def instability(source: Source, unrest: np.ndarray) -> Volume:
    """`unrest` in the source's geometry, float32 in [0, 1]."""
    return source.volume.with_voxels(source.grid.from_grid(torch.from_numpy(unrest)).clamp(0, 1).numpy())


def band_energy(source: Source, low: float, high: float) -> Volume:
    """Local energy of a band given in parts of the seen Nyquist frequency.

    float32 in [0, 1], where 1 is the 99.5 % percentile of this volume.
    """
    edges = low * source.nyquist, high * source.nyquist
    energy = converter.local_band_energy(source.spectrum, *edges, _REACH_MM)
    _, top = converter.intensity_range(energy)
    top = max(top, 1e-12)

    def scale(rows: slice) -> None:
        np.clip(energy[rows] / np.float32(top), 0, 1, out=energy[rows])

    slabs.each(energy, scale)
    return source.volume.with_voxels(energy)
