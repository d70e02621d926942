"""The adaptive segmentation mask attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.base import Attack, Case
from MedShieldLib.attacks.goals import Goal, goal_labels
from MedShieldLib.attacks.losses import structures_in


@dataclass(frozen=True)
class ASMA(Attack):
    """Adaptive segmentation mask attack (Ozbulak et al. 2019): draws a mask of the attacker's choice.

    Climbs the goal's logit in the voxels that do not have the goal's class yet, with steps that grow with
    the overlap reached. The paper uses raw gradients and no bound; here they are scaled to mean 1 and the
    result stays within eps. The answer is the iterate that comes closest to the goal.

    Attributes:
        steps: gradient steps.
        base: mean change per step without overlap, as a share of eps.
        gain: how much the step grows when the overlap reaches 1, as a share of eps.
        goal: the mask to draw.
    """

    name: ClassVar[str] = "asma"
    steps: int = 100
    base: float = 0.05
    gain: float = 0.05
    goal: Goal = Goal.SHIFTED

    @property
    def expected_passes(self) -> int:
        return self.steps + 1

    def perturb(self, case: Case) -> torch.Tensor:
        goal = goal_labels(Goal(self.goal), case.reference)
        case.judge(lambda labels: -overlap(labels, goal))
        x = case.x
        for _ in range(self.steps):
            gradient, _ = case.gradient(x, lambda logits, _: _missing(logits, goal))
            size = case.eps * (self.base - self.gain * case.last_score)
            x = case.project(x + size * gradient / gradient.abs().mean().clamp(min=1e-30))
        case.look(x)
        return case.best


def overlap(labels: torch.Tensor, goal: torch.Tensor) -> float:
    """Mean intersection over union with the goal's structures, or the share of background if it has none."""
    present = structures_in(goal)
    if not present:
        return float((labels == 0).float().mean())
    return sum(_iou(labels == label, goal == label) for label in present) / len(present)


def _iou(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours & theirs).sum() / (ours | theirs).sum())


def _missing(logits: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Sum of the goal's logit over the voxels where it is not the largest."""
    active = logits.detach().argmax(dim=1) != goal
    return (logits.gather(1, goal[:, None])[:, 0] * active).sum()
