"""Two scores made one: the instability of a target, and how far a second one contradicts it.

Fitted on clean volumes alone, so that neither is favoured by an attack that somebody has looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

# What an attacker differentiates is computed by the same formulas as what a check measures.
Scores = TypeVar("Scores", np.ndarray, torch.Tensor)
# Clean scores of a kind differ at least so much in their logarithms, whatever a few volumes show.
LEAST_SPREAD = 0.1


@dataclass(frozen=True)
class Units:
    """How one score maps to the units of another one, by what clean volumes have of both.

    Attributes:
        power, factor: factor * score^power has the mean and the spread of the other clean scores, in logs.
    """

    power: float
    factor: float

    # Nothing below it is told apart.
    LEAST_SCORE = 1e-6

    @classmethod
    def fit(cls, ours: np.ndarray, theirs: np.ndarray, least_spread: float, handicap: float = 0.0) -> Units:
        """The units of `ours` for `theirs`, both (N,) of clean volumes.

        Args:
            ours: the scores whose units they are.
            theirs: the scores that are mapped.
            least_spread: of the logarithms of `theirs`, whatever they show.
            handicap: how many spreads further out `theirs` has to be to count as much.
        """
        (our_mean, our_spread), (their_mean, their_spread) = map(_in_logs, (ours, theirs))
        our_spread = max(our_spread, LEAST_SPREAD)
        power = our_spread / max(their_spread, least_spread)
        return cls(power, float(np.exp(our_mean - handicap * our_spread - power * their_mean)))

    def of(self, score: Scores) -> Scores:
        """Scores in these units; differentiable."""
        return self.factor * score.clip(self.LEAST_SCORE) ** self.power


@dataclass(frozen=True)
class Fusion:
    """The scale of clean contradictions, and how it maps to that of the instability.

    Attributes:
        benign: (M, 2) mean contradiction on clean volumes, per matched structure and side.
        units: of the instability.
    """

    benign: np.ndarray
    units: Units

    # Two models that always contradict each other alike prove no more than ones that do so nearly alike.
    LEAST_BENIGN = 0.01

    @classmethod
    def fit(cls, instability: np.ndarray, contradictions: np.ndarray) -> Fusion:
        """From clean volumes: (N,) instability and (N, M, 2) contradictions."""
        benign = np.maximum(contradictions.mean(0), cls.LEAST_BENIGN)
        return cls(benign, Units.fit(instability, _joined(contradictions / benign), LEAST_SPREAD))

    def contradiction(self, contradictions: np.ndarray) -> np.ndarray:
        """(...): (..., M, 2) contradictions relative to clean ones, joined by their quadratic mean."""
        return _joined(contradictions / self.benign)

    def fused(self, instability: np.ndarray | float, contradictions: np.ndarray) -> np.ndarray:
        """(...): the larger of both scores, in units of the instability.

        This is the maximum of the two standardised logs: whichever is further out of its clean values counts.
        """
        return np.maximum(instability, self.units.of(self.contradiction(contradictions)))


def _joined(relative: np.ndarray) -> np.ndarray:
    return np.sqrt((relative**2).mean((-2, -1)))


def _in_logs(scores: np.ndarray) -> tuple[float, float]:
    """Mean and spread of the logarithms."""
    logs = np.log(np.maximum(scores, Units.LEAST_SCORE))
    return float(logs.mean()), float(logs.std())
