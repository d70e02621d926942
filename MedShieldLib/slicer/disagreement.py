"""Where the original and the defended segmentation differ: the place to look at first, and segments of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from MedShieldLib.slicer.nodes import add_segmentation, segmentation_from_node, volume_from_node
from MedShieldLib.slicer.text import _
from MedShieldLib.volume import Segmentation, Structure

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

_ONLY_ORIGINAL = (0.90, 0.30, 0.10)
_ONLY_DEFENDED = (0.10, 0.65, 0.45)
_OTHER_STRUCTURE = (0.55, 0.35, 0.85)


def largest_disagreement(
    original: np.ndarray, defended: np.ndarray, label: int | None = None
) -> tuple[int, int, int] | None:
    """The voxel (i, j, k) where the slices with the most differing voxels meet; None without a difference.

    Args:
        original: label values (K, J, I).
        defended: the same.
        label: only where exactly one of the two has this label; None for any difference.
    """
    differs = original != defended
    if label is not None:
        differs &= (original == label) | (defended == label)
    if not differs.any():
        return None
    k = int(np.count_nonzero(differs, axis=(1, 2)).argmax())
    j = int(np.count_nonzero(differs[k], axis=1).argmax())
    row = np.flatnonzero(differs[k, j])
    return int(row[len(row) // 2]), j, k


def labels_of(
    original: vtkMRMLSegmentationNode, defended: vtkMRMLSegmentationNode, grid: vtkMRMLScalarVolumeNode
) -> tuple[np.ndarray, np.ndarray]:
    """Label arrays (K, J, I) of both nodes as they are now, on the grid of a volume."""
    return segmentation_from_node(original, grid).labels, segmentation_from_node(defended, grid).labels


def add_difference(
    scene: vtkMRMLScene,
    original: vtkMRMLSegmentationNode,
    defended: vtkMRMLSegmentationNode,
    grid: vtkMRMLScalarVolumeNode,
    name: str,
) -> vtkMRMLSegmentationNode:
    """A new segmentation node of what only one side segments, and of what the sides name differently."""
    before, after = labels_of(original, defended, grid)
    labels = np.zeros_like(before)
    labels[(before > 0) & (after == 0)] = 1
    labels[(before == 0) & (after > 0)] = 2
    labels[(before > 0) & (after > 0) & (before != after)] = 3
    structures = (
        Structure(1, _("Only in the original"), _ONLY_ORIGINAL),
        Structure(2, _("Only in the defended"), _ONLY_DEFENDED),
        Structure(3, _("Another structure"), _OTHER_STRUCTURE),
    )
    segmentation = Segmentation(volume_from_node(grid).with_voxels(labels), structures)
    return add_segmentation(scene, segmentation, name, grid)
