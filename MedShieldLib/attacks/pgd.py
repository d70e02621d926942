"""Projected gradient descent within an L-infinity ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.ascent import Ascent
from MedShieldLib.attacks.base import Case


@dataclass(frozen=True)
class PGD(Ascent):
    """Projected gradient descent (Madry et al. 2018), with momentum (Dong et al. 2018) and random starts.

    The default loss, soft Dice of scaled logits, is far stronger on segmentation than cross-entropy.
    """

    name: ClassVar[str] = "pgd"

    def render(self, case: Case, z: torch.Tensor) -> torch.Tensor:
        return case.x + case.eps * z

    def limit(self, case: Case, z: torch.Tensor) -> torch.Tensor:
        # The box is kept here and not in `render`: a clamp there would stop the gradient at its faces.
        return (case.project(case.x + case.eps * z) - case.x) / case.eps
