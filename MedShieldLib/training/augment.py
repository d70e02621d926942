"""Augmentation for the reference target: what scanners, protocols and skull-strippers do to a head.

Every sample is a function of (subject, seed) alone, so training can stop and resume anywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchio as tio

from MedShieldLib import converter, smoothing
from MedShieldLib.targets import window as windows
from MedShieldLib.targets.brain_tissue import SPACING_MM
from MedShieldLib.training.data import Subject
from MedShieldLib.volume import Volume

PATCH = (64, 88, 64)  # (k', j', i') at 2 mm: most of a brain
_BEFORE = (88, 112, 88)  # cropped to this before the spatial transforms, which cost most
# Patches lie this many voxels off the brain's centre at most: mostly near, often far enough to show what is
# no brain (neck, face, empty corners).
_NEAR, _FAR, _FAR_SHARE = 16, 60, 0.4
_STRIPPED_SHARE = 0.35
_UNFILTERED_SHARE = 0.6
_BRAIN_MARGIN_VOXELS = (0, 1)


def sample(subject: Subject, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One augmented training pair: image (1, K, J, I) in [0, 1], labels (1, K, J, I) int64, of size PATCH."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    image = subject.image
    if rng.random() < _STRIPPED_SHARE:
        low, high = _BRAIN_MARGIN_VOXELS
        image = image * brain(subject.labels, int(rng.integers(low, high + 1)))
    offset = rng.uniform(-1, 1, 3) * (_FAR if rng.random() < _FAR_SHARE else _NEAR)
    x, y = _crop(image[None], subject.labels[None], _BEFORE, offset)
    scalars, labels = tio.ScalarImage(tensor=x, affine=_AFFINE), tio.LabelMap(tensor=y, affine=_AFFINE)
    pair: Any = _transform()(tio.Subject(image=scalars, labels=labels))
    x, y = _crop(pair["image"].data.float(), pair["labels"].data.long(), PATCH, offset)
    x = _scanned(x, rng)
    # A network that has met smooth heads keeps its answer when the shield shows it smoothed versions.
    return _to_window(filtered(x, rng) if rng.random() >= _UNFILTERED_SHARE else x, rng), y


_AFFINE = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])


def _transform() -> tio.Transform:
    """Spatial first, then contrast, then what the scanner adds. No attack is ever shown to the network."""
    return tio.Compose(
        [
            tio.RandomFlip(axes=(2,)),  # array axis i': left and right
            tio.RandomAffine(scales=(0.85, 1.2), degrees=15, translation=8, isotropic=False),
            tio.OneOf({tio.RandomAnisotropy(axes=(0, 1, 2), downsampling=(1.2, 2)): 1, tio.Lambda(_same): 7}),
            tio.RandomGamma(log_gamma=(-0.35, 0.35), p=0.7),
            tio.OneOf({tio.RandomMotion(3, 3, num_transforms=1): 1, tio.Lambda(_same): 24}),
            tio.OneOf({tio.RandomGhosting(intensity=(0.1, 0.4)): 1, tio.Lambda(_same): 24}),
        ]
    )


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _scanned(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A smooth gain within about +-40 %, then Rician noise of 0 to 3 % (Gudbjartsson and Patz 1995)."""
    if rng.random() < 0.6:
        knots = 0.2 * torch.randn(1, 1, 3, 3, 3)
        gain = torch.nn.functional.interpolate(knots, x.shape[1:], mode="trilinear", align_corners=True)
        x = x * gain[0].exp()
    if rng.random() < 0.4:
        sigma = float(np.percentile(x.numpy(), 99)) * 0.03 * rng.random()
        x = torch.sqrt((x + sigma * torch.randn_like(x)) ** 2 + (sigma * torch.randn_like(x)) ** 2)
    return x


def filtered(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """(1, K, J, I) at 2 mm through one of the converter's filters, at a random strength."""
    volume = Volume(x[0].numpy(), (SPACING_MM,) * 3)
    kind = rng.integers(4)
    if kind == 0:
        voxels = converter.low_pass(converter.Spectrum.of(volume), rng.uniform(0.3, 0.85) * 0.5 / SPACING_MM)
    elif kind == 1:
        low, high = converter.intensity_range(volume.voxels)
        k, j, i = rng.integers(0, 8, 3).tolist()
        threshold = rng.uniform(0.02, 0.16) * (high - low)
        voxels = converter.wavelet_shrinkage(volume.voxels, threshold, 3, "db2", (k, j, i))
    elif kind == 2:
        voxels = smoothing.median(volume.voxels)
    else:
        axes, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        above = rng.uniform(0.3, 0.6) * 0.5 / SPACING_MM
        voxels = converter.angular_stop(
            converter.Spectrum.of(volume), axes, np.deg2rad(rng.uniform(20, 45)), above
        )
    return torch.from_numpy(np.ascontiguousarray(voxels, dtype=np.float32))[None]


def brain(labels: torch.Tensor, margin: int) -> torch.Tensor:
    """Where the brain is and up to `margin` voxels around it: 1 inside, float32 (K, J, I)."""
    mask = (labels > 0).float()[None, None]
    mask = torch.nn.functional.max_pool3d(mask, 3, 1, 1)
    mask = -torch.nn.functional.max_pool3d(-mask, 3, 1, 1)  # closing: no pinholes inside the brain
    if margin:
        mask = torch.nn.functional.max_pool3d(mask, 2 * margin + 1, 1, margin)
    return mask[0, 0]


def _crop(
    x: torch.Tensor, y: torch.Tensor, size: tuple[int, int, int], offset: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """A patch `offset` voxels from the brain's centre; zero-padded where the volume is smaller."""
    pads = [max(0, p - n) for p, n in zip(size, x.shape[1:], strict=True)]
    padding = [n for pad in reversed(pads) for n in (pad // 2, pad - pad // 2)]
    x, y = (torch.nn.functional.pad(t, padding) for t in (x, y))
    inside = y[0].nonzero()
    centre = inside.float().mean(0).tolist() if len(inside) else [n / 2 for n in x.shape[1:]]
    corner = []
    for c, d, p, n in zip(centre, offset, size, x.shape[1:], strict=True):
        corner.append(int(np.clip(c + d - p / 2, 0, n - p)))
    box = (slice(None), *(slice(a, a + p) for a, p in zip(corner, size, strict=True)))
    return x[box], y[box]


def _to_window(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The target's own window, its ends jittered: other heads have other fat, vessels and background."""
    low, high = windows.Window().bounds(x)
    width = high - low
    bounds = (low + width * rng.uniform(-0.05, 0.05), high + width * rng.uniform(-0.25, 0.4))
    return windows.apply(x, bounds)
