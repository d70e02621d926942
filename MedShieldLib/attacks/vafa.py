"""VAFA: quantisation of block spectra, with a table that is learned against the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.ascent import Ascent
from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.blocks import from_spectrum, to_spectrum


@dataclass(frozen=True)
class VAFA(Ascent):
    """Volumetric adversarial frequency attack (Hanif et al. 2023), kept within eps.

    Drops information instead of adding noise: each coefficient of each 8^3 block's cosine spectrum is
    rounded to a multiple of its own step, and the steps are what is optimised. The paper bounds the steps
    only, and penalises dissimilarity; here the L-infinity bound does that.

    Attributes:
        coarsest: largest rounding step, in eps.
    """

    name: ClassVar[str] = "vafa"
    coarsest: float = 8.0

    def start(self, case: Case) -> torch.Tensor:
        return case.uniform(to_spectrum(case.x).shape)

    def render(self, case: Case, z: torch.Tensor) -> torch.Tensor:
        step = (0.02 + 0.49 * (1 + z)) * self.coarsest * case.eps
        levels = to_spectrum(case.x) / step
        # Rounding has no gradient; passing it straight through leaves that of the table: the rounding error.
        rounded = levels + (levels.round() - levels).detach()
        return case.project_straight(from_spectrum(rounded * step, case.x.shape))
