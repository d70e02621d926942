"""The second target of a shield as its attacker sees it: differentiable, from places of the attacker's own.

Attacking both targets jointly is what is left to an attacker who knows that a second one is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from MedShieldLib import second_opinion
from MedShieldLib.attacks.adaptive.views import answer_to_view, larger, log
from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.losses import soft_dice
from MedShieldLib.errors import InputError
from MedShieldLib.fusion import Fusion
from MedShieldLib.shield import Shield
from MedShieldLib.targets.base import DifferentiableTarget
from MedShieldLib.versions import Source
from MedShieldLib.volume import Volume


@dataclass(frozen=True)
class SecondTarget:
    """The second target and the clean volume of a case.

    Attributes:
        attacked: the case of the first target; passes of the second one are counted there.
        own: the same volume as a case of the second target, with its own window and grid.
        matched: what both draw.
        scale: how the shield fuses both.
    """

    attacked: Case
    own: Case
    matched: tuple[second_opinion.Match, ...]
    scale: Fusion

    @classmethod
    def of(cls, case: Case, shield: Shield) -> SecondTarget | None:
        """None if the shield asks nobody else.

        Raises:
            InputError: if the second target shows no gradients, or finds nothing in the volume.
        """
        second = shield.second
        if second is None:
            return None
        if not isinstance(second, DifferentiableTarget):
            raise InputError(
                f"The second opinion '{second.name}' shows no gradients, so it cannot be attacked jointly; "
                "attack a shield with another one."
            )
        own = Case.of(second, case.volume, case.eps, case.generator, cancelled=case.cancelled)
        own.eps *= case.width / own.width  # the same bound, in units of the other window
        matched = second_opinion.matches(case.target.structures, second.structures)
        return cls(case, own, matched, shield.calibration.fusion)

    def answer(self, written: Volume, change: torch.Tensor, seed: int) -> torch.Tensor:
        """The second target's answer (1, C, K', J', I'), differentiable.

        Args:
            written: the volume that it answers to.
            change: zeros (K, J, I) in its intensity units, through which gradients reach the input.
            seed: of the place from which it sees the volume.
        """
        source = Source(written, self.own.grid, self.own.target.finest_mm)
        rng = second_opinion.generator(seed)
        self.attacked.passes += 1
        return answer_to_view(second_opinion.PLACE, self.own, source, change, rng)

    def harm(self, q: torch.Tensor) -> torch.Tensor:
        """Soft Dice loss of its answer `q`, which grows as that leaves its own clean answer."""
        return soft_dice(log(q), self.own.reference)

    def contradictions(self, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        """(M, 2) `second_opinion.contradictions` of the first target's answer `p` by `q`, differentiable."""
        answers = (p[0], self.attacked.grid), (q[0], self.own.grid)
        return second_opinion.missed_and_added(*second_opinion.comparable(self.matched, *answers))

    def fused(self, instability: torch.Tensor, contradictions: torch.Tensor) -> torch.Tensor:
        """`Fusion.fused`, differentiable."""
        scale = self.scale
        relative = contradictions / torch.from_numpy(scale.benign).float()
        # A root has no slope at 0.
        score = relative.square().mean().clamp(min=scale.units.LEAST_SCORE**2).sqrt()
        return larger(instability, scale.units.of(score))
