"""A detector that sees the spectrum alone and never asks the target, trained on clean volumes only.

After SpectralDefense (Harder et al. 2021), whose features are Fourier magnitudes, made one-class: that paper
trains on attacks, which a shield must not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedShieldLib import converter, shifts
from MedShieldLib.errors import Cancelled
from MedShieldLib.evaluation.defence import Asked, Opinion, Setting
from MedShieldLib.versions import Source
from MedShieldLib.volume import Volume

_SHELLS = 16
# The covariance of few clean volumes is drawn towards its diagonal by this share.
_SHRINKAGE = 0.3


@dataclass(frozen=True, eq=False)
class SpectrumDetector:
    """Mahalanobis distance of the radial log power from that of clean volumes; no reformer.

    Attributes:
        centre: (F,) mean features.
        whitening: (F, F) inverse square root of their covariance.
    """

    centre: np.ndarray
    whitening: np.ndarray
    name: str = "spectrum-only"
    identity: str = "spectrum-only"
    wants_threshold: bool = True
    learns: bool = True

    @classmethod
    def fit(cls, setting: Setting) -> SpectrumDetector:
        """From clean volumes and their benign shifts; cheap enough to do anew each time.

        Raises:
            Cancelled: when asked to stop.
        """
        rows = []
        for n, (_, volume) in enumerate(setting.clean):
            for m, shift in enumerate(shifts.CALIBRATION):
                if setting.cancelled():
                    raise Cancelled
                shifted = shifts.apply(shift, volume, setting.seed + 31 * n + m)
                grid = setting.target.grid(shifted)
                rows.append(features(Source(shifted, grid, setting.target.finest_mm)))
        x = np.array(rows)
        spread = x.std(0) + 1e-3
        unit = (x - x.mean(0)) / spread
        covariance = (1 - _SHRINKAGE) * unit.T @ unit / len(unit) + _SHRINKAGE * np.eye(unit.shape[1])
        values, vectors = np.linalg.eigh(covariance)
        return cls(x.mean(0), (vectors / np.sqrt(values)).T / spread)

    def judge(self, target: Asked, volume: Volume, seed: int) -> Opinion:
        """The distance from clean spectra."""
        seen = features(Source(volume, target.grid(volume), target.finest_mm))
        return Opinion(float(np.linalg.norm(self.whitening @ (seen - self.centre))))


def features(source: Source) -> np.ndarray:
    """(F,): log10 power per shell up to the Nyquist frequency that the target sees, relative to the first."""
    profile = converter.radial_profile(source.spectrum, np.linspace(0, source.nyquist, _SHELLS + 1))
    return profile[1:] - profile[0]
