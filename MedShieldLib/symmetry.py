"""Whether a small step moves a target's answer as far as the opposite step does.

An answer bends little on so short a way: fine detail of a clean scan moves it alike, taken away or added once
more. An attack has gone as far as it may towards what misleads the target most: one step back and the answer
returns, one step on and hardly anything is left to gain. The ratio of both needs no scale of the scan, and
with targets that are steady hardly differs between subjects, scanners and contrasts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedShieldLib.fusion import Scores, Units


@dataclass(frozen=True)
class Symmetry:
    """The scale of what both nudges of a family do to clean answers.

    Attributes:
        units: of the instability.
    """

    units: Units

    # Nudges that do less than this share of what is usual prove nothing either way.
    LEAST = 0.02
    # Nor do they where they usually move a structure by less.
    LEAST_BENIGN = 1e-5
    # Clean volumes differ at least so much in the logarithm of the asymmetry, whatever a few of them show:
    # about as much as through the two steadiest targets (.026 and .028; see docs/method.md).
    LEAST_SPREAD = 0.03
    # Where they differ by more than this, as those of a target do whose answers bend by themselves, an attack
    # has to be far out to be seen, and the inferences are better spent otherwise.
    STEADY = 0.05
    # The larger of two scores is further out than one alone. With so many spreads less, it is seldom this one
    # on clean volumes, so that what this one does not see is not lost; attacks that it sees are beyond four.
    HANDICAP = 1.0

    @classmethod
    def fit(cls, relative: np.ndarray, instability: np.ndarray) -> Symmetry:
        """From clean volumes: (N, 2, S) as for `asymmetry`, and (N,) instability without its say."""
        return cls(Units.fit(instability, cls.asymmetry(relative), cls.LEAST_SPREAD, cls.HANDICAP))

    @classmethod
    def asymmetry(cls, relative: Scores) -> Scores:
        """(...): how many times as much the step towards smoothness does; 1 is usual. Differentiable.

        Args:
            relative: (..., 2, S) disagreements with the nudge and with the one against it, relative to their
                mean on clean volumes.
        """
        both = relative.mean(-1) + cls.LEAST
        return both[..., 0] / both[..., 1]

    def score(self, relative: Scores) -> Scores:
        """(...): the asymmetry in units of the instability; differentiable."""
        return self.units.of(self.asymmetry(relative))
