"""The shield's repair as its attacker rebuilds it: `reformer.repaired`, differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from MedShieldLib import detector
from MedShieldLib.attacks.adaptive.gate import Gate
from MedShieldLib.reformer import FAR, LEAST_SCATTER, NEIGHBOURHOOD
from MedShieldLib.shield import Shield
from MedShieldLib.versions import votes

_SMALLEST = 1e-12  # a root has no slope at 0


class Repair:
    """What is recommended after an alarm.

    Args:
        gate: of the case.
        shield: what stands before it.
    """

    def __init__(self, gate: Gate, shield: Shield) -> None:
        self._gate = gate
        self._voting = [votes(version) for version in gate.versions]
        self._ordinary = detector.ordinary(shield.calibration.instability)

    def of(self, answer: torch.Tensor, others: Sequence[torch.Tensor]) -> torch.Tensor:
        """The repaired answer (1, C, K', J', I') in [0, 1]; `others` are one round's, to all versions."""
        share = (1 - self._ordinary / self._gate.instability(answer, others)).clamp(min=0)
        voters = self.voters(others)
        vote = torch.stack(voters).mean(0)
        where = standing_alone(vote, answer, scatter(voters, vote), share)
        return (answer + (1 + share) * where * (vote - answer)).clamp(0, 1)

    def voters(self, others: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Those of one round's answers that vote."""
        return [q for q, has_vote in zip(others, self._voting, strict=True) if has_vote]


def scatter(voters: Sequence[torch.Tensor], vote: torch.Tensor) -> torch.Tensor:
    """`Observation.scatter`, differentiable: (1, K', J', I')."""
    return torch.stack([(q - vote).square().sum(1) for q in voters]).mean(0)


def standing_alone(
    vote: torch.Tensor, answer: torch.Tensor, scatter: torch.Tensor, share: torch.Tensor
) -> torch.Tensor:
    """`reformer.standing_alone`, differentiable: (1, K', J', I')."""
    own = _nearby((answer - vote).square().sum(1)).clamp(min=_SMALLEST)
    ratio = (own / (_nearby(scatter) + LEAST_SCATTER**2)).sqrt()
    return ((ratio - (1 - share)) / (FAR - 1)).clamp(0, 1)


def _nearby(x: torch.Tensor) -> torch.Tensor:
    """The mean over a cube of `NEIGHBOURHOOD` cells around each, the outermost repeated beyond the rim."""
    for axis in range(3):
        size, padding = [1, 1, 1], [0] * 6
        size[axis] = NEIGHBOURHOOD
        padding[4 - 2 * axis : 6 - 2 * axis] = [NEIGHBOURHOOD // 2] * 2
        x = F.avg_pool3d(F.pad(x[None], padding, mode="replicate")[0], size, stride=1)
    return x
