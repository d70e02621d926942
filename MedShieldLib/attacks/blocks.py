"""Block-wise 3D cosine transform of a volume, differentiable."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

EDGE = 8


def to_spectrum(x: torch.Tensor) -> torch.Tensor:
    """(1, 1, K, J, I) to (k, j, i, 8, 8, 8): orthonormal DCT-II of every block of 8^3 voxels.

    Volumes that do not fit are continued by their border voxels.
    """
    x = F.pad(x, [n for size in reversed(x.shape[2:]) for n in (0, -size % EDGE)], mode="replicate")
    k, j, i = (n // EDGE for n in x.shape[2:])
    blocks = x.reshape(k, EDGE, j, EDGE, i, EDGE).permute(0, 2, 4, 1, 3, 5)
    return _along_each_axis(blocks, _dct_matrix())


def from_spectrum(spectrum: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The inverse of `to_spectrum`; `shape` is that of the volume, (1, 1, K, J, I)."""
    blocks = _along_each_axis(spectrum, _dct_matrix().T)
    k, j, i = (n * EDGE for n in spectrum.shape[:3])
    x = blocks.permute(0, 3, 1, 4, 2, 5).reshape(1, 1, k, j, i)
    return x[:, :, : shape[2], : shape[3], : shape[4]]


def _along_each_axis(blocks: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    return torch.einsum("...abc,xa,yb,zc->...xyz", blocks, matrix, matrix, matrix)


@lru_cache(maxsize=1)
def _dct_matrix() -> torch.Tensor:
    """(frequency, position): rows are orthonormal cosines."""
    n = torch.arange(EDGE, dtype=torch.float64)
    matrix = torch.cos(math.pi * (n[None] + 0.5) * n[:, None] / EDGE) * math.sqrt(2 / EDGE)
    matrix[0] /= math.sqrt(2)
    return matrix.float()
