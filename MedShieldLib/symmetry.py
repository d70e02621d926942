"""Whether a small step moves a target's answer as far as the opposite step does.

An answer bends little on so short a way: fine detail of a clean scan moves it alike, taken away or added once
more. An attack has gone as far as it may towards what misleads the target most: one step back and the answer
returns, one step on and hardly anything is left to gain. The ratio of both needs no scale of the scan, and
hardly differs between subjects, scanners and contrasts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedShieldLib.fusion import Units


@dataclass(frozen=True)
class Symmetry:
    """The scale of what both nudges of a family do to clean answers.

    Attributes:
        pair: where the nudge and the one against it are among the versions.
        benign: (2, S) their mean disagreements on clean volumes.
        units: of the instability.
    """

    pair: tuple[int, int]
    benign: np.ndarray
    units: Units

    # Nudges that do less than this share of what is usual prove nothing either way.
    LEAST = 0.02
    # Nor do they where they move a structure by less.
    LEAST_BENIGN = 1e-4
    # Clean volumes differ at least so much in the logarithm of the asymmetry, whatever a few of them show.
    LEAST_SPREAD = 0.02

    @classmethod
    def fit(cls, pair: tuple[int, int], disagreements: np.ndarray, instability: np.ndarray) -> Symmetry:
        """From clean volumes: (N, V, S) disagreements and their (N,) instability without the nudges' say."""
        benign = np.maximum(disagreements[:, list(pair)].mean(0), cls.LEAST_BENIGN)
        asymmetry = _ratio(disagreements[:, list(pair)] / benign)
        return cls(pair, benign, Units.fit(instability, asymmetry, cls.LEAST_SPREAD))

    def asymmetry(self, disagreements: np.ndarray) -> np.ndarray:
        """(...): of (..., V, S), how many times as much the step towards smoothness does; 1 is usual."""
        return _ratio(disagreements[..., list(self.pair), :] / self.benign)

    def score(self, disagreements: np.ndarray) -> np.ndarray:
        """(...): the asymmetry in units of the instability."""
        return self.units.of(self.asymmetry(disagreements))


def _ratio(relative: np.ndarray) -> np.ndarray:
    """(...): of (..., 2, S)."""
    along, against = np.moveaxis(relative.mean(-1) + Symmetry.LEAST, -1, 0)
    return along / against
