"""Signed gradient ascent over bounded parameters: the loop that most attacks share.

What the parameters mean, and how they become an input of the target, is in the attacks' own files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from MedShieldLib.attacks.base import Attack, Case
from MedShieldLib.attacks.losses import Loss, LossFunction


@dataclass(frozen=True)
class Ascent(Attack):
    """Climbs a loss over parameters z in [-1, 1] by the sign of a gradient with momentum.

    The answer is the iterate with the lowest true Dice, not the last one.

    Attributes:
        steps: gradient steps of each start.
        restarts: independent random starts.
        momentum: share of the last direction that is kept (Dong et al. 2018).
        step_size: first step in z; the steps fall to 0 along half a cosine.
        loss: what to climb.
    """

    steps: int = 40
    restarts: int = 1
    momentum: float = 0.75
    step_size: float = 1.0
    loss: Loss = Loss.SOFT_DICE

    @property
    def expected_passes(self) -> int:
        return self.restarts * (self.steps + 1)

    def start(self, case: Case) -> torch.Tensor:
        """A random z, of any shape, in [-1, 1]."""
        return case.uniform(case.x.shape)

    def render(self, case: Case, z: torch.Tensor) -> torch.Tensor:
        """The input that z stands for, within `case.project`; differentiable."""
        raise NotImplementedError

    def limit(self, case: Case, z: torch.Tensor) -> torch.Tensor:
        """The nearest allowed z."""
        return z.clamp(-1, 1)

    def loss_at(self, step: int) -> LossFunction:
        """What to climb at one step."""
        return Loss(self.loss)

    def size_at(self, step: int) -> float:
        """How far to go at one step."""
        return self.step_size * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def perturb(self, case: Case) -> torch.Tensor:
        for _ in range(self.restarts):
            z = self.limit(case, self.start(case))
            velocity = torch.zeros_like(z)
            for step in range(self.steps):
                gradient, _ = case.gradient(z, self.loss_at(step), lambda z: self.render(case, z))
                velocity = self.momentum * velocity + gradient / gradient.abs().mean().clamp(min=1e-30)
                z = self.limit(case, z + self.size_at(step) * velocity.sign())
            case.look(self.render(case, z))
        return case.best
