"""The fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.base import Attack, Case
from MedShieldLib.attacks.losses import Loss


@dataclass(frozen=True)
class FGSM(Attack):
    """One step of eps along the sign of the gradient (Goodfellow et al. 2015).

    Attributes:
        loss: what to climb.
    """

    name: ClassVar[str] = "fgsm"
    loss: Loss = Loss.CROSS_ENTROPY

    @property
    def expected_passes(self) -> int:
        return 1

    def perturb(self, case: Case) -> torch.Tensor:
        gradient, _ = case.gradient(case.x, Loss(self.loss))
        return case.project(case.x + case.eps * gradient.sign())
