"""The converter of Park et al. 2020 (arXiv 2009.11090): between a volume and its frequency domain.

Fourier spectrum, radial profile, band filters, wavelet shrinkage, local band energy. Knows no target and
draws nothing at random: what a filter does is all in its arguments. float32, FFTs on all cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pywt
import torch
import torch.nn.functional as F
from scipy import fft

from MedShieldLib import sampling, slabs
from MedShieldLib.volume import Volume

# Gain in [0, 1] of some rows of a spectrum, float32, shaped to broadcast over them.
Transfer = Callable[[slice], np.ndarray]

_ALL = slice(None)
_PERIODIC = "periodization"
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
        k, j, i = voxels.shape
        return cls(fft.rfftn(voxels, workers=slabs.workers()), (k, j, i), volume.spacing)

    def frequencies(self, rows: slice = _ALL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """float32 frequencies in cycles/mm along (k, j, i), shaped to broadcast over `rows` along k."""
        (nk, nj, ni), (si, sj, sk) = self.shape, self.spacing
        along = fft.fftfreq(nk, sk)[rows, None, None], fft.fftfreq(nj, sj)[:, None], fft.rfftfreq(ni, si)
        k, j, i = (frequencies.astype(np.float32) for frequencies in along)
        return k, j, i

    def radius(self, rows: slice = _ALL) -> np.ndarray:
        """float32 (K, J, I // 2 + 1): distance from the zero frequency in cycles/mm."""
        k, j, i = self.frequencies(rows)
        return np.sqrt((k * k + j * j) + i * i)

    def power(self, rows: slice = _ALL) -> np.ndarray:
        """float32 (K, J, I // 2 + 1): |coefficients|^2 per voxel of the volume."""
        c = self.coefficients[rows]
        return (c.real**2 + c.imag**2) / np.float32(np.prod(self.shape))

    def filtered(self, transfer: Transfer) -> np.ndarray:
        """float32 (K, J, I): the volume after multiplying its spectrum with a real transfer function."""
        kept = np.empty_like(self.coefficients)

        def multiply(rows: slice) -> None:
            np.multiply(self.coefficients[rows], transfer(rows), out=kept[rows])

        slabs.each(kept, multiply)
        return fft.irfftn(kept, self.shape, workers=slabs.workers(), overwrite_x=True)


def log_power(spectrum: Spectrum) -> np.ndarray:
    """log10 power, float32 (K, J, I // 2 + 1), floored 20 decades below its maximum to stay finite."""
    power = spectrum.power()
    return np.log10(np.maximum(power, power.max() * np.float32(1e-20)))


def radial_profile(spectrum: Spectrum, edges: np.ndarray) -> np.ndarray:
    """Mean power per shell between consecutive `edges` (cycles/mm), as log10; NaN where a shell is empty.

    Shells beyond the lowest Nyquist frequency of the three axes hold only the corners that exist.
    """
    # Along j, a frequency and its mirror image lie in the same shell, which is looked up once for both.
    half = spectrum.shape[1] // 2 + 1
    twice = slice(1, spectrum.shape[1] - half + 1)
    number = np.ones((half, 1))
    number[twice] = 2

    def sums(rows: slice) -> np.ndarray:
        shell = _shells(spectrum.radius(rows)[:, :half], edges)
        power = spectrum.power(rows)
        power[:, twice] += power[:, : half - 1 : -1]
        weights = power[:, :half], np.broadcast_to(number, shell.shape)
        return np.stack([np.bincount(shell.ravel(), of_each.ravel(), len(edges) + 1) for of_each in weights])

    total, count = np.sum(slabs.each(spectrum.coefficients, sums), axis=0)[:, 1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(np.where(count > 0, np.maximum(total / count, 1e-30), np.nan))


def _shells(radius: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """np.digitize: 0 lies below the first edge; many times as fast where edges are evenly spaced."""
    steps = np.diff(edges)
    if not np.allclose(steps, steps[0], rtol=1e-9, atol=0):
        return np.digitize(radius, edges)
    # Many frequencies lie on an edge, where the rounding of float32 must not decide.
    index = np.floor((radius - np.float32(edges[0])) * np.float32(1 / steps[0]) + np.float32(1e-4))
    return np.clip(index + 1, 0, len(edges)).astype(np.intp)


def low_pass(spectrum: Spectrum, cutoff: float) -> np.ndarray:
    """Keep frequencies below `cutoff` cycles/mm (half amplitude there); float32 (K, J, I)."""
    return spectrum.filtered(lambda rows: _below(spectrum.radius(rows), cutoff))


def band_stop(spectrum: Spectrum, low: float, high: float) -> np.ndarray:
    """Remove the shell between `low` and `high` cycles/mm; float32 (K, J, I)."""
    return spectrum.filtered(lambda rows: 1 - _band(spectrum.radius(rows), low, high))


def angular_stop(spectrum: Spectrum, axes: np.ndarray, half_angle: float, above: float) -> np.ndarray:
    """Remove double cones of directions, but only frequencies over `above`; float32 (K, J, I).

    Args:
        spectrum: of the volume.
        axes: unit vectors, one a row, each (k, j, i) in mm space.
        half_angle: of the cones, in radians.
        above: cycles/mm; slower waves carry the anatomy and stay.
    """
    directions, edge = axes.astype(np.float32), np.float32(np.cos(half_angle))

    def kept(rows: slice) -> np.ndarray:
        k, j, i = spectrum.frequencies(rows)
        radius = np.maximum(spectrum.radius(rows), np.float32(1e-12))
        cosine = np.zeros_like(radius)
        for axis in directions:
            np.maximum(cosine, np.abs((axis[0] * k + axis[1] * j) + axis[2] * i), out=cosine)
        cosine /= radius
        removed = np.clip((cosine - edge) / (np.float32(0.3) * (1 - edge)) + np.float32(0.5), 0, 1)
        return 1 - removed * (1 - _below(radius, above))

    return spectrum.filtered(kept)


def wavelet_shrinkage(
    voxels: np.ndarray,
    threshold: float,
    levels: int,
    wavelet: str = "db2",
    shift: tuple[int, int, int] = (0, 0, 0),
) -> np.ndarray:
    """Soft-threshold all detail coefficients (Donoho and Johnstone 1994); float32, same shape.

    Args:
        voxels: (K, J, I).
        threshold: in intensity units.
        levels: of the decomposition, at least 1; fewer are taken where the volume has no more.
        wavelet: its name in PyWavelets.
        shift: voxels by which the decimated grid is displaced along (k, j, i) (cycle spinning, Coifman and
            Donoho 1995); different shifts give different, equally valid versions.
    """
    levels = max(1, min(levels, pywt.dwtn_max_level(voxels.shape, wavelet)))
    k, j, i = shift
    smooth = _shrunk(_rolled(voxels, (k, j, i)), np.float32(threshold), levels, pywt.Wavelet(wavelet))
    return _rolled(smooth, (-k, -j, -i))


def local_band_energy(spectrum: Spectrum, low: float, high: float, reach_mm: float) -> np.ndarray:
    """Local root-mean-square amplitude of the band from `low` to `high` cycles/mm; float32 (K, J, I).

    The square of the band-passed volume, averaged by a Gaussian of standard deviation `reach_mm`; in between
    on cells of half that size, which lose nothing that the Gaussian keeps.
    """
    band = torch.from_numpy(spectrum.filtered(lambda rows: _band(spectrum.radius(rows), low, high)))
    sizes = zip(spectrum.spacing[::-1], spectrum.shape, strict=True)
    cell = [min(max(1, int(reach_mm / 2 / mm)), size) for mm, size in sizes]
    coarse = F.avg_pool3d(band.square_()[None], cell, ceil_mode=True, count_include_pad=False)[0].numpy()
    i, j, k = (mm * n for mm, n in zip(spectrum.spacing, cell[::-1], strict=True))
    squared = Spectrum.of(Volume(coarse, (i, j, k)))
    scale = np.float32(np.sqrt(2) * np.pi * reach_mm)
    energy = squared.filtered(lambda rows: np.exp(-np.square(scale * squared.radius(rows))))
    amplitude = torch.from_numpy(np.sqrt(np.maximum(energy, 0)))[None, None]
    return F.interpolate(amplitude, spectrum.shape, mode="trilinear")[0, 0].numpy()


def intensity_range(voxels: np.ndarray, most: int = 2_000_000) -> tuple[float, float]:
    """The 0.5 and 99.5 % percentiles, from about `most` evenly spaced voxels (all of them cost seconds)."""
    step = sampling.step(voxels.size, most)
    low, high = np.percentile(voxels[::step, ::step, ::step], [0.5, 99.5])
    if high <= low:
        low, high = float(voxels.min()), float(voxels.max())
    return float(low), float(high)


def _rolled(x: np.ndarray, shift: tuple[int, int, int]) -> np.ndarray:
    """np.roll along all axes, float32, on all cores and without its temporary copies."""
    out = np.empty(x.shape, np.float32)
    parts = list(product(*(_around_the_end(n, by) for n, by in zip(x.shape[1:], shift[1:], strict=True))))

    def roll(rows: slice) -> None:
        for k in range(rows.start, rows.stop):
            plane = x[(k - shift[0]) % len(x)]
            for (j, from_j), (i, from_i) in parts:
                out[k, j, i] = plane[from_j, from_i]

    slabs.each(out, roll)
    return out


def _around_the_end(size: int, by: int) -> list[tuple[slice, slice]]:
    """Where both parts of a line rolled by so many voxels go to and come from."""
    by %= size
    return [(slice(by, size), slice(size - by)), (slice(by), slice(size - by, size))]


def _shrunk(x: np.ndarray, threshold: np.float32, levels: int, wavelet: pywt.Wavelet) -> np.ndarray:
    """One level of the wavelet transform, its details shrunk, the rest shrunk on the levels below, and back.

    What pywt.wavedecn and pywt.waverecn do, but each detail is back in place before the next one is made.
    """
    quarter = (len(x), -(-x.shape[2] // 2), -(-x.shape[1] // 2))  # axes k, i, j
    planes = [np.empty(quarter, np.float32) for _ in range(4)]

    def split(rows: slice) -> None:
        for plane, part in zip(planes, _quarters(np.asarray(x[rows], np.float32), wavelet), strict=True):
            plane[rows] = part

    slabs.each(x, split)
    coarse, *details = planes
    _shrink_coarse(coarse, threshold, levels, wavelet)
    for plane in details:
        _shrink_along_k(plane, threshold, wavelet)
    out = np.empty(x.shape, np.float32)

    def join(rows: slice) -> None:
        a, b, c, d = (plane[rows] for plane in planes)
        if slabs.is_flat(a) and not any(details.any() for details in (b, c, d)):
            out[rows] = a[0, 0, 0] / 2
            return
        low, high = _join(a, b, 1, wavelet, x.shape[1]), _join(c, d, 1, wavelet, x.shape[1])
        out[rows] = _join(low, high, 2, wavelet, x.shape[2])

    slabs.each(out, join)
    return out


def _quarters(x: np.ndarray, wavelet: pywt.Wavelet) -> Sequence[np.ndarray]:
    """The four parts of a transform along i and j; padding has no details, and needs no filter to know it."""
    if slabs.is_flat(x):
        return 2 * x[0, 0, 0], *np.zeros(3, np.float32)
    return [quarter for half in _split(x, 2, wavelet) for quarter in _split(half, 1, wavelet)]


def _shrink_along_k(plane: np.ndarray, threshold: np.float32, wavelet: pywt.Wavelet) -> None:
    """Shrink, in place, coefficients that are details along j or i already: both halves along k are."""

    def shrink(columns: slice) -> None:
        if not plane[:, columns].any():
            return
        low, high = _split(plane[:, columns], 0, wavelet)
        plane[:, columns] = _join(_soft(low, threshold), _soft(high, threshold), 0, wavelet, len(plane))

    slabs.each(plane, shrink, axis=1)


def _shrink_coarse(plane: np.ndarray, threshold: np.float32, levels: int, wavelet: pywt.Wavelet) -> None:
    """Shrink, in place, what is coarse along j and i: its detail along k here, the rest on lower levels."""
    half = (plane.shape[1], plane.shape[2], -(-len(plane) // 2))  # k runs along the last axis
    low, high = np.empty(half, np.float32), np.empty(half, np.float32)

    def split(columns: slice) -> None:
        low[columns], high[columns] = _split(plane[:, columns], 0, wavelet)

    slabs.each(plane, split, axis=1)
    if levels > 1:
        low[:] = np.moveaxis(_shrunk(np.moveaxis(low, -1, 0), threshold, levels - 1, wavelet), 0, -1)

    def join(columns: slice) -> None:
        detail = _soft(high[columns], threshold)
        plane[:, columns] = _join(low[columns], detail, 0, wavelet, len(plane))

    slabs.each(plane, join, axis=1)


def _split(x: np.ndarray, axis: int, wavelet: pywt.Wavelet) -> list[np.ndarray]:
    """Both halves of the transform along an axis, which becomes the last one: lines in steps of a power of
    two would share few places of the cache.
    """
    return pywt.dwt(np.ascontiguousarray(np.moveaxis(x, axis, -1)), wavelet, _PERIODIC)


def _join(low: np.ndarray, high: np.ndarray, axis: int, wavelet: pywt.Wavelet, length: int) -> np.ndarray:
    """The inverse of `_split`, cut to `length` along its axis: an odd one comes back one longer."""
    low, high = np.ascontiguousarray(low), np.ascontiguousarray(high)
    return np.moveaxis(pywt.idwt(low, high, wavelet, _PERIODIC)[..., :length], -1, axis)


def _soft(x: np.ndarray, threshold: np.float32) -> np.ndarray:
    """`x` moved towards 0 by `threshold`, in place."""
    x -= np.clip(x, -threshold, threshold)
    return x


def _band(radius: np.ndarray, low: float, high: float) -> np.ndarray:
    """1 between the edges, 0 outside, with smooth flanks; float32."""
    return _below(radius, high) * (1 - _below(radius, low))


def _below(radius: np.ndarray, cutoff: float) -> np.ndarray:
    """1 below the cutoff, 0 above, with a smooth flank centred on it; float32."""
    low, high = cutoff * (1 - _FLANK), cutoff * (1 + _FLANK)
    ramp = np.clip((np.float32(high) - radius) / np.float32(max(high - low, 1e-12)), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)
