"""How many digits of a measurement go into a file, and how it is read back."""

from __future__ import annotations

import numpy as np

_DIGITS = 5


def stored(x: np.ndarray, digits: int = _DIGITS) -> np.ndarray:
    """As it will be read back, so that what was just measured and its file have one hash."""
    return np.array(rounded(x, digits), dtype=float)


def rounded(x: np.ndarray, digits: int = _DIGITS) -> list:
    """Nested lists of numbers with so many digits after the point; null for NaN."""
    if x.ndim > 1:
        return [rounded(row, digits) for row in x]
    return [None if np.isnan(v) else round(float(v), digits) for v in x]
