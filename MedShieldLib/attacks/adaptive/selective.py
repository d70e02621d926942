"""Selective and orthogonal gradients: one aim is followed at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.adaptive.gate import Look
from MedShieldLib.attacks.adaptive.silent import Silent


@dataclass(frozen=True)
class Selective(Silent):
    """Follows one gradient at a time (Bryniarski et al. 2022): stability while loud, harm while silent.

    That spares the other aim to first order only, and not in full: the momentum remembers the last aim for
    some steps, and the sign of a direction is not along it.

    Attributes:
        orthogonal: take out of the gradient that is followed what points along the other one.
    """

    name: ClassVar[str] = "adaptive-selective"
    orthogonal: bool = False

    def direction(self, look: Look, memory: dict[str, float]) -> torch.Tensor:
        follow, spare = (-look.alarm, look.harm) if look.ratio > 1 else (look.harm, look.alarm)
        return without(follow, spare) if self.orthogonal else follow


@dataclass(frozen=True)
class Orthogonal(Selective):
    """`Selective` with orthogonal projections."""

    name: ClassVar[str] = "adaptive-orthogonal"
    orthogonal: bool = True


def without(gradient: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`gradient` less its part along `other`."""
    return gradient - other * ((gradient * other).sum() / (other * other).sum().clamp(min=1e-30))
