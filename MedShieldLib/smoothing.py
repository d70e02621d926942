"""Filters in the volume's own domain: a separable median and edge-preserving diffusion.

Beside the converter's filters, they remove what is small in amplitude rather than what is high in frequency.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from MedShieldLib import slabs


def median(voxels: np.ndarray, step: int = 1) -> np.ndarray:
    """Three-point median along each axis in turn, taps `step` voxels apart; float32, same shape.

    The separable median (Narendra 1981) costs a few passes where a full 3x3x3 one costs a whole inference.
    """

    def three_axes(x: np.ndarray) -> np.ndarray:
        for axis in range(3):
            if x.shape[axis] > 2 * step:
                line = np.moveaxis(x, axis, 0)  # a view: the ends keep their values
                before, after = line[: -2 * step], line[2 * step :]
                lower, upper = np.minimum(before, after), np.maximum(before, after)
                line[step:-step] = np.clip(line[step:-step], lower, upper)
        return x

    return _by_slabs(voxels, step, three_axes)


def diffusion(voxels: np.ndarray, edge: float, passes: int, step: int = 1) -> np.ndarray:
    """Edge-preserving diffusion (Perona and Malik 1990) between face neighbours; float32, same shape.

    Args:
        voxels: (K, J, I).
        edge: intensity difference that counts as an edge; smaller ones are evened out.
        passes: explicit steps of 1/7, which is stable in 3D.
        step: distance of the neighbours in voxels.
    """
    squared_edge, rate = np.float32(edge) ** 2, np.float32(edge) ** 2 / 7

    def one_pass(x: np.ndarray) -> np.ndarray:
        flow = np.zeros_like(x)
        for axis in range(3):
            line, flow_along = np.moveaxis(x, axis, 0), np.moveaxis(flow, axis, 0)
            difference = line[step:] - line[:-step]
            difference /= difference * difference + squared_edge  # rate makes up for the missing factor
            flow_along[:-step] += difference
            flow_along[step:] -= difference
        flow *= rate
        x += flow
        return x

    for _ in range(passes):
        voxels = _by_slabs(voxels, step, one_pass)
    return voxels


def _by_slabs(voxels: np.ndarray, reach: int, smooth: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`smooth` on float32 slabs, each with the `reach` rows on either side that its answer depends on."""
    out = np.empty(voxels.shape, np.float32)

    def work(rows: slice) -> None:
        start = max(0, rows.start - reach)
        seen = np.array(voxels[start : rows.stop + reach], np.float32)
        out[rows] = smooth(seen)[rows.start - start : rows.stop - start]

    slabs.each(out, work, least=4 * reach)
    return out
