"""EOT-PGD: breaks the vote of the reformed versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.adaptive.gate import Gate
from MedShieldLib.attacks.adaptive.knowing import Knowing
from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.losses import mean_dice, soft_dice
from MedShieldLib.reformer import repairs
from MedShieldLib.versions import Version, votes


@dataclass(frozen=True)
class Reformed(Knowing):
    """PGD through converter and reformer, in expectation over their draws (Athalye et al. 2018).

    Does not mind an alarm: its aim is that what is recommended after the alarm is wrong as well. So it also
    looks through the versions that are drawn for the repair alone. It climbs the vote, which the repair takes
    or leaves place by place; not the rule by which it does.
    """

    name: ClassVar[str] = "adaptive-reformed"
    revision: ClassVar[int] = 3

    @property
    def expected_passes(self) -> int:
        return self.restarts * (self.steps + 1) * self.versions_drawn + self._warming

    @property
    def family(self) -> tuple[Version, ...]:
        """Those that vote: the others have no say in what is recommended."""
        family = self.shield.calibration.versions
        return (*filter(votes, family), *repairs(family))

    def perturb(self, case: Case) -> torch.Tensor:
        gate = Gate(case, self.shield, self.draws, self.family)
        found = [(1.0, case.x)]
        for x in self.starts(case):
            velocity = torch.zeros_like(x)
            for step in range(self.steps):
                gradient, score = _climb(gate, x)
                found = [min(*found, (score, x), key=lambda one: one[0])]
                x, velocity = self.step(case, x, velocity, gradient, step)
            found.append((_climb(gate, x)[1], x))
        return min(found, key=lambda one: one[0])[1]


def _climb(gate: Gate, x: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The gradient of the versions' mean loss, and the true Dice of their vote."""
    x = x.detach().requires_grad_()
    gradient, vote = torch.zeros_like(x), torch.zeros_like(gate.case.reference.logits)
    for q in gate.voting(x):
        loss = soft_dice(q.clamp(min=1e-12).log(), gate.case.reference)
        gradient += torch.autograd.grad(loss, x)[0]
        vote += q.detach()
    labels = vote.argmax(dim=1)
    return gradient, mean_dice(labels, gate.case.reference.labels)
