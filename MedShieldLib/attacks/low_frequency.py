"""Perturbations without fine detail, and smooth bias fields: both are drawn on a coarse control grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from MedShieldLib.attacks.ascent import Ascent
from MedShieldLib.attacks.base import Case


@dataclass(frozen=True)
class LowFrequency(Ascent):
    """Additive low-frequency perturbation (Guo et al. 2019, Sharma et al. 2019).

    Values at control points, interpolated linearly: never larger than eps and, unlike a filtered and
    clipped perturbation, with nothing above the control grid's frequency but the interpolation's ripple.

    Attributes:
        distance_mm: between control points.
    """

    name: ClassVar[str] = "low-frequency"
    distance_mm: float = 16.0

    def start(self, case: Case) -> torch.Tensor:
        extents = zip(case.x.shape[2:], reversed(case.volume.spacing), strict=True)
        return case.uniform((1, 1, *(max(2, round(n * mm / self.distance_mm) + 1) for n, mm in extents)))

    def render(self, case: Case, z: torch.Tensor) -> torch.Tensor:
        return case.project_straight(case.x + case.eps * smooth(z, case.x.shape))


@dataclass(frozen=True)
class BiasField(Ascent):
    """Multiplicative smooth field, as of a receive coil (Tian et al. 2021 in radiographs).

    Attributes:
        points: control points along each axis.
        amplitude: largest share by which the field changes an intensity, in eps. With 1, tissue of half the
            window's intensity would use half of the bound only; what passes the bound is cut off.
    """

    name: ClassVar[str] = "bias-field"
    revision: ClassVar[int] = 2
    points: int = 5
    amplitude: float = 3.0

    def start(self, case: Case) -> torch.Tensor:
        return case.uniform((1, 1, self.points, self.points, self.points))

    def render(self, case: Case, z: torch.Tensor) -> torch.Tensor:
        return case.project_straight(case.x * (1 + self.amplitude * case.eps * smooth(z, case.x.shape)))


def smooth(z: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Control values to a field of `shape`, within the range of the values."""
    return F.interpolate(z, size=shape[2:], mode="trilinear", align_corners=True)
