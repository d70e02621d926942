"""What attacks climb: losses that grow as the target's answer leaves its own clean answer.

All take logits (1, C, K, J, I) and the reference, which is the clean answer; class 0 is background.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import torch
import torch.nn.functional as F

# Temperatures of `soft_dice`, as shares of what the attack has moved the margins by.
_TEMPERATURES = (0.05, 0.2, 0.8)


@dataclass(frozen=True)
class Reference:
    """The target's clean answer.

    Attributes:
        logits: (1, C, K, J, I).
    """

    logits: torch.Tensor

    @cached_property
    def labels(self) -> torch.Tensor:
        """(1, K, J, I): the classes."""
        return self.logits.argmax(dim=1)

    @cached_property
    def structures(self) -> list[int]:
        """The classes other than background that occur."""
        return structures_in(self.labels)

    def moved(self, logits: torch.Tensor) -> float:
        """By how much other logits change the leads of the right classes, in the mean over structures.

        The mean lead itself where nothing has moved.
        """
        now = margins(logits, self.labels)[self.labels > 0]
        moved, typical = float((now - self._margins).abs().mean()), float(self._margins.abs().mean())
        return moved if moved > 1e-3 * typical else max(typical, 1e-6)

    @cached_property
    def _margins(self) -> torch.Tensor:
        return margins(self.logits, self.labels)[self.labels > 0]


LossFunction = Callable[[torch.Tensor, Reference], torch.Tensor]


def soft_dice(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """1 - soft Dice, averaged over the structures of the reference and over three temperatures.

    A softmax has a slope only where its logits are closer than its temperature. Here the temperatures follow
    the attack: they are shares of how far it has moved the leads of the right classes. So the voxels that it
    can turn are where the slope is, for networks with large logits and with small ones, for a small eps and a
    large one. A fixed temperature is far weaker on some of them.
    """
    moved = reference.moved(logits.detach())
    y = torch.stack([reference.labels == label for label in reference.structures], dim=1).to(logits.dtype)
    loss = logits.new_zeros(())
    for share in _TEMPERATURES:
        p = torch.softmax(logits / (share * moved), dim=1)[:, reference.structures]
        overlap = (p * y).sum(dim=(0, 2, 3, 4))
        loss = loss + (1 - 2 * overlap / (p + y).sum(dim=(0, 2, 3, 4))).mean()
    return loss / len(_TEMPERATURES)


def cross_entropy(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """Mean over voxels of -log p(reference)."""
    return F.cross_entropy(logits, reference.labels)


def margin(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """Mean over voxels of the best wrong logit minus the reference's (Carlini and Wagner 2017), at most 0.

    A voxel that is wrong already gives no gradient: the effort goes to those still right.
    """
    return margins(logits, reference.labels).clamp(max=0).mean()


def masked_cross_entropy(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """Cross-entropy of the voxels that are still right (Croce et al. 2024)."""
    return (voxelwise_cross_entropy(logits, reference) * still_right(logits, reference)).mean()


def balanced_cross_entropy(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """`masked_cross_entropy` with all classes weighing the same, however small (Croce et al. 2024)."""
    counts = torch.bincount(reference.labels.flatten(), minlength=logits.shape[1]).to(logits.dtype)
    weights = 1 / (counts.clamp(min=1) * (counts > 0).sum())
    loss = voxelwise_cross_entropy(logits, reference) * still_right(logits, reference)
    return (loss * weights[reference.labels]).sum()


def jensen_shannon(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """Mean over voxels of the Jensen-Shannon divergence to the one-hot reference (Croce et al. 2024).

    Bounded, so that voxels that are far wrong already do not draw the effort.
    """
    # Against a one-hot reference the divergence depends on p, the reference's probability, alone:
    # log 2 + [p log p - (1 + p) log(1 + p)] / 2.
    log_p = F.log_softmax(logits, dim=1).gather(1, reference.labels[:, None])
    p = log_p.exp()
    return (math.log(2) + 0.5 * (p * log_p - (1 + p) * torch.log1p(p))).mean()


def masked_spherical(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """Angle of the logits to the reference's axis, in the voxels still right (Croce et al. 2024).

    Half the squared distance on the unit sphere. Blind to the size of the logits, so that overconfident
    networks have gradients too.
    """
    direction = F.normalize(logits, dim=1).gather(1, reference.labels[:, None])[:, 0]
    return ((1 - direction) * still_right(logits, reference)).mean()


def margins(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(1, K, J, I): the best other logit minus the label's own; positive where the answer is another."""
    own = torch.zeros_like(logits).scatter_(1, labels[:, None], float("inf"))
    return (logits - own).amax(dim=1) - logits.gather(1, labels[:, None])[:, 0]


def voxelwise_cross_entropy(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """(1, K, J, I): -log p(reference)."""
    return F.cross_entropy(logits, reference.labels, reduction="none")


def still_right(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """(1, K, J, I) in {0, 1}: where the answer is still the reference; no gradient flows through it."""
    return (logits.detach().argmax(dim=1) == reference.labels).to(logits.dtype)


class Loss(str, Enum):
    """The losses by name; a member is called like the function it stands for."""

    SOFT_DICE = "soft-dice"
    CROSS_ENTROPY = "cross-entropy"
    MARGIN = "margin"
    MASKED_CROSS_ENTROPY = "masked-cross-entropy"
    BALANCED_CROSS_ENTROPY = "balanced-cross-entropy"
    JENSEN_SHANNON = "jensen-shannon"
    MASKED_SPHERICAL = "masked-spherical"

    def __call__(self, logits: torch.Tensor, reference: Reference) -> torch.Tensor:
        return globals()[self.name.lower()](logits, reference)


def structures_in(labels: torch.Tensor) -> list[int]:
    """The classes other than background that occur."""
    return [int(label) for label in labels.unique() if label > 0]


def dice(labels: torch.Tensor, clean: torch.Tensor) -> dict[int, float]:
    """Dice of two label maps of one shape, for every structure of the clean one."""
    answer = {}
    for label in structures_in(clean):
        ours, theirs = labels == label, clean == label
        answer[label] = 2 * int((ours & theirs).sum()) / int(ours.sum() + theirs.sum())
    return answer


def mean_dice(labels: torch.Tensor, clean: torch.Tensor) -> float:
    """The mean of `dice` over the structures of the clean one."""
    scores = dice(labels, clean)
    return sum(scores.values()) / len(scores)
