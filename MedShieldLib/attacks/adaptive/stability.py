"""Consistency-aware: the weight of stability follows the defender's own threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.adaptive.gate import Look
from MedShieldLib.attacks.adaptive.knowing import unit
from MedShieldLib.attacks.adaptive.silent import Silent


@dataclass(frozen=True)
class StabilityAdaptive(Silent):
    """Joint loss whose weight grows while an alarm would be raised, and shrinks while none would.

    The strongest attack known against consistency tests.

    Attributes:
        first_weight: of stability against harm, in the first step.
        rate: factor by which the weight changes at most in one step.
        aim: share of the threshold to stay at; the rest is for the draws' luck.
        company: least weight of misleading the other answers as well. Their weight is 1, and less once that
            of stability is below its first one: who is silent by far need not pay for them.
    """

    name: ClassVar[str] = "adaptive-stability"
    first_weight: float = 0.5
    rate: float = 1.5
    aim: float = 0.9
    company: float = 0.0

    def direction(self, look: Look, memory: dict[str, float]) -> torch.Tensor:
        excess = max(-1.0, min(1.0, look.ratio / self.aim - 1))
        weight = memory.get("weight", self.first_weight) * self.rate**excess
        memory["weight"] = max(1e-3, min(20.0, weight))
        share = max(self.company, min(1.0, memory["weight"] / self.first_weight))
        return unit(look.plain + share * look.company) - memory["weight"] * unit(look.alarm)
