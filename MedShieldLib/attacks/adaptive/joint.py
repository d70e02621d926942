"""Joint loss: break the target while staying under the detector's threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.adaptive.gate import Look
from MedShieldLib.attacks.adaptive.knowing import unit
from MedShieldLib.attacks.adaptive.silent import Silent


@dataclass(frozen=True)
class Joint(Silent):
    """Joint loss with a fixed weight (Carlini and Wagner 2017 on detectors); sweep the weight.

    Attributes:
        weight: of stability against harm; 0 ignores the shield.
    """

    name: ClassVar[str] = "adaptive-joint"
    weight: float = 0.5

    def direction(self, look: Look, memory: dict[str, float]) -> torch.Tensor:
        return unit(look.harm) - self.weight * unit(look.alarm)
