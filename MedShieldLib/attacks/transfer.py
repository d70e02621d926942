"""An attack found on another target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from MedShieldLib.attacks.base import Attack, Case
from MedShieldLib.attacks.pgd import PGD
from MedShieldLib.targets.base import DifferentiableTarget


@dataclass(frozen=True)
class Transfer(Attack):
    """Attacks a surrogate and hands the result to the target (Papernot et al. 2016), which is never asked.

    Attributes:
        surrogate: a target that the attacker owns, of the same task.
        attack: the white-box attack used on it.
    """

    name: ClassVar[str] = "transfer"
    revision: ClassVar[int] = 2
    surrogate: DifferentiableTarget = field(repr=False, compare=False)
    attack: Attack = field(default_factory=PGD)

    @property
    def expected_passes(self) -> int:
        return self.attack.expected_passes

    def perturb(self, case: Case) -> torch.Tensor:
        how = (case.eps, case.generator, self.attack.expected_passes, case.progress, case.cancelled)
        theirs = Case.of(self.surrogate, case.volume, *how)
        theirs.eps *= case.width / theirs.width  # the same bound, in units of the other window
        change = theirs.project(self.attack.perturb(theirs)) - theirs.x
        return case.project(case.x + change * (theirs.width / case.width))
