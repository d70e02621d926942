"""Wrong answers that targeted attacks aim at: label maps made from the clean one."""

from __future__ import annotations

from enum import Enum

import torch

from MedShieldLib.attacks.losses import Reference


class Goal(str, Enum):
    """What the target shall be made to answer.

    Attributes:
        RUNNER_UP: in every voxel the likeliest wrong class.
        PERMUTED: every class of the clean answer becomes the next one, the last becomes background.
        BACKGROUND: nothing at all.
        SHIFTED: the clean answer, an eighth of the volume away: a plausible shape at a wrong place.
        SPHERE: a ball in the middle, of the clean answer's volume and of its largest structure's class.
    """

    RUNNER_UP = "runner-up"
    PERMUTED = "permuted"
    BACKGROUND = "background"
    SHIFTED = "shifted"
    SPHERE = "sphere"


def goal_labels(goal: Goal, reference: Reference) -> torch.Tensor:
    """The label map (1, K, J, I) of a goal, made from the clean answer."""
    labels = reference.labels
    if goal is Goal.RUNNER_UP:
        return reference.logits.scatter(1, labels[:, None], float("-inf")).argmax(dim=1)
    if goal is Goal.PERMUTED:
        return (labels + 1) % reference.logits.shape[1]
    if goal is Goal.BACKGROUND:
        return torch.zeros_like(labels)
    if goal is Goal.SHIFTED:
        return _shifted(labels)
    return _sphere(labels)


def _shifted(labels: torch.Tensor) -> torch.Tensor:
    """Moved along the last axis by an eighth of it; what leaves the volume is lost."""
    by = max(1, labels.shape[-1] // 8)
    goal = torch.zeros_like(labels)
    goal[..., by:] = labels[..., :-by]
    return goal


def _sphere(labels: torch.Tensor) -> torch.Tensor:
    counts = torch.bincount(labels[labels > 0])
    axes = [torch.arange(n) - (n - 1) / 2 for n in labels.shape[1:]]
    k, j, i = torch.meshgrid(*axes, indexing="ij")
    radius = (int(counts.sum()) * 3 / (4 * torch.pi)) ** (1 / 3)
    return (k**2 + j**2 + i**2 <= radius**2)[None].long() * int(counts.argmax())
