"""The basic iterative method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.losses import Loss
from MedShieldLib.attacks.pgd import PGD


@dataclass(frozen=True)
class BIM(PGD):
    """Small gradient sign steps of one size from the clean input, without momentum (Kurakin et al. 2017).

    Attributes:
        step_size: of every step, as a share of eps.
    """

    name: ClassVar[str] = "bim"
    steps: int = 20
    momentum: float = 0.0
    step_size: float = 0.125
    loss: Loss = Loss.CROSS_ENTROPY

    def start(self, case: Case) -> torch.Tensor:
        return torch.zeros_like(case.x)

    def size_at(self, step: int) -> float:
        return self.step_size
