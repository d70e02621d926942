"""What attacks climb: losses that grow as the target's answer leaves its own clean answer.

All take logits (1, C, K, J, I) and the reference classes (1, K, J, I); 0 is background.
"""

from __future__ import annotations

from enum import Enum

import torch
import torch.nn.functional as F

# Confident networks answer with logits so far apart that the softmax, and with it the gradient, is 0 in
# float32. Dividing the logits by this keeps the gradient alive where it matters.
TEMPERATURE = 4.0


def cross_entropy(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Mean over voxels of -log p(reference)."""
    return F.cross_entropy(logits, reference)


def soft_dice(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice of softmax(logits / 4), averaged over the structures that the reference has."""
    present = structures_in(reference)
    p = torch.softmax(logits / TEMPERATURE, dim=1)[:, present]
    y = torch.stack([(reference == label) for label in present], dim=1).to(p.dtype)
    overlap = (p * y).sum(dim=(0, 2, 3, 4))
    return (1 - 2 * overlap / (p + y).sum(dim=(0, 2, 3, 4))).mean()


def margin(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Mean over voxels of the best wrong logit minus the reference's (Carlini and Wagner 2017), at most 0.

    A voxel that is wrong already gives no gradient: the effort goes to those still right.
    """
    return margins(logits, reference).clamp(max=0).mean()


def margins(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """(1, K, J, I): the best wrong logit minus the reference's; positive where the answer is wrong."""
    wrong = torch.zeros_like(logits).scatter_(1, reference[:, None], float("inf"))
    return (logits - wrong).amax(dim=1) - logits.gather(1, reference[:, None])[:, 0]


class Loss(str, Enum):
    """A loss by name, callable like the function it names."""

    SOFT_DICE = "soft-dice"
    CROSS_ENTROPY = "cross-entropy"
    MARGIN = "margin"

    def __call__(self, logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        functions = {Loss.SOFT_DICE: soft_dice, Loss.CROSS_ENTROPY: cross_entropy, Loss.MARGIN: margin}
        return functions[self](logits, reference)


def structures_in(reference: torch.Tensor) -> list[int]:
    """The classes other than background that occur."""
    return [int(label) for label in reference.unique() if label > 0]


def dice(labels: torch.Tensor, reference: torch.Tensor) -> dict[int, float]:
    """Dice of two label maps of one shape, for every structure of the reference."""
    answer = {}
    for label in structures_in(reference):
        ours, theirs = labels == label, reference == label
        answer[label] = 2 * int((ours & theirs).sum()) / int(ours.sum() + theirs.sum())
    return answer
