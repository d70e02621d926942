"""Two scores made one: the instability of a target, and how far a second one contradicts it.

Fitted on clean volumes alone, so that neither is favoured by an attack that somebody has looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fusion:
    """The scale of clean contradictions, and how it maps to that of the instability.

    Attributes:
        benign: (M, 2) mean contradiction on clean volumes, per matched structure and side.
        power, factor: factor * score^power has the mean and the spread of the clean instability, in logs.
    """

    benign: np.ndarray
    power: float
    factor: float

    # Two models that always contradict each other alike prove no more than ones that do so nearly alike.
    LEAST_BENIGN = 0.01
    LEAST_SPREAD = 0.1
    # Nothing below it is told apart.
    LEAST_SCORE = 1e-6

    @classmethod
    def fit(cls, instability: np.ndarray, contradictions: np.ndarray) -> Fusion:
        """From clean volumes: (N,) instability and (N, M, 2) contradictions."""
        benign = np.maximum(contradictions.mean(0), cls.LEAST_BENIGN)
        (ours, our_spread), (theirs, their_spread) = (
            _in_logs(scores) for scores in (instability, _joined(contradictions / benign))
        )
        power = our_spread / their_spread
        return cls(benign, power, float(np.exp(ours - power * theirs)))

    def contradiction(self, contradictions: np.ndarray) -> np.ndarray:
        """(...): (..., M, 2) contradictions relative to clean ones, joined by their quadratic mean."""
        return _joined(contradictions / self.benign)

    def fused(self, instability: np.ndarray | float, contradictions: np.ndarray) -> np.ndarray:
        """(...): the larger of both scores, in units of the instability.

        This is the maximum of the two standardised logs: whichever is further out of its clean values counts.
        """
        score = np.maximum(self.contradiction(contradictions), self.LEAST_SCORE)
        return np.maximum(instability, self.factor * score**self.power)


def _joined(relative: np.ndarray) -> np.ndarray:
    return np.sqrt((relative**2).mean((-2, -1)))


def _in_logs(scores: np.ndarray) -> tuple[float, float]:
    """Mean and spread of the logarithms."""
    logs = np.log(np.maximum(scores, Fusion.LEAST_SCORE))
    return float(logs.mean()), max(float(logs.std()), Fusion.LEAST_SPREAD)
