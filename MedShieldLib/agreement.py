"""How well two label maps agree, structure by structure: Dice, 95 % Hausdorff distance, volume in ml.

What the detector makes of agreement between many versions of one scan is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage, spatial

from MedShieldLib import slabs
from MedShieldLib.masks import Box, bounding_box
from MedShieldLib.result import StructureAgreement
from MedShieldLib.volume import Segmentation, Structure


def compare(original: Segmentation, defended: Segmentation) -> tuple[StructureAgreement, ...]:
    """Agreement for every structure of `original`, in its order.

    Args:
        original: label map (K, J, I).
        defended: another one in the same geometry.

    Raises:
        ValueError: if the two label maps differ in shape.
    """
    first, second = original.labels, defended.labels
    if first.shape != second.shape:
        raise ValueError(f"label maps of shapes {first.shape} and {second.shape} cannot be compared")
    seen = first | second
    if seen.any():
        box = bounding_box(seen)
        first, second = first[box], second[box]
    spacing, voxel_ml = original.volume.spacing[::-1], original.volume.voxel_ml
    found = []
    for structure, box in zip(original.structures, _boxes(first, second, original.structures), strict=True):
        ours, theirs = first[box] == structure.value, second[box] == structure.value
        found.append(
            StructureAgreement(
                label=structure.value,
                name=structure.name,
                dice=dice(ours, theirs),
                hd95_mm=hd95(ours, theirs, spacing),
                original_ml=int(np.count_nonzero(ours)) * voxel_ml,
                defended_ml=int(np.count_nonzero(theirs)) * voxel_ml,
            )
        )
    return tuple(found)


def _boxes(first: np.ndarray, second: np.ndarray, structures: Sequence[Structure]) -> list[Box]:
    """For each structure, a box that holds it in both label maps; for a single one, all there is."""
    if len(structures) == 1:
        return [(slice(None),) * 3]
    top = max((structure.value for structure in structures), default=0)
    ours, theirs = (ndimage.find_objects(labels, top) for labels in (first, second))  # a pass for all of them
    return [_around(ours[structure.value - 1], theirs[structure.value - 1]) for structure in structures]


def _around(first: Box | None, second: Box | None) -> Box:
    """The box around two boxes; an empty one when there is neither."""
    if first is None or second is None:
        return first or second or (slice(0, 0),) * 3
    return tuple(
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True)
    )


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice overlap of two boolean masks, in [0, 1]; 1 when both are empty."""
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else 1.0


def hd95(first: np.ndarray, second: np.ndarray, spacing: Sequence[float]) -> float:
    """95 % Hausdorff distance in mm: the larger of the two directed 95th percentiles of surface distance.

    Surfaces are the centres of mask voxels with a face neighbour outside, as in MONAI and in the Medical
    Segmentation Decathlon (Antonelli et al. 2022).

    Args:
        first: boolean mask (K, J, I).
        second: boolean mask of the same shape.
        spacing: mm along (k, j, i).

    Returns:
        A length in mm; 0 when both masks are empty, NaN when one is.
    """
    if np.array_equal(first, second):  # as after every clean verdict
        return 0.0
    if not (first.any() and second.any()):
        return float("nan")
    box = bounding_box(first | second)
    first, second = _surface(first[box]), _surface(second[box])
    here, there = _points(first), _points(second)
    with ThreadPoolExecutor(slabs.workers()) as pool:  # a tree is built on one core
        return max(pool.map(_directed95, (here, there), (second, first), (there, here), (spacing, spacing)))


def _surface(mask: np.ndarray) -> np.ndarray:
    """Mask voxels with a face neighbour outside the mask or the array."""
    padded, core = np.pad(mask, 1), mask.copy()
    for axis in range(mask.ndim):
        for neighbours in (slice(-2), slice(2, None)):
            window = [slice(1, -1)] * mask.ndim
            window[axis] = neighbours
            core &= padded[tuple(window)]
    return mask ^ core


def _points(mask: np.ndarray) -> np.ndarray:
    """np.argwhere, in a fraction of its time."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1)


def _directed95(points: np.ndarray, to: np.ndarray, to_points: np.ndarray, spacing: Sequence[float]) -> float:
    """95th percentile of the distance in mm from `points` to the nearest point of a surface.

    Two segmentations of one scan share most of their surface, so only the rest is looked up, in a k-d tree.

    Args:
        points: (N, 3) indices of voxels.
        to: the surface as a mask.
        to_points: (M, 3) its voxels.
        spacing: mm along (k, j, i).
    """
    distances, apart = np.zeros(len(points)), ~to[tuple(points.T)]
    if apart.any():
        tree = spatial.cKDTree(to_points * np.asarray(spacing), balanced_tree=False)
        distances[apart], _ = tree.query(points[apart] * np.asarray(spacing), workers=slabs.workers())
    return float(np.percentile(distances, 95))
