"""Projected gradient descent within an L-infinity ball."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.base import Attack, Case
from MedShieldLib.attacks.losses import Loss


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent (Madry et al. 2018) with momentum (Dong et al. 2018).

    The default loss, soft Dice of softened logits, is far stronger on segmentation than cross-entropy. The
    answer is the iterate with the lowest true Dice, not the last one.

    Attributes:
        steps: gradient steps of each start.
        restarts: independent starts; the first is the clean input, the others are random in the box.
        momentum: share of the last direction that is kept.
        step_size: first step, as a share of eps; falls along half a cosine towards 0.
        loss: what to climb.
    """

    name: ClassVar[str] = "pgd"
    steps: int = 40
    restarts: int = 1
    momentum: float = 0.75
    step_size: float = 0.5
    loss: Loss = Loss.SOFT_DICE

    @property
    def expected_passes(self) -> int:
        return self.restarts * (self.steps + 1)

    def perturb(self, case: Case) -> torch.Tensor:
        for _ in range(self.restarts):
            x = case.project(case.x + case.eps * case.uniform())
            velocity = torch.zeros_like(x)
            for step in range(self.steps):
                gradient = case.gradient(x, Loss(self.loss))
                velocity = self.momentum * velocity + gradient / gradient.abs().mean().clamp(min=1e-30)
                size = self.step_size * case.eps * 0.5 * (1 + math.cos(math.pi * step / self.steps))
                x = case.project(x + size * velocity.sign())
            case.look(x)
        return case.best
