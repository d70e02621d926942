"""EOT-PGD: breaks what the shield recommends after an alarm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.adaptive.gate import Gate
from MedShieldLib.attacks.adaptive.knowing import Knowing
from MedShieldLib.attacks.adaptive.repair import Repair
from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.losses import mean_dice

# Continued beyond the vote, probabilities end at 0: their logarithms would drown those of the others.
_CERTAIN = 1e-12


@dataclass(frozen=True)
class Reformed(Knowing):
    """PGD through converter and reformer, in expectation over their draws (Athalye et al. 2018).

    Does not mind an alarm: its aim is that what is recommended after the alarm is wrong as well. The gradient
    is that of the whole repair: of the vote, of where it replaces the answer, and of how far it goes on. That
    of every vote by itself is added, which leads on where the repair keeps the answer and has no slope. What
    misleads all votes alike is stable, so this attack is often silent as well.
    """

    name: ClassVar[str] = "adaptive-reformed"
    revision: ClassVar[int] = 5

    @property
    def expected_passes(self) -> int:
        # A step runs each version twice, as `Gate.look` does; the last look judges alone.
        steps = self.steps * (1 + 2 * self.versions_drawn) + 1 + self.versions_drawn
        return self.restarts * steps + self._warming

    def perturb(self, case: Case) -> torch.Tensor:
        gate = Gate(case, self.shield, self.draws)
        through = _Through(case, gate, Repair(gate, self.shield))
        found = [(1.0, case.x)]
        for z in self.starts(case):
            velocity = torch.zeros_like(z)
            for step in range(self.steps):
                x = self.rendered(case, z)
                gradient, score = through.climb(x)
                found = [min(*found, (score, x), key=lambda one: one[0])]
                z, velocity = self.step(case, z, velocity, self.by_parameters(case, gradient), step)
            x = self.rendered(case, z)
            found.append((through.dice(x), x))
        return min(found, key=lambda one: one[0])[1]


@dataclass(frozen=True)
class _Through:
    """A case seen through the repair of fresh draws; a round stands for one check."""

    case: Case
    gate: Gate
    repair: Repair

    def climb(self, x: torch.Tensor) -> tuple[torch.Tensor, float]:
        """The gradient of the losses of what is recommended and of the votes, and the former's true Dice."""
        x = x.detach().requires_grad_()
        p = torch.softmax(self.case.logits(x), dim=1)
        by_input, by_answer, dice = torch.zeros_like(x), torch.zeros_like(p), 0.0
        for seed in self.gate.seeds():
            # Once without gradients; then each version again, by its share in the loss, and forgotten.
            with torch.no_grad():
                others = list(self.gate.observed(x, seed))
            leaves = [q.detach().requires_grad_() for q in (p, *others)]
            repaired = self.repair.of(leaves[0], leaves[1:])
            voters = self.repair.voters(leaves[1:])
            loss = self.gate.harm(repaired.clamp(min=_CERTAIN))
            loss = loss + sum(map(self.gate.harm, voters)) / len(voters)
            of_answer, *of_others = torch.autograd.grad(loss, leaves, materialize_grads=True)
            by_answer += of_answer
            for q, weight in zip(self.gate.observed(x, seed), of_others, strict=True):
                by_input += torch.autograd.grad((q * weight).sum(), x)[0]
            dice += self._dice(repaired) / self.gate.rounds
        return by_input + torch.autograd.grad(p, x, by_answer)[0], dice

    def dice(self, x: torch.Tensor) -> float:
        """The true Dice of what is recommended at `x`."""
        with torch.no_grad():
            p = torch.softmax(self.case.logits(x), dim=1)
            found = [self._dice(self.repair.of(p, list(self.gate.observed(x, s)))) for s in self.gate.seeds()]
        return sum(found) / len(found)

    def _dice(self, repaired: torch.Tensor) -> float:
        return mean_dice(repaired.argmax(dim=1), self.case.reference.labels)
