"""SegPGD: cross-entropy that turns from the voxels still right to those already wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.losses import LossFunction, Reference, still_right, voxelwise_cross_entropy
from MedShieldLib.attacks.pgd import PGD


@dataclass(frozen=True)
class SegPGD(PGD):
    """SegPGD (Gu et al. 2022), with the momentum and the steps of our PGD.

    Voxels still right weigh 1 - w and wrong ones w, where w grows from 0 to 1/2 over the steps: first new
    mistakes are sought, later the found ones are kept.
    """

    name: ClassVar[str] = "segpgd"

    def loss_at(self, step: int) -> LossFunction:
        w = step / (2 * self.steps)

        def weighted(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
            right = still_right(logits, reference)
            return (voxelwise_cross_entropy(logits, reference) * ((1 - w) * right + w * (1 - right))).mean()

        return weighted
