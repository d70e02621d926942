"""The working grid of a network: canonical orientation and spacing, and the way back to the input.

Only axis permutations, flips and per-axis resampling happen here (oblique volumes keep their angle), so
every step is linear and differentiable. Intensities belong to `window.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations

import numpy as np
import torch

from MedShieldLib.errors import InputError
from MedShieldLib.volume import Volume

Weights = Callable[[int, int], torch.Tensor]

# The LPS axis and sign towards which each letter of an orientation code points.
_TOWARDS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}

# Slices of a volume that are resampled at once; spares a float32 copy of a large volume.
_SLAB = 32
# A grid of more voxels (4 GB in float32) is a mistake in a header or in a model's description.
_MOST_VOXELS = 2**30


@dataclass(frozen=True)
class WorkingGrid:
    """Maps arrays between a volume's grid (K, J, I) and a network's grid (K', J', I').

    Attributes:
        axes: for each grid axis (k', j', i'), the array axis of the volume that runs along it.
        flips: grid axes to reverse after permuting.
        volume_shape: (K, J, I).
        shape: (K', J', I').
    """

    axes: tuple[int, int, int]
    flips: tuple[int, ...]
    volume_shape: tuple[int, ...]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, volume: Volume, orientation: str, spacing: tuple[float, float, float]) -> WorkingGrid:
        """The grid for one volume.

        Args:
            volume: only its geometry is looked at.
            orientation: three letters; "LPS" means i' runs to the left, j' to posterior, k' to superior.
            spacing: mm along (i', j', k'); met to within half a voxel of the whole extent.

        Raises:
            InputError: if the volume is so large, in mm, that the grid would not fit in memory.
        """
        source, sign = _closest_axes(np.asarray(volume.direction).reshape(3, 3), orientation)
        shape = []
        for grid_axis in (2, 1, 0):  # ITK order to array order
            n = volume.voxels.shape[2 - source[grid_axis]]
            shape.append(max(1, round(n * volume.spacing[source[grid_axis]] / spacing[grid_axis])))
        if np.prod(shape, dtype=float) > _MOST_VOXELS:
            extent = " x ".join(f"{n * mm:g}" for n, mm in zip(shape[::-1], spacing, strict=True))
            raise InputError(f"{extent} mm is too large a volume for this target; check the file's spacing.")
        axes = tuple(2 - source[a] for a in (2, 1, 0))
        flips = tuple(2 - a for a in (2, 1, 0) if sign[a] < 0)
        return cls(axes, flips, volume.voxels.shape, tuple(shape))  # type: ignore[arg-type]

    @classmethod
    def native(cls, volume: Volume, orientation: str) -> WorkingGrid:
        """The volume's own voxels in the order of `orientation`."""
        grid = cls.of(volume, orientation, (max(volume.spacing),) * 3)
        k, j, i = (grid.volume_shape[axis] for axis in grid.axes)
        return replace(grid, shape=(k, j, i))

    def to_grid(self, x: torch.Tensor | np.ndarray) -> torch.Tensor:
        """(K, J, I) of any number type to float32 (K', J', I'): area-weighted where it gets coarser, linear
        where it gets finer.
        """
        shape = tuple(self.shape[g] for g in self._grid_axes)
        slabs = (_as_float(x[k : k + _SLAB]) for k in range(0, len(x), _SLAB))
        x = torch.cat([_resample(slab, (len(slab), *shape[1:]), _area_or_linear) for slab in slabs])
        return _resample(x, shape, _area_or_linear).permute(self.axes).flip(self.flips).contiguous()

    def from_grid(self, x: torch.Tensor, rows: slice = slice(None)) -> torch.Tensor:
        """(K', J', I') to (K, J, I), smoothly; for probabilities. `rows` takes only those slices along K."""
        return self._back(x, _area_or_linear, rows)

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """(K', J', I') to (K, J, I) by whole cells: never exceeds max|x|, and `to_grid` recovers it where
        the two grids fit; for perturbations.
        """
        return self._back(x, _area_or_nearest)

    def onto(self, x: torch.Tensor, other: WorkingGrid) -> torch.Tensor:
        """(K', J', I') on this grid to that of another grid of the same volume: area-weighted where it gets
        coarser, linear where it gets finer.
        """
        ordered = x.flip(self.flips).permute(self._grid_axes)
        return _resample(ordered.permute(other.axes).flip(other.flips), other.shape, _area_or_linear)

    def nearest_voxels(self, voxels: np.ndarray, cells: Sequence[np.ndarray]) -> np.ndarray:
        """The voxels of a volume (K, J, I) in the middle of cells given by indices along (k', j', i')."""
        along = []
        for axis in range(3):
            g = self._grid_axes[axis]
            index = self.shape[g] - 1 - cells[g] if g in self.flips else cells[g]
            along.append((2 * index + 1) * self.volume_shape[axis] // (2 * self.shape[g]))
        return voxels[np.ix_(*along)].transpose(self.axes)

    @property
    def _grid_axes(self) -> tuple[int, ...]:
        """For each array axis of the volume, the grid axis that runs along it."""
        return tuple(self.axes.index(a) for a in range(3))

    def _back(self, x: torch.Tensor, weights: Weights, rows: slice = slice(None)) -> torch.Tensor:
        return _resample(x.flip(self.flips).permute(self._grid_axes), self.volume_shape, weights, rows)


def _closest_axes(direction: np.ndarray, orientation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each letter of the code: the ITK axis that runs along it best, and +1 or -1."""
    wanted = [_TOWARDS[letter] for letter in orientation]

    def agreement(order: tuple[int, ...]) -> float:
        return sum(abs(direction[axis, order[n]]) for n, (axis, _) in enumerate(wanted))

    best = max(permutations(range(3)), key=agreement)
    signs = tuple(1 if direction[axis, best[n]] * sign >= 0 else -1 for n, (axis, sign) in enumerate(wanted))
    return best, signs


def _as_float(x: torch.Tensor | np.ndarray) -> torch.Tensor:
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(np.array(x, dtype=np.float32, order="C"))  # a copy, as x may be read-only
    return x.float()


def _resample(
    x: torch.Tensor, shape: tuple[int, ...], weights: Weights, rows: slice = slice(None)
) -> torch.Tensor:
    """Resample each axis with a small dense matrix: linear, differentiable, and fast through BLAS.

    Axes that shrink most come first. `rows` keeps only those of the first axis.
    """
    kept = (len(range(*rows.indices(shape[0]))), *shape[1:])
    for axis in sorted(range(3), key=lambda a: kept[a] / x.shape[a]):
        matrix = None if x.shape[axis] == shape[axis] else weights(x.shape[axis], shape[axis]).to(x)
        if axis == 0:
            x = x[rows] if matrix is None else torch.tensordot(matrix[rows], x, dims=1)
        elif matrix is not None:
            x = matrix @ x if axis == 1 else x @ matrix.T
    return x.contiguous()


# What is kept must serve gradients later on, although a plain inference asked for it first.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _area_or_linear(n_in: int, n_out: int) -> torch.Tensor:
    return _area(n_in, n_out) if n_out < n_in else _linear(n_in, n_out)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _area_or_nearest(n_in: int, n_out: int) -> torch.Tensor:
    return _area(n_in, n_out) if n_out < n_in else _nearest(n_in, n_out)


def _area(n_in: int, n_out: int) -> torch.Tensor:
    """(n_out, n_in): the share of every input cell in each output cell; rows sum to 1.

    Whole numbers, in units of 1 / (n_in * n_out) of the extent, so that fitting grids fit exactly.
    """
    edges_in, edges_out = torch.arange(n_in + 1) * n_out, torch.arange(n_out + 1) * n_in
    low = torch.maximum(edges_out[:-1, None], edges_in[None, :-1])
    high = torch.minimum(edges_out[1:, None], edges_in[None, 1:])
    return (high - low).clamp(min=0) / n_in


def _linear(n_in: int, n_out: int) -> torch.Tensor:
    centre = (torch.arange(n_out, dtype=torch.float64) + 0.5) * n_in / n_out - 0.5
    distance = centre.clamp(0, n_in - 1)[:, None] - torch.arange(n_in)[None]
    return (1 - distance.abs()).clamp(min=0).float()


def _nearest(n_in: int, n_out: int) -> torch.Tensor:
    index = (2 * torch.arange(n_out) + 1) * n_in // (2 * n_out)
    return torch.nn.functional.one_hot(index, n_in).float()
