"""Volumes and segmentations: voxels with their geometry, and nothing about models.

Arrays are in ITK/Slicer NumPy order (k, j, i) = (slice, row, column); spacing, origin and direction
are in ITK order (i, j, k) and LPS millimetres, as SimpleITK gives them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Structure:
    """One segmented structure of a target: label value, name, display colour (RGB in [0, 1])."""

    value: int
    name: str
    color: tuple[float, float, float]


@dataclass(frozen=True)
class Volume:
    """A scalar volume with its geometry.

    Attributes:
        voxels: array (K, J, I) in the file's own data type.
        spacing: mm along (i, j, k).
        origin: LPS mm of voxel (0, 0, 0).
        direction: 3x3 direction cosines, row-major, as in SimpleITK.
        source: where it was read from, if from disk.
    """

    voxels: np.ndarray = field(repr=False)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY
    source: Path | None = None

    def with_voxels(self, voxels: np.ndarray) -> Volume:
        """The same geometry around other voxels of the same shape."""
        return replace(self, voxels=voxels)


@dataclass(frozen=True)
class Segmentation:
    """A label map in the geometry of the volume that it segments, with the structures' names and colours."""

    volume: Volume
    structures: tuple[Structure, ...]

    @property
    def labels(self) -> np.ndarray:
        """uint8 array (K, J, I); 0 is background."""
        return self.volume.voxels
