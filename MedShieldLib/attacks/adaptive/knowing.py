"""What all attackers who know a shield share: whose versions they see through, and how they step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from scipy import ndimage

from MedShieldLib.attacks.base import Attack, Case
from MedShieldLib.attacks.pgd import PGD
from MedShieldLib.shield import Shield

# Makes up for what a Gaussian takes of a change that is not as wide as itself.
_GAIN = 2.0


@dataclass(frozen=True)
class Knowing(Attack):
    """Sign steps with momentum from a random start; expectation over the draws (Athalye et al. 2018).

    Attributes:
        shield: the attacker knows all of it but the seed of a check.
        steps: gradient steps.
        draws: versions drawn in every step, at least.
        momentum: share of the last direction that is kept.
        step_size: first step, as a share of eps; the steps fall to 0 along half a cosine.
        restarts: independent starts.
        warm: the first of them begins at the result of PGD, which breaks the plain answer.
        smooth_mm: standard deviation of a Gaussian that every change passes, because filters take little of
            what is smooth; 0 changes every voxel by itself.
    """

    shield: Shield = field(repr=False, compare=False)
    steps: int = 40
    draws: int = 20
    momentum: float = 0.75
    step_size: float = 1.0
    restarts: int = 1
    warm: bool = False
    smooth_mm: float = 0.0

    @property
    def versions_drawn(self) -> int:
        """In one look: whole families, `draws` at least."""
        return self._rounds * len(self.shield.calibration.versions)

    @property
    def answers(self) -> int:
        """In one look at the shield: to the versions, and second opinions."""
        return self.versions_drawn + (self._rounds if self.shield.second else 0)

    @property
    def _rounds(self) -> int:
        return max(1, -(-self.draws // len(self.shield.calibration.versions)))

    @property
    def _warming(self) -> int:
        """Passes before the first step."""
        return PGD().expected_passes if self.warm else 0

    def starts(self, case: Case) -> Iterator[torch.Tensor]:
        """Where to begin: anywhere within the bound, but see `warm`."""
        for number in range(self.restarts):
            if self.warm and number == 0:
                yield PGD().perturb(case)
            else:
                yield case.project(case.x + case.eps * case.uniform(case.x.shape))

    def rendered(self, case: Case, z: torch.Tensor) -> torch.Tensor:
        """The input that parameters of its shape stand for: themselves, or with their change smoothed."""
        if not self.smooth_mm:
            return z
        return case.project(case.x + _GAIN * self._smoothed(case, z - case.x))

    def by_parameters(self, case: Case, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient by the parameters of one by the input, as if nothing had been clipped."""
        return self._smoothed(case, gradient) if self.smooth_mm else gradient

    def _smoothed(self, case: Case, x: torch.Tensor) -> torch.Tensor:
        voxels = [self.smooth_mm / mm for mm in case.volume.spacing[::-1]]
        return torch.from_numpy(ndimage.gaussian_filter(x[0, 0].numpy(), voxels))[None, None]

    def step(
        self, case: Case, x: torch.Tensor, velocity: torch.Tensor, gradient: torch.Tensor, number: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next input and velocity."""
        velocity = self.momentum * velocity + unit(gradient)
        size = self.step_size * case.eps * 0.5 * (1 + math.cos(math.pi * number / self.steps))
        return case.project(x + size * velocity.sign()), velocity


def unit(gradient: torch.Tensor) -> torch.Tensor:
    """Scaled to a mean magnitude of 1, so that two gradients can be weighed against each other."""
    return gradient / gradient.abs().mean().clamp(min=1e-30)
