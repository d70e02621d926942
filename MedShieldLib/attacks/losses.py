"""What attacks climb: losses that grow as the target's answer leaves its own clean answer.

All take logits (1, C, K, J, I) and classes (1, K, J, I), the reference; class 0 is background.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

import torch
import torch.nn.functional as F

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Confident networks answer with logits so far apart that the softmax, and with it the gradient, is 0 in
# float32. Dividing the logits by this keeps the gradient alive where it matters.
TEMPERATURE = 4.0


def soft_dice(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice of softmax(logits / 4), averaged over the structures that the reference has."""
    present = structures_in(reference)
    p = torch.softmax(logits / TEMPERATURE, dim=1)[:, present]
    y = torch.stack([reference == label for label in present], dim=1).to(p.dtype)
    overlap = (p * y).sum(dim=(0, 2, 3, 4))
    return (1 - 2 * overlap / (p + y).sum(dim=(0, 2, 3, 4))).mean()


def cross_entropy(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Mean over voxels of -log p(reference)."""
    return F.cross_entropy(logits, reference)


def margin(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Mean over voxels of the best wrong logit minus the reference's (Carlini and Wagner 2017), at most 0.

    A voxel that is wrong already gives no gradient: the effort goes to those still right.
    """
    return margins(logits, reference).clamp(max=0).mean()


def masked_cross_entropy(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the voxels that are still right (Croce et al. 2024)."""
    return (voxelwise_cross_entropy(logits, reference) * still_right(logits, reference)).mean()


def balanced_cross_entropy(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """`masked_cross_entropy` with all classes weighing the same, however small (Croce et al. 2024)."""
    counts = torch.bincount(reference.flatten(), minlength=logits.shape[1]).to(logits.dtype)
    weights = 1 / (counts.clamp(min=1) * (counts > 0).sum())
    loss = voxelwise_cross_entropy(logits, reference) * still_right(logits, reference)
    return (loss * weights[reference]).sum()


def jensen_shannon(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Mean over voxels of the Jensen-Shannon divergence to the one-hot reference (Croce et al. 2024).

    Bounded, so that voxels that are far wrong already do not draw the effort.
    """
    # Against a one-hot reference the divergence depends on p, the reference's probability, alone:
    # log 2 + [p log p - (1 + p) log(1 + p)] / 2.
    log_p = F.log_softmax(logits, dim=1).gather(1, reference[:, None])
    p = log_p.exp()
    return (math.log(2) + 0.5 * (p * log_p - (1 + p) * torch.log1p(p))).mean()


def masked_spherical(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Angle of the logits to the reference's axis, in the voxels still right (Croce et al. 2024).

    Half the squared distance on the unit sphere. Blind to the size of the logits, so that overconfident
    networks have gradients too.
    """
    direction = F.normalize(logits, dim=1).gather(1, reference[:, None])[:, 0]
    return ((1 - direction) * still_right(logits, reference)).mean()


def margins(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """(1, K, J, I): the best wrong logit minus the reference's; positive where the answer is wrong."""
    own = torch.zeros_like(logits).scatter_(1, reference[:, None], float("inf"))
    return (logits - own).amax(dim=1) - logits.gather(1, reference[:, None])[:, 0]


def voxelwise_cross_entropy(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """(1, K, J, I): -log p(reference)."""
    return F.cross_entropy(logits, reference, reduction="none")


def still_right(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """(1, K, J, I) in {0, 1}: where the answer is still the reference; no gradient flows through it."""
    return (logits.detach().argmax(dim=1) == reference).to(logits.dtype)


class Loss(str, Enum):
    """The losses by name; a member is called like the function it stands for."""

    SOFT_DICE = "soft-dice"
    CROSS_ENTROPY = "cross-entropy"
    MARGIN = "margin"
    MASKED_CROSS_ENTROPY = "masked-cross-entropy"
    BALANCED_CROSS_ENTROPY = "balanced-cross-entropy"
    JENSEN_SHANNON = "jensen-shannon"
    MASKED_SPHERICAL = "masked-spherical"

    def __call__(self, logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        return globals()[self.name.lower()](logits, reference)


def structures_in(labels: torch.Tensor) -> list[int]:
    """The classes other than background that occur."""
    return [int(label) for label in labels.unique() if label > 0]


def dice(labels: torch.Tensor, reference: torch.Tensor) -> dict[int, float]:
    """Dice of two label maps of one shape, for every structure of the reference."""
    answer = {}
    for label in structures_in(reference):
        ours, theirs = labels == label, reference == label
        answer[label] = 2 * int((ours & theirs).sum()) / int(ours.sum() + theirs.sum())
    return answer


def mean_dice(labels: torch.Tensor, reference: torch.Tensor) -> float:
    """The mean of `dice` over the structures of the reference."""
    scores = dice(labels, reference)
    return sum(scores.values()) / len(scores)
