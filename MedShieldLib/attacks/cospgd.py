"""CosPGD: cross-entropy weighted voxel by voxel by how well the answer still agrees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.losses import LossFunction, Reference, voxelwise_cross_entropy
from MedShieldLib.attacks.pgd import PGD


@dataclass(frozen=True)
class CosPGD(PGD):
    """CosPGD (Agnihotri et al. 2024), with the momentum and the steps of our PGD.

    The weight of a voxel is the cosine between its probabilities and its one-hot reference: a mistake that
    is already certain gets none, smoothly. (A single mean cosine, as in some 3D ports, is plain PGD.)
    """

    name: ClassVar[str] = "cospgd"

    def loss_at(self, step: int) -> LossFunction:
        return cosine_weighted


def cosine_weighted(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """Mean over voxels of cosine x cross-entropy; no gradient flows through the cosine."""
    p = torch.softmax(logits.detach(), dim=1)
    cosine = p.gather(1, reference.labels[:, None])[:, 0] / p.norm(dim=1)
    return (cosine * voxelwise_cross_entropy(logits, reference)).mean()
