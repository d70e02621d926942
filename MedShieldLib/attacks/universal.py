"""One perturbation for all volumes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F

from MedShieldLib.attacks.base import Attack, Case, Progress
from MedShieldLib.attacks.losses import Loss
from MedShieldLib.targets.base import DifferentiableTarget
from MedShieldLib.volume import Volume


@dataclass(frozen=True)
class Universal(Attack):
    """Universal perturbation (Moosavi-Dezfooli et al. 2017), by signed gradients (Shafahi et al. 2020).

    Fit it on some volumes with `Universal.fit`, then call it on others: it asks the target nothing more.

    Attributes:
        pattern: (1, 1, K', J', I') in [-1, 1], in eps, on the target's grid; laid centre on centre.
    """

    name: ClassVar[str] = "universal"
    revision: ClassVar[int] = 2
    pattern: torch.Tensor = field(repr=False, compare=False)

    @classmethod
    def fit(
        cls,
        target: DifferentiableTarget,
        volumes: Sequence[Volume],
        eps: float,
        *,
        epochs: int = 40,
        momentum: float = 0.75,
        step_size: float = 1.0,
        loss: Loss = Loss.SOFT_DICE,
        seed: int = 0,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Universal:
        """Climb the loss of all volumes together, and keep the pattern under which their mean Dice is lowest.

        Args:
            target: the target to mislead.
            volumes: to fit the pattern on.
            eps: L-infinity bound in units of the target's window.
            epochs: steps, each of one gradient of every volume.
            momentum: share of the last direction that is kept.
            step_size: first step, in eps; the steps fall to 0 along half a cosine.
            loss: what to climb.
            seed: of the pattern to begin with.
            progress: called as progress(fraction, step).
            cancelled: asked before every pass through the target.

        Raises:
            InputError: if the target finds nothing in one of the volumes.
            Cancelled: when asked to stop.
        """
        generator = torch.Generator().manual_seed(seed)
        cases = [Case.of(target, volume, eps, generator, cancelled=cancelled) for volume in volumes]
        shape = [max(case.grid.shape[axis] for case in cases) for axis in range(3)]
        pattern = torch.rand((1, 1, *shape), generator=generator) * 2 - 1
        velocity = torch.zeros_like(pattern)
        best, lowest = pattern, math.inf
        for epoch in range(epochs):
            together, dice = torch.zeros_like(pattern), 0.0
            for number, case in enumerate(cases):
                gradient, _ = case.gradient(pattern, Loss(loss), partial(_lay, case))
                # No volume is to outweigh the others because its gradient is long.
                together += gradient / gradient.abs().mean().clamp(min=1e-30)
                dice += case.last_score
                if progress is not None:
                    progress((epoch + (number + 1) / len(cases)) / epochs, "Fitting")
            if dice < lowest:
                best, lowest = pattern, dice
            velocity = momentum * velocity + together / len(cases)
            size = step_size * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
            pattern = (pattern + size * velocity.sign()).clamp(-1, 1)
        for case in cases:
            case.look(_lay(case, pattern))
        return cls(pattern if sum(case.last_score for case in cases) < lowest else best)

    @property
    def expected_passes(self) -> int:
        return 0

    def perturb(self, case: Case) -> torch.Tensor:
        return _lay(case, self.pattern)


def _lay(case: Case, pattern: torch.Tensor) -> torch.Tensor:
    """The case's voxels under the pattern, which is cut or filled up with nothing around the centre."""
    padding: list[int] = []
    for wanted, have in zip(reversed(case.grid.shape), reversed(pattern.shape[2:]), strict=True):
        before = (wanted - have) // 2
        padding += [before, wanted - have - before]
    spread = case.grid.spread(F.pad(pattern, padding)[0, 0])[None, None]
    return case.project_straight(case.x + case.eps * spread)
