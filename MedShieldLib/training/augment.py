"""Augmentation for the reference target: what scanners, protocols and skull-strippers do to a head.

Every sample is a function of (subject, seed) alone, so training can stop and resume anywhere.
"""

from __future__ import annotations

import numpy as np
import torch
import torchio as tio

from MedShieldLib.targets import window as windows
from MedShieldLib.training.data import Subject

PATCH = (80, 104, 80)  # (k', j', i') at 2 mm: most of a brain with some of its surroundings
_BEFORE = (104, 128, 104)  # cropped to this before the spatial transforms, which cost most
# Patches lie this many voxels off the brain's centre at most: mostly near, often far enough to show what is
# no brain (neck, face, empty corners).
_NEAR, _FAR, _FAR_SHARE = 10, 60, 0.45
_STRIPPED_SHARE = 0.35
_BRAIN_MARGIN_VOXELS = (0, 1)


def sample(subject: Subject, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One augmented training pair: image (1, K, J, I) in [0, 1], labels (1, K, J, I) int64, of size PATCH."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    image = subject.image
    if rng.random() < _STRIPPED_SHARE:
        image = image * _brain(subject.labels, rng.integers(_BRAIN_MARGIN_VOXELS[0], _BRAIN_MARGIN_VOXELS[1] + 1))
    offset = rng.uniform(-1, 1, 3) * (_FAR if rng.random() < _FAR_SHARE else _NEAR)
    x, y = _crop(image[None], subject.labels[None], _BEFORE, offset)
    pair = tio.Subject(image=tio.ScalarImage(tensor=x, affine=_AFFINE), labels=tio.LabelMap(tensor=y, affine=_AFFINE))
    pair = _transform()(pair)
    x, y = _crop(pair["image"].data.float(), pair["labels"].data.long(), PATCH, offset)
    return _to_window(x, rng), y


_AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def _transform() -> tio.Transform:
    """Spatial first, then contrast, then what the scanner adds. Blur and noise are mild and ordinary: no
    attack and no filter of the shield is shown to the network.
    """
    return tio.Compose(
        [
            tio.RandomFlip(axes=(2,)),  # array axis i': left and right
            tio.RandomAffine(scales=(0.85, 1.2), degrees=15, translation=8, isotropic=False),
            tio.OneOf({tio.RandomAnisotropy(axes=(0, 1, 2), downsampling=(1.2, 2)): 1, tio.Lambda(_same): 4}),
            tio.Lambda(_bias_field, types_to_apply=[tio.INTENSITY], p=0.6),
            tio.RandomGamma(log_gamma=(-0.35, 0.35), p=0.8),
            tio.OneOf({tio.RandomBlur(std=(0, 2.2)): 3, tio.Lambda(_same): 2}),
            tio.OneOf({tio.RandomMotion(degrees=3, translation=3, num_transforms=1): 1, tio.Lambda(_same): 15}),
            tio.OneOf({tio.RandomGhosting(intensity=(0.1, 0.4)): 1, tio.Lambda(_same): 15}),
            tio.Lambda(_rician, types_to_apply=[tio.INTENSITY]),
        ]
    )


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _bias_field(x: torch.Tensor) -> torch.Tensor:
    """A smooth gain within about +-40 % (torchio's polynomial one costs more than a training step)."""
    knots = 0.2 * torch.randn(1, 1, 3, 3, 3)
    return x * torch.nn.functional.interpolate(knots, x.shape[1:], mode="trilinear", align_corners=True)[0].exp()


def _rician(x: torch.Tensor) -> torch.Tensor:
    """Rician noise of 0 to 5 % of the 99th percentile, as magnitude MR has it (Gudbjartsson 1995)."""
    sigma = float(np.percentile(x.numpy(), 99)) * 0.05 * float(torch.rand(1)) ** 2
    return torch.sqrt((x + sigma * torch.randn_like(x)) ** 2 + (sigma * torch.randn_like(x)) ** 2)


def _brain(labels: torch.Tensor, margin: int) -> torch.Tensor:
    mask = (labels > 0).float()[None, None]
    mask = torch.nn.functional.max_pool3d(mask, 3, 1, 1)
    mask = -torch.nn.functional.max_pool3d(-mask, 3, 1, 1)  # closing: no pinholes inside the brain
    if margin:
        mask = torch.nn.functional.max_pool3d(mask, 2 * int(margin) + 1, 1, int(margin))
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
