"""The working grid of a network: canonical orientation and spacing, and the way back to the input.

Only axis permutations, flips and per-axis resampling happen here (oblique volumes keep their angle), so
every step is linear and differentiable. Intensities belong to `window.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
import torch

from MedShieldLib.volume import Volume

# The LPS axis and sign towards which each letter of an orientation code points.
_TOWARDS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}


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
            orientation: three letters; "LPS" means i' runs to the left, j' to posterior, k' to superior.
            spacing: mm along (i', j', k'); met to within half a voxel of the whole extent.
        """
        source, sign = _closest_axes(np.asarray(volume.direction).reshape(3, 3), orientation)
        shape = []
        for grid_axis in (2, 1, 0):  # ITK order to array order
            n = volume.voxels.shape[2 - source[grid_axis]]
            shape.append(max(1, round(n * volume.spacing[source[grid_axis]] / spacing[grid_axis])))
        axes = tuple(2 - source[a] for a in (2, 1, 0))
        flips = tuple(2 - a for a in (2, 1, 0) if sign[a] < 0)
        return cls(axes, flips, volume.voxels.shape, tuple(shape))  # type: ignore[arg-type]

    def to_grid(self, x: torch.Tensor) -> torch.Tensor:
        """(K, J, I) to (K', J', I'): area-weighted where it gets coarser, linear where it gets finer."""
        x = x.permute(self.axes).flip(self.flips)
        return _resample(x, self.shape, _area_or_linear)

    def from_grid(self, x: torch.Tensor) -> torch.Tensor:
        """(K', J', I') to (K, J, I), smoothly; for probabilities."""
        return self._back(x, _area_or_linear)

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """(K', J', I') to (K, J, I) by whole cells: never exceeds max|x|, and `to_grid` recovers it where
        the two grids fit; for perturbations.
        """
        return self._back(x, _area_or_nearest)

    def _back(self, x: torch.Tensor, weights) -> torch.Tensor:
        x = _resample(x, tuple(self.volume_shape[a] for a in self.axes), weights)
        return x.flip(self.flips).permute(tuple(int(a) for a in np.argsort(self.axes)))


def _closest_axes(direction: np.ndarray, orientation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each letter of the code: the ITK axis that runs along it best, and +1 or -1."""
    wanted = [_TOWARDS[letter] for letter in orientation]
    best = max(
        permutations(range(3)), key=lambda p: sum(abs(direction[axis, p[n]]) for n, (axis, _) in enumerate(wanted))
    )
    signs = tuple(1 if direction[axis, best[n]] * sign >= 0 else -1 for n, (axis, sign) in enumerate(wanted))
    return best, signs


def _resample(x: torch.Tensor, shape: tuple[int, ...], weights) -> torch.Tensor:
    """Resample each axis with a small dense matrix: linear, differentiable, and fast through BLAS."""
    for axis, size in enumerate(shape):
        if x.shape[axis] != size:
            matrix = weights(x.shape[axis], size).to(x)
            x = torch.movedim(torch.movedim(x, axis, -1) @ matrix.T, -1, axis)
    return x.contiguous()


@lru_cache(maxsize=64)
def _area_or_linear(n_in: int, n_out: int) -> torch.Tensor:
    return _area(n_in, n_out) if n_out < n_in else _linear(n_in, n_out)


@lru_cache(maxsize=64)
def _area_or_nearest(n_in: int, n_out: int) -> torch.Tensor:
    return _area(n_in, n_out) if n_out < n_in else _nearest(n_in, n_out)


def _area(n_in: int, n_out: int) -> torch.Tensor:
    """(n_out, n_in): the share of every input cell in each output cell; rows sum to 1."""
    edges_in, edges_out = torch.arange(n_in + 1) / n_in, torch.arange(n_out + 1) / n_out
    low = torch.maximum(edges_out[:-1, None], edges_in[None, :-1])
    high = torch.minimum(edges_out[1:, None], edges_in[None, 1:])
    return (high - low).clamp(min=0) * n_out


def _linear(n_in: int, n_out: int) -> torch.Tensor:
    position = ((torch.arange(n_out) + 0.5) * n_in / n_out - 0.5).clamp(0, n_in - 1)
    return (1 - (position[:, None] - torch.arange(n_in)[None]).abs()).clamp(min=0)


def _nearest(n_in: int, n_out: int) -> torch.Tensor:
    index = ((torch.arange(n_out) + 0.5) * n_in / n_out).long().clamp(max=n_in - 1)
    return torch.nn.functional.one_hot(index, n_in).float()
