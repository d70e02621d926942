"""EOT-PGD: breaks the vote of the reformed versions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from MedShieldLib.attacks.adaptive.gate import Gate
from MedShieldLib.attacks.adaptive.silent import unit
from MedShieldLib.attacks.base import Attack, Case
from MedShieldLib.attacks.losses import mean_dice, soft_dice
from MedShieldLib.shield import Shield


@dataclass(frozen=True)
class Reformed(Attack):
    """PGD through converter and reformer, in expectation over their draws (Athalye et al. 2018).

    Does not mind an alarm: its aim is that what is recommended after the alarm is wrong as well.

    Attributes:
        shield: whose versions to see through.
        steps: gradient steps.
        draws: versions drawn in every step, at least.
        momentum: share of the last direction that is kept.
        step_size: first step, as a share of eps; the steps fall to 0 along half a cosine.
    """

    name: ClassVar[str] = "adaptive-reformed"
    shield: Shield = field(repr=False, compare=False)
    steps: int = 40
    draws: int = 20
    momentum: float = 0.75
    step_size: float = 1.0

    @property
    def expected_passes(self) -> int:
        family = len(self.shield.calibration.versions)
        return (self.steps + 1) * max(1, -(-self.draws // family)) * family

    def perturb(self, case: Case) -> torch.Tensor:
        gate = Gate(case, self.shield, self.draws)
        x = case.project(case.x + case.eps * case.uniform(case.x.shape))
        velocity, best = torch.zeros_like(x), (1.0, case.x)
        for step in range(self.steps):
            gradient, score = _climb(gate, x)
            best = min(best, (score, x), key=lambda found: found[0])
            velocity = self.momentum * velocity + unit(gradient)
            size = self.step_size * case.eps * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            x = case.project(x + size * velocity.sign())
        return min(best, (_climb(gate, x)[1], x), key=lambda found: found[0])[1]


def _climb(gate: Gate, x: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The gradient of the versions' mean loss, and the true Dice of their vote."""
    x = x.detach().requires_grad_()
    gradient, vote = torch.zeros_like(x), torch.zeros_like(gate.case.reference.logits)
    for _, q in gate.answers(x):
        loss = soft_dice(q.clamp(min=1e-12).log(), gate.case.reference)
        gradient += torch.autograd.grad(loss, x)[0]
        vote += q.detach()
    labels = vote.argmax(dim=1)
    return gradient, mean_dice(labels, gate.case.reference.labels)
