"""Filters in the volume's own domain: a separable median and edge-preserving diffusion.

Beside the converter's filters, they remove what is small in amplitude rather than what is high in frequency.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from MedShieldLib import slabs

# A tile has so many rows along k and about so many voxels: with what is computed from it, it fits the cache.
_TILE_ROWS, _TILE_VOXELS = 32, 2**18


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
                np.maximum(lower, line[step:-step], out=lower)  # np.clip takes four times as long
                np.minimum(lower, upper, out=line[step:-step])
        return x

    return _by_tiles(voxels, step, three_axes)


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
        differences, divisors = np.empty(x.size, np.float32), np.empty(x.size, np.float32)
        for axis in range(3):
            earlier, later = ((slice(None),) * axis + (side,) for side in (slice(-step), slice(step, None)))
            before, after = x[earlier], x[later]
            difference, divisor = (y[: before.size].reshape(before.shape) for y in (differences, divisors))
            np.subtract(after, before, out=difference)
            np.multiply(difference, difference, out=divisor)
            divisor += squared_edge
            difference /= divisor  # rate makes up for the missing factor
            flow[earlier] += difference
            flow[later] -= difference
        flow *= rate
        x += flow
        return x

    for _ in range(passes):
        voxels = _by_tiles(voxels, step, one_pass)
    return voxels


def _by_tiles(voxels: np.ndarray, reach: int, smooth: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`smooth` on float32 tiles, each with the `reach` rows around it that its answer depends on.

    A tile is cut along k and j: cut along k alone, what is cached would be half margin. One of a single value
    stays what it is, whatever smooths it.
    """
    out = np.empty(voxels.shape, np.float32)
    depth = max(_TILE_ROWS, 4 * reach)
    width = max(depth, _TILE_VOXELS // (depth * voxels.shape[2]))

    def work(rows: slice) -> None:
        above = max(0, rows.start - reach)
        for first in range(0, voxels.shape[1], width):
            before = max(0, first - reach)
            seen = voxels[above : rows.stop + reach, before : first + width + reach]
            smoothed = seen if slabs.is_flat(seen) else smooth(np.array(seen, np.float32))
            k, j = slice(rows.start - above, rows.stop - above), slice(first - before, first - before + width)
            out[rows, first : first + width] = smoothed[k, j]

    slabs.each(out, work, least=depth)
    return out
