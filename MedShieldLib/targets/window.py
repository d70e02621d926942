"""Intensity windows: from a volume's own units to a network's [0, 1] and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Window:
    """A linear intensity window, by percentiles of the volume or by fixed bounds.

    Attributes:
        low, high: percentiles (0 to 100), or intensities when `fixed`.
        fixed: whether `low` and `high` are intensities (as for CT in HU).
    """

    low: float = 0.5
    high: float = 99.5
    fixed: bool = False

    def bounds(self, x: torch.Tensor) -> tuple[float, float]:
        """The intensities that map to 0 and 1; a flat volume gets a width of 1."""
        if self.fixed:
            return float(self.low), float(self.high)
        low, high = np.percentile(x.detach().numpy(), [self.low, self.high])
        return float(low), float(high if high > low else low + 1)


def apply(x: torch.Tensor, bounds: tuple[float, float]) -> torch.Tensor:
    """Intensities to [0, 1], clipped."""
    low, high = bounds
    return ((x - low) / (high - low)).clamp(0, 1)
