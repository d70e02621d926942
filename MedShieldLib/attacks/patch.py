"""A perturbation confined to one cube."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.losses import Loss
from MedShieldLib.attacks.pgd import PGD


@dataclass(frozen=True)
class LocalPatch(PGD):
    """PGD inside one cube, placed where the gradient is largest (after Karmon et al. 2018).

    Attributes:
        edge: of the cube, as a share of the volume's shortest axis.
    """

    name: ClassVar[str] = "local-patch"
    edge: float = 0.3

    @property
    def expected_passes(self) -> int:
        return super().expected_passes + 1

    def perturb(self, case: Case) -> torch.Tensor:
        gradient, _ = case.gradient(case.x, Loss(self.loss))
        edge = max(1, round(self.edge * min(case.x.shape[2:])))
        mass = mass_of_cubes(gradient.abs(), edge)
        k, j, i = (int(corner) for corner in torch.unravel_index(mass.argmax(), mass.shape)[2:])
        case.room = torch.zeros_like(case.x)
        case.room[..., k : k + edge, j : j + edge, i : i + edge] = 1
        return super().perturb(case)


def mass_of_cubes(x: torch.Tensor, edge: int) -> torch.Tensor:
    """Means of (1, 1, K, J, I) over all cubes of `edge` voxels, one axis after another: 3n instead of n^3."""
    for kernel in ((edge, 1, 1), (1, edge, 1), (1, 1, edge)):
        x = F.avg_pool3d(x, kernel, stride=1)
    return x
