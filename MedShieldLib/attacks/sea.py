"""SEA: the segmentation ensemble attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.apgd import APGD
from MedShieldLib.attacks.base import Attack, Case
from MedShieldLib.attacks.losses import Loss


@dataclass(frozen=True)
class SEA(Attack):
    """The worst of several Auto-PGDs, one for each of the paper's losses (Croce et al. 2024).

    Attributes:
        steps: gradient steps for each loss.
        losses: what to climb, one after the other.
    """

    name: ClassVar[str] = "sea"
    revision: ClassVar[int] = 2
    steps: int = 100
    losses: tuple[Loss, ...] = (
        Loss.JENSEN_SHANNON,
        Loss.MASKED_CROSS_ENTROPY,
        Loss.BALANCED_CROSS_ENTROPY,
        Loss.MASKED_SPHERICAL,
    )

    @property
    def expected_passes(self) -> int:
        return sum(APGD(steps=self.steps, loss=loss).expected_passes for loss in self.losses)

    def perturb(self, case: Case) -> torch.Tensor:
        for loss in self.losses:
            APGD(steps=self.steps, loss=loss).perturb(case)
        return case.best
