"""Dense adversary generation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from MedShieldLib.attacks.base import Attack, Case
from MedShieldLib.attacks.goals import Goal, goal_labels
from MedShieldLib.attacks.losses import Reference


@dataclass(frozen=True)
class DAG(Attack):
    """Dense adversary generation (Xie et al. 2017), kept within eps.

    Every voxel that is still right is pushed from its own class to a wrong one; the summed gradient is
    scaled to a fixed largest step. Stops when no voxel is right.

    Attributes:
        steps: at most this many.
        step_size: largest change of a voxel in one step, as a share of eps.
        goal: which wrong class each voxel is pushed to.
    """

    name: ClassVar[str] = "dag"
    steps: int = 100
    step_size: float = 0.5
    goal: Goal = Goal.RUNNER_UP

    @property
    def expected_passes(self) -> int:
        return self.steps + 1

    def perturb(self, case: Case) -> torch.Tensor:
        wrong = goal_labels(Goal(self.goal), case.reference)[:, None]
        x = case.x
        for _ in range(self.steps):
            gradient, _ = case.gradient(x, partial(_push, wrong=wrong))
            largest = gradient.abs().max()
            if largest == 0:
                break
            x = case.project(x + self.step_size * case.eps * gradient / largest)
        case.look(x)
        return case.best


def _push(logits: torch.Tensor, reference: Reference, wrong: torch.Tensor) -> torch.Tensor:
    """Sum of wrong minus own logit over the voxels that still have their own class."""
    own = reference.labels[:, None]
    active = logits.detach().argmax(dim=1, keepdim=True) == own
    return ((logits.gather(1, wrong) - logits.gather(1, own)) * active).sum()
