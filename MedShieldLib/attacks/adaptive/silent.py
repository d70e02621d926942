"""What the attacks that try to break a target without an alarm share: the loop, and what counts as best."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import stats

from MedShieldLib.attacks.adaptive.gate import Gate, Look
from MedShieldLib.attacks.adaptive.knowing import Knowing
from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.losses import mean_dice

# One check's score varies by its own draws, with at least this standard deviation (a share of the threshold):
# a few rounds that happen to agree do not show less.
_LEAST_LUCK = 0.05
# So many of the best iterates are looked at again, by fresh draws, before one is chosen.
_FINALISTS = 5
# Rounds of these draws, at least: one alone does not show how much the score of a check varies.
_FINAL_ROUNDS = 5


@dataclass(frozen=True)
class Silent(Knowing):
    """Sign steps along a mixture of "break the answer" and "stay under the alarm".

    Expectation over the shield's randomness (Athalye et al. 2018): every step draws afresh. The answer is
    the iterate with the largest expected silent harm: Dice drop x chance that no alarm is raised.
    """

    revision: ClassVar[int] = 5

    @property
    def expected_passes(self) -> int:
        # A step runs each version twice, see `Gate.look`; beside them the plain answer is judged.
        search = self.restarts * 2 * (self.steps + 1) * (1 + self.answers)
        final = (_FINALISTS + self.restarts) * (2 + self.answers * self._final_rounds / self._rounds)
        return int(search + final) + self._warming

    @abstractmethod
    def direction(self, look: Look, memory: dict[str, float]) -> torch.Tensor:
        """Where to go; `memory` lasts for one attack."""

    def perturb(self, case: Case) -> torch.Tensor:
        gate = Gate(case, self.shield, self.draws)
        best, last = [(0.0, case.x)], []
        for z in self.starts(case):
            velocity, memory = torch.zeros_like(z), dict[str, float]()
            for step in range(self.steps):
                x = self.rendered(case, z)
                look = gate.look(x)
                best.append((expected_harm(case, x, look.ratios), x))
                best = sorted(best, key=lambda one: -one[0])[:_FINALISTS]
                direction = self.by_parameters(case, self.direction(look, memory))
                z, velocity = self.step(case, z, velocity, direction, step)
            last.append(self.rendered(case, z))
        finalists = [x for _, x in best] + last
        return max(finalists, key=lambda x: expected_harm(case, x, gate.ratios(x, self._final_rounds)))

    @property
    def _final_rounds(self) -> int:
        return max(self._rounds, _FINAL_ROUNDS)


def expected_harm(case: Case, x: torch.Tensor, ratios: Sequence[float]) -> float:
    """Dice drop of the plain answer at `x`, times the chance of silence; `ratios` as those of `Look`."""
    drop = 1 - mean_dice(case.look(x).argmax(dim=1), case.reference.labels)
    return drop * chance_of_silence(ratios)


def chance_of_silence(ratios: Sequence[float]) -> float:
    """That one more check stays below its threshold, if the scores of checks are normally distributed.

    Args:
        ratios: score / threshold of some rounds.
    """
    luck = float(np.std(ratios, ddof=1)) if len(ratios) > 1 else 0.0
    # The mean of n rounds is itself uncertain by 1/n of the variance of one.
    spread = max(luck, _LEAST_LUCK) * np.sqrt(1 + 1 / len(ratios))
    return float(stats.norm.cdf((1 - np.mean(ratios)) / spread))
