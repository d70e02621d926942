"""Auto-PGD: gradient ascent that chooses its own step sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.base import Attack, Case
from MedShieldLib.attacks.losses import Loss


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD (Croce and Hein 2020), begun in a larger ball that shrinks to eps (Croce et al. 2024).

    Steps follow the gradient of `loss`; `track` judges them, as in the authors' code. A masked loss falls
    with every voxel that has turned: judged by itself, the least harmful iterate would look best.

    Attributes:
        steps: gradient steps altogether.
        loss: what to climb; the paper's for segmentation are in `sea.py`.
        radii: of the balls, in eps; the last is 1.
        shares: of the steps spent in each ball.
        track: decides about the step size, and to which iterate a smaller step goes back.
    """

    name: ClassVar[str] = "apgd"
    revision: ClassVar[int] = 2
    steps: int = 100
    loss: Loss = Loss.JENSEN_SHANNON
    radii: tuple[float, ...] = (2.0, 1.5, 1.0)
    shares: tuple[float, ...] = (0.3, 0.3, 0.4)
    track: Loss = Loss.CROSS_ENTROPY

    @property
    def expected_passes(self) -> int:
        return self.steps + len(self.radii)

    def perturb(self, case: Case) -> torch.Tensor:
        x = case.x + case.eps * case.uniform(case.x.shape)
        for radius, share in zip(self.radii, self.shares, strict=True):
            x = self._climb(case, case.project(x, radius), radius, round(share * self.steps))
        return case.best

    def _climb(self, case: Case, x: torch.Tensor, radius: float, steps: int) -> torch.Tensor:
        """The input with the lowest true Dice found in one ball."""
        gradient, value = self._gradient(case, x)
        best, lowest = (value, x, gradient), (case.last_score, x)
        size, before, watch = 2 * radius * case.eps, x, _Watch(steps, value)
        for step in range(steps):
            straight = case.project(x + size * gradient.sign(), radius)
            inertia = 0.25 if step else 0.0
            onward = case.project(x + (1 - inertia) * (straight - x) + inertia * (x - before), radius)
            before, x = x, onward
            gradient, value = self._gradient(case, x)
            best = max(best, (value, x, gradient), key=_first)
            lowest = min(lowest, (case.last_score, x), key=_first)
            if watch.stuck(step + 1, value, best[0]):
                size /= 2
                _, x, gradient = best
        return lowest[1]

    def _gradient(self, case: Case, x: torch.Tensor) -> tuple[torch.Tensor, float]:
        """The gradient of `loss`, and the value of `track`."""
        return case.gradient(x, Loss(self.loss), track=Loss(self.track))


def _first(found: tuple) -> float:
    return found[0]


class _Watch:
    """Decides when steps have become too large: at checkpoints that come ever closer."""

    def __init__(self, steps: int, value: float) -> None:
        self.last, self.rises = value, 0
        # Rounded down, as in the authors' code.
        self.interval, self.decrease, self.shortest = (max(1, int(p * steps)) for p in (0.22, 0.03, 0.06))
        self.begin, self.best_at_begin, self.halved = 0, value, True

    def stuck(self, step: int, value: float, best: float) -> bool:
        """Whether the step size must be halved now."""
        self.rises += value > self.last
        self.last = value
        if step - self.begin < self.interval:
            return False
        few_rises = self.rises < 0.75 * self.interval
        no_gain = not self.halved and best <= self.best_at_begin
        self.halved = few_rises or no_gain
        self.begin, self.best_at_begin, self.rises = step, best, 0
        self.interval = max(self.shortest, self.interval - self.decrease)
        return self.halved
