"""SA2: block spectra multiplied by learned factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.ascent import Ascent
from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.blocks import from_spectrum, to_spectrum


@dataclass(frozen=True)
class SA2(Ascent):
    """Spectrum adversarial attack (Hanif et al. 2025), kept within eps.

    Each coefficient of each 8^3 block's cosine spectrum is amplified or attenuated, so that the change
    follows the anatomy: where there is no structure, there is no change.

    Attributes:
        rho: largest relative change of a coefficient.
    """

    name: ClassVar[str] = "sa2"
    rho: float = 0.2

    def start(self, case: Case) -> torch.Tensor:
        return case.uniform(to_spectrum(case.x).shape)

    def render(self, case: Case, z: torch.Tensor) -> torch.Tensor:
        changed = from_spectrum(to_spectrum(case.x) * (1 + self.rho * z), case.x.shape)
        return case.project_straight(changed)
