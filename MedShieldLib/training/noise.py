"""Synthetic noise of many spectra for the denoiser: what could be in a volume and is no anatomy.

Made of random numbers alone (and, for the envelope, of where a volume has edges). No target is asked and no
attack is run, so what a network learns from it is fitted to neither.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np
from scipy import fft, ndimage

_BLOCK = 8


class Spectrum(str, Enum):
    """Which frequencies the noise is made of."""

    WHITE = "white"
    PINK = "pink"
    BLUE = "blue"
    BAND = "band"
    BLOCK = "block"
    SIGNED = "signed"


def noise(spectrum: Spectrum, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """float32 (K, J, I) of root mean square 1."""
    return _unit(_MAKERS[spectrum](shape, rng))


def enveloped(x: np.ndarray, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise that is stronger in some places: nowhere in particular, in random ones, or at a volume's edges.

    Args:
        x: noise (K, J, I).
        clean: the volume that it will be added to, same shape.
        rng: chooses.

    Returns:
        float32 (K, J, I) of root mean square 1.
    """
    choice = rng.random()
    if choice < 0.4:
        return x
    if choice < 0.6:
        field = ndimage.gaussian_filter(rng.standard_normal(x.shape, np.float32), rng.uniform(3, 8))
        gain = np.exp(np.float32(rng.uniform(0.3, 1)) * _unit(field))
    else:
        edges = ndimage.gaussian_gradient_magnitude(clean, rng.uniform(0.7, 1.5))
        gain = np.float32(rng.uniform(0.05, 0.5)) + edges / max(float(edges.mean()), 1e-6)
        gain = np.minimum(gain, 4)
    return _unit(x * gain)


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / max(float(np.sqrt(np.mean(np.square(x)))), 1e-12)).astype(np.float32)


def _white(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def _pink(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    exponent = rng.uniform(0.5, 1.5)
    return _coloured(shape, rng, lambda r: np.maximum(r, 0.03) ** -exponent)


def _blue(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    exponent = rng.uniform(0.5, 2)
    return _coloured(shape, rng, lambda r: r**exponent)


def _band(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A shell of frequencies, the slowest with waves of 12 voxels, thin or broad."""
    centre, width = rng.uniform(0.08, 0.7), rng.uniform(0.02, 0.12)
    return _coloured(shape, rng, lambda r: np.exp(-np.square((r - centre) / width) / 2))


def _coloured(
    shape: tuple[int, int, int], rng: np.random.Generator, gain: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """White noise times a gain of the distance from frequency 0, in cycles per voxel; no mean."""
    axes = (*map(fft.fftfreq, shape[:2]), fft.rfftfreq(shape[2]))
    k, j, i = np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij", sparse=True)
    radius = np.sqrt(k * k + j * j + i * i)
    spectrum = fft.rfftn(_white(shape, rng)) * gain(radius).astype(np.float32)
    spectrum[0, 0, 0] = 0
    return fft.irfftn(spectrum, shape)


def _block(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Random cosine coefficients in blocks of 8, below a random frequency; they begin anywhere."""
    blocks = [n // _BLOCK + 2 for n in shape]
    reach = rng.integers(2, _BLOCK + 1, 3)
    k, j, i = reach
    coefficients = np.zeros((*blocks, _BLOCK, _BLOCK, _BLOCK), np.float32)
    coefficients[..., :k, :j, :i] = rng.uniform(-1, 1, (*blocks, *reach))
    coefficients[..., 0, 0, 0] = 0
    cubes = fft.idctn(coefficients, axes=(3, 4, 5), norm="ortho")
    whole = cubes.transpose(0, 3, 1, 4, 2, 5).reshape([n * _BLOCK for n in blocks])
    begin = rng.integers(0, _BLOCK, 3)
    return whole[tuple(slice(b, b + n) for b, n in zip(begin, shape, strict=True))]


def _signed(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """+1 and -1 in patches of a random size, their borders sharp or soft."""
    signs = np.sign(ndimage.gaussian_filter(_white(shape, rng), rng.uniform(0, 2.5)))
    return ndimage.gaussian_filter(signs, rng.uniform(0, 0.8))


_MAKERS: dict[Spectrum, Callable[[tuple[int, int, int], np.random.Generator], np.ndarray]] = {
    Spectrum.WHITE: _white,
    Spectrum.PINK: _pink,
    Spectrum.BLUE: _blue,
    Spectrum.BAND: _band,
    Spectrum.BLOCK: _block,
    Spectrum.SIGNED: _signed,
}
