"""Boolean masks of volumes."""

from __future__ import annotations

import numpy as np

Box = tuple[slice, ...]


def bounding_box(mask: np.ndarray) -> Box:
    """The smallest box around a non-empty mask of any number of axes."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)
