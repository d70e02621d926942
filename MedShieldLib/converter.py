"""The converter of Park et al. 2020 (arXiv 2009.11090): between a volume and its frequency domain.

Fourier spectrum, radial profile, band filters, wavelet shrinkage, local band energy. Knows no target and
draws nothing at random: what a filter does is all in its arguments. float32, FFTs on all cores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pywt
from scipy import fft

from MedShieldLib.volume import Volume

_WORKERS = -1
# A band's flank is this share of its edge frequency: sharp enough to name a band, soft enough not to ring.
_FLANK = 0.15


@dataclass(frozen=True)
class Spectrum:
    """The half spectrum of a real volume.

    Attributes:
        coefficients: complex64 (K, J, I // 2 + 1), unscaled, zero frequency first.
        shape: (K, J, I) of the volume.
        spacing: mm along (i, j, k).
    """

    coefficients: np.ndarray = field(repr=False)
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, volume: Volume) -> Spectrum:
        """The 3D FFT of a volume's voxels."""
        voxels = np.asarray(volume.voxels, dtype=np.float32)
        return cls(fft.rfftn(voxels, workers=_WORKERS), voxels.shape, volume.spacing)  # type: ignore[arg-type]

    def frequencies(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """float32 frequencies in cycles/mm along (k, j, i), shaped to broadcast over the coefficients."""
        (nk, nj, ni), (si, sj, sk) = self.shape, self.spacing
        along = fft.fftfreq(nk, sk)[:, None, None], fft.fftfreq(nj, sj)[None, :, None], fft.rfftfreq(ni, si)
        return tuple(f.astype(np.float32) for f in along)  # type: ignore[return-value]

    @cached_property
    def radius(self) -> np.ndarray:
        """float32 (K, J, I // 2 + 1): distance from the zero frequency in cycles/mm."""
        k, j, i = self.frequencies()
        return np.sqrt(k * k + j * j + i * i)

    def filtered(self, transfer: np.ndarray) -> np.ndarray:
        """float32 (K, J, I): the volume after multiplying its spectrum with a real transfer function."""
        return fft.irfftn(self.coefficients * transfer, self.shape, workers=_WORKERS, overwrite_x=True)

    def power(self) -> np.ndarray:
        """float32 |coefficients|^2 per voxel of the volume."""
        c = self.coefficients
        return (c.real**2 + c.imag**2) / np.float32(np.prod(self.shape))


def log_power(spectrum: Spectrum) -> np.ndarray:
    """log10 power, float32 (K, J, I // 2 + 1), floored 20 decades below its maximum to stay finite."""
    power = spectrum.power()
    return np.log10(np.maximum(power, power.max() * np.float32(1e-20)))


def radial_profile(spectrum: Spectrum, edges: np.ndarray) -> np.ndarray:
    """Mean power per shell between consecutive `edges` (cycles/mm), as log10; NaN where a shell is empty.

    Shells beyond the lowest Nyquist frequency of the three axes hold only the corners that exist.
    """
    shell = np.digitize(spectrum.radius.ravel(), edges) - 1
    inside = (shell >= 0) & (shell < len(edges) - 1)
    total = np.bincount(shell[inside], spectrum.power().ravel()[inside], len(edges) - 1)
    count = np.bincount(shell[inside], minlength=len(edges) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(np.where(count > 0, np.maximum(total / count, 1e-30), np.nan))


def low_pass(spectrum: Spectrum, cutoff: float) -> np.ndarray:
    """Keep frequencies below `cutoff` cycles/mm (half amplitude there); float32 (K, J, I)."""
    return spectrum.filtered(_below(spectrum.radius, cutoff))


def band_stop(spectrum: Spectrum, low: float, high: float) -> np.ndarray:
    """Remove the shell between `low` and `high` cycles/mm; float32 (K, J, I)."""
    radius = spectrum.radius
    return spectrum.filtered(1 - _below(radius, high) * (1 - _below(radius, low)))


def angular_stop(spectrum: Spectrum, axes: np.ndarray, half_angle: float, above: float) -> np.ndarray:
    """Remove double cones of directions, but only frequencies over `above`; float32 (K, J, I).

    Args:
        axes: unit vectors, one a row, each (k, j, i) in mm space.
        half_angle: of the cones, in radians.
        above: cycles/mm; slower waves carry the anatomy and stay.
    """
    k, j, i = spectrum.frequencies()
    radius = np.maximum(spectrum.radius, np.float32(1e-12))
    edge = np.float32(np.cos(half_angle))
    removed = np.zeros_like(radius)
    for axis in axes.astype(np.float32):
        cosine = np.abs(axis[0] * k + axis[1] * j + axis[2] * i) / radius
        np.maximum(removed, np.clip((cosine - edge) / (np.float32(0.3) * (1 - edge)) + 0.5, 0, 1), out=removed)
    return spectrum.filtered(1 - removed * (1 - _below(spectrum.radius, above)))


def wavelet_shrinkage(
    voxels: np.ndarray, threshold: float, levels: int, wavelet: str = "db2", shift: tuple[int, int, int] = (0, 0, 0)
) -> np.ndarray:
    """Soft-threshold all detail coefficients (Donoho and Johnstone 1994); float32, same shape.

    Args:
        threshold: in intensity units.
        shift: voxels by which the decimated grid is displaced along (k, j, i) (cycle spinning, Coifman and
            Donoho 1995); different shifts give different, equally valid versions.
    """
    shifted = np.roll(np.asarray(voxels, dtype=np.float32), shift, axis=(0, 1, 2))
    levels = min(levels, pywt.dwtn_max_level(shifted.shape, wavelet))
    approximation, *details = pywt.wavedecn(shifted, wavelet, mode="periodization", level=max(levels, 1))
    for level in details:
        for key, band in level.items():
            level[key] = np.sign(band) * np.maximum(np.abs(band) - np.float32(threshold), 0)
    smooth = pywt.waverecn([approximation, *details], wavelet, mode="periodization")
    smooth = smooth[tuple(slice(n) for n in shifted.shape)]
    return np.roll(smooth, tuple(-s for s in shift), axis=(0, 1, 2)).astype(np.float32, copy=False)


def local_band_energy(spectrum: Spectrum, low: float, high: float, reach_mm: float) -> np.ndarray:
    """Local root-mean-square amplitude of the band from `low` to `high` cycles/mm; float32 (K, J, I).

    The square of the band-passed volume, averaged by a Gaussian of standard deviation `reach_mm`.
    """
    radius = spectrum.radius
    band = spectrum.filtered(_below(radius, high) * (1 - _below(radius, low)))
    np.square(band, out=band)
    averaged = fft.rfftn(band, workers=_WORKERS)
    averaged *= np.exp(-2 * (np.pi * reach_mm) ** 2 * radius * radius)
    return np.sqrt(np.maximum(fft.irfftn(averaged, spectrum.shape, workers=_WORKERS, overwrite_x=True), 0))


def intensity_range(voxels: np.ndarray, most: int = 2_000_000) -> tuple[float, float]:
    """The 0.5 and 99.5 % percentiles, from at most about `most` evenly spaced voxels (exact ones cost seconds)."""
    step = max(1, int(round((voxels.size / most) ** (1 / 3))))
    low, high = np.percentile(voxels[::step, ::step, ::step], [0.5, 99.5])
    if high <= low:
        low, high = float(voxels.min()), float(voxels.max())
    return float(low), float(high)


def _below(radius: np.ndarray, cutoff: float) -> np.ndarray:
    """1 below the cutoff, 0 above, with a smooth flank centred on it; float32."""
    low, high = cutoff * (1 - _FLANK), cutoff * (1 + _FLANK)
    ramp = np.clip((np.float32(high) - radius) / np.float32(max(high - low, 1e-12)), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)
