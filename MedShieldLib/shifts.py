"""Benign shifts: what scanners, protocols and archives do to a volume without any attacker.

Calibration draws from them, so that an ordinary noisy or blurred scan is not called an attack; the benchmark
measures false alarms per shift. torchio does what it can do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from MedShieldLib import cosine
from MedShieldLib.converter import intensity_range
from MedShieldLib.errors import InputError
from MedShieldLib.volume import MIN_AXIS, Volume

# How far apart simulated vessels run, about, in mm.
_VESSEL_SCALE_MM = 8.0

Shift = Callable[[Volume, np.random.Generator], Volume]


def none(volume: Volume, rng: np.random.Generator) -> Volume:
    """The volume itself."""
    return volume


def rician_noise(
    volume: Volume, rng: np.random.Generator, percent: tuple[float, float] = (0.5, 3.0)
) -> Volume:
    """Rician noise (Gudbjartsson and Patz 1995) of `percent` of the intensity range."""
    low, high = intensity_range(volume.voxels)
    sigma = (high - low) * rng.uniform(*percent) / 100
    x = volume.voxels.astype(np.float32) - min(low, 0.0)
    noise = rng.standard_normal((2, *x.shape), np.float32) * np.float32(sigma)
    return volume.with_voxels(np.sqrt((x + noise[0]) ** 2 + noise[1] ** 2) + np.float32(min(low, 0.0)))


def bias_field(volume: Volume, rng: np.random.Generator, strength: float = 0.15) -> Volume:
    """A smooth gain, log-normal at 3x3x3 knots with standard deviation `strength`, as coils leave it."""
    import torch

    knots = torch.from_numpy(rng.normal(0, strength, (1, 1, 3, 3, 3)).astype(np.float32))
    gain = torch.nn.functional.interpolate(knots, volume.voxels.shape, mode="trilinear", align_corners=True)
    return volume.with_voxels(volume.voxels.astype(np.float32) * gain[0, 0].exp().numpy())


def gamma(volume: Volume, rng: np.random.Generator, log_gamma: float = 0.2) -> Volume:
    """Intensity to the power of exp(u), u uniform within +-`log_gamma`, on the intensity range."""
    low, high = intensity_range(volume.voxels)
    unit = np.clip((volume.voxels.astype(np.float32) - low) / (high - low), 0, None)
    power = np.float32(np.exp(rng.uniform(-log_gamma, log_gamma)))
    return volume.with_voxels(unit**power * (high - low) + low)


def blur(volume: Volume, rng: np.random.Generator, sigma_mm: tuple[float, float] = (0.4, 1.0)) -> Volume:
    """Gaussian blur of a standard deviation drawn from `sigma_mm`."""
    return _torchio(volume, rng, "RandomBlur", std=sigma_mm)


def anisotropy(volume: Volume, rng: np.random.Generator, factor: tuple[float, float] = (1.2, 2.0)) -> Volume:
    """One axis acquired `factor` times coarser, and resampled back."""
    return _torchio(volume, rng, "RandomAnisotropy", downsampling=factor)


def motion(volume: Volume, rng: np.random.Generator, degrees: float = 2.0, mm: float = 2.0) -> Volume:
    """One rigid movement during the scan (Shaw et al. 2019)."""
    return _torchio(volume, rng, "RandomMotion", degrees=degrees, translation=mm, num_transforms=1)


def ghosting(
    volume: Volume, rng: np.random.Generator, intensity: tuple[float, float] = (0.05, 0.2)
) -> Volume:
    """Ghosts along the phase-encoding direction."""
    return _torchio(volume, rng, "RandomGhosting", intensity=intensity)


def spike(volume: Volume, rng: np.random.Generator, intensity: tuple[float, float] = (0.05, 0.15)) -> Volume:
    """A spike in k-space (herringbone)."""
    return _torchio(volume, rng, "RandomSpike", num_spikes=(1, 1), intensity=intensity)


def rotation(volume: Volume, rng: np.random.Generator, degrees: float = 6.0) -> Volume:
    """The head turned by up to `degrees` about each axis, resampled linearly."""
    return _torchio(volume, rng, "RandomAffine", scales=0, degrees=degrees, default_pad_value="minimum")


def eight_bit(volume: Volume, rng: np.random.Generator) -> Volume:
    """Stored with 256 grey levels over the intensity range, as some archives do."""
    low, high = intensity_range(volume.voxels)
    levels = np.round(np.clip((volume.voxels.astype(np.float32) - low) / (high - low), 0, 1) * 255)
    return volume.with_voxels(levels / np.float32(255) * np.float32(high - low) + np.float32(low))


def jpeg(volume: Volume, rng: np.random.Generator, quality: tuple[float, float] = (60.0, 90.0)) -> Volume:
    """Every slice stored as JPEG of a quality drawn from `quality` (1 to 100)."""
    low, high = intensity_range(volume.voxels)
    unit = (volume.voxels.astype(np.float32) - low) / (high - low)
    stored = cosine.jpeg(unit, rng.uniform(*quality))
    return volume.with_voxels(stored * np.float32(high - low) + np.float32(low))


def resampling(volume: Volume, rng: np.random.Generator, voxels: tuple[float, float] = (0.2, 0.5)) -> Volume:
    """Moved along every axis by a part of a voxel drawn from `voxels`, linearly, as a registration does."""
    from scipy import ndimage

    part = rng.uniform(*voxels, 3) * rng.choice((-1, 1), 3)
    return volume.with_voxels(ndimage.shift(volume.voxels.astype(np.float32), part, order=1, mode="nearest"))


def matrix_size(
    volume: Volume, rng: np.random.Generator, factor: tuple[float, float] = (0.8, 1.25)
) -> Volume:
    """The same field of view with `factor` times as many voxels along every axis, by cubic B-splines."""
    import SimpleITK as sitk

    image = volume.to_sitk()
    size = [max(MIN_AXIS, round(n * rng.uniform(*factor))) for n in image.GetSize()]
    resample = sitk.ResampleImageFilter()
    resample.SetInterpolator(sitk.sitkBSpline)
    resample.SetOutputPixelType(sitk.sitkFloat32)
    resample.UseNearestNeighborExtrapolatorOn()
    resample.SetSize(size)
    resample.SetOutputDirection(volume.direction)
    resample.SetOutputSpacing(
        [n * mm / m for n, mm, m in zip(image.GetSize(), volume.spacing, size, strict=True)]
    )
    # Voxels fill their cells: the corner of the first cell stays, so its centre moves.
    first = [(n / m - 1) / 2 for n, m in zip(image.GetSize(), size, strict=True)]
    resample.SetOutputOrigin(image.TransformContinuousIndexToPhysicalPoint(first))
    return Volume.from_sitk(resample.Execute(image))


def sharpening(volume: Volume, rng: np.random.Generator, amount: tuple[float, float] = (0.3, 1.0)) -> Volume:
    """Edge enhancement as scanners offer it: an unsharp mask of one voxel, `amount` times."""
    from scipy import ndimage

    x = volume.voxels.astype(np.float32)
    sharp = x + np.float32(rng.uniform(*amount)) * (x - ndimage.gaussian_filter(x, 1.0))
    return volume.with_voxels(np.clip(sharp, x.min(), x.max()))


def contrast(volume: Volume, rng: np.random.Generator, mix: tuple[float, float] = (0.8, 1.0)) -> Volume:
    """Another contrast: dark tissue bright and bright tissue dark, as T2 weighting shows what T1 showed.

    `mix` is the share of the remapped intensity; air stays dark.
    """
    low, high = intensity_range(volume.voxels)
    unit = np.clip((volume.voxels.astype(np.float32) - low) / (high - low), 0, 1)
    heights = np.array([0.0, 0.05, 1.0, 0.6, 0.35, 0.1]) + rng.normal(0, 0.02, 6)
    remapped = np.interp(unit, [0.0, 0.08, 0.25, 0.5, 0.75, 1.0], np.clip(heights, 0, 1)).astype(np.float32)
    share = np.float32(rng.uniform(*mix))
    return volume.with_voxels((unit + share * (remapped - unit)) * (high - low) + low)


def contrast_agent(
    volume: Volume, rng: np.random.Generator, enhancement: tuple[float, float] = (0.2, 0.5)
) -> Volume:
    """A random network of vessels lights up by `enhancement` of the intensity range, as after gadolinium.

    The vessels, 1 to 2 mm wide, run where two smooth random fields are both zero.
    """
    from scipy import ndimage

    low, high = intensity_range(volume.voxels)
    x = volume.voxels.astype(np.float32)
    away = np.zeros_like(x)  # squared distance from the nearest vessel, about, in mm^2
    for _ in range(2):
        field = rng.standard_normal(x.shape, np.float32)
        field = ndimage.gaussian_filter(field, [_VESSEL_SCALE_MM / mm for mm in reversed(volume.spacing)])
        # White noise smoothed by s has a slope of sqrt(3 / 2) / s times its own deviation.
        away += np.square(field / field.std() * (_VESSEL_SCALE_MM * (2 / 3) ** 0.5))
    vessels = np.exp(-away / 2)
    vessels *= (x - low) > 0.1 * (high - low)
    return volume.with_voxels(x + vessels * np.float32(rng.uniform(*enhancement) * (high - low)))


def scanner(volume: Volume, rng: np.random.Generator) -> Volume:
    """Another scanner: its sharpness, its coil, its contrast and its noise, one after the other."""
    sharpness = (blur, sharpening)[rng.integers(2)]
    for step in (sharpness, bias_field, gamma, rician_noise):
        volume = step(volume, rng)
    return volume


# What a calibration draws from; `none` first, so that every subject is also seen as it is.
CALIBRATION: tuple[Shift, ...] = (
    none,
    rician_noise,
    bias_field,
    gamma,
    blur,
    anisotropy,
    rotation,
    eight_bit,
    scanner,
    motion,
    resampling,
    sharpening,
)


def apply(shift: Shift, volume: Volume, seed: int) -> Volume:
    """One shift with its own random generator; the same seed gives the same volume."""
    return shift(volume, np.random.default_rng(seed))


def _torchio(volume: Volume, rng: np.random.Generator, transform: str, **parameters) -> Volume:
    """A torchio transform by name, seeded; array axes are passed as they are, spacing along with them."""
    try:
        import torch
        import torchio
    except ImportError as error:
        raise InputError(
            'Benign augmentation needs torchio; install it with pip install "medshield[train]".'
        ) from error
    affine = np.diag([*reversed(volume.spacing), 1.0])
    voxels = torch.from_numpy(volume.voxels.astype(np.float32))
    image = torchio.ScalarImage(tensor=voxels[None], affine=affine)
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        changed = getattr(torchio, transform)(**parameters)(image)
    return volume.with_voxels(changed.data[0].numpy())
