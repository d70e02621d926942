"""The learned reformer: a small network that removes what does not look like anatomy, by a capped change.

Here are the network and what it makes of a volume; the version that draws it is in `versions.py`. It was
trained on clean volumes with synthetic noise alone (`training/denoiser.py`); its weights ship in
data/denoiser.safetensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from MedShieldLib.errors import InputError
from MedShieldLib.targets.grid import WorkingGrid

WEIGHTS = Path(__file__).parent / "data" / "denoiser.safetensors"

# The network halves its grid twice.
DIVISOR = 4
# Voxels around a tile that what comes out of it depends on, in multiples of the divisor.
_HALO = 24
# Voxels of a tile with its halo, at most: about 0.6 GB while the network runs.
_TILE = 11_000_000
# Intensities, with the intensity range as [0, 1], beyond which the network was never asked.
_CLIP = (-0.5, 2.0)
# From intensities to what the network's layers are used to.
_GAIN = 8.0
# Share of deep channels that a draw leaves out.
DROPOUT = 0.1
# A working grid this many times coarser than the voxels is where the noise is looked for.
_COARSER = 1.5


class Network(nn.Module):
    """A residual U-Net on half the grid that estimates the noise, told its level; 0.27 M parameters.

    Voxels of a 2x2x2 cell become channels and the level is one more, as in FFDNet (Zhang et al. 2018), of
    which this is the three-dimensional relative with one more scale: full resolution would cost eight times
    as much. There are no norm layers, so an answer depends on its surroundings alone.
    """

    WIDTH = 16
    DEEP = 64

    def __init__(self) -> None:
        super().__init__()
        width, deep = self.WIDTH, self.DEEP
        self.head = nn.Conv3d(10, width, 3, padding=1)
        self.before = _Residual(width)
        self.down = nn.Conv3d(width, deep, 2, stride=2)
        self.deep = _Residual(deep)
        self.up = nn.Conv3d(deep, width, 1)
        self.after = _Residual(width)
        self.tail = nn.Conv3d(width, 8, 3, padding=1)

    def forward(self, x: torch.Tensor, level: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """The noise in `x`.

        Args:
            x: (N, 1, K, J, I), each axis a multiple of `DIVISOR`; the intensity range is [0, 1].
            level: (N,) root mean square of the noise, in the same unit. At 0 the answer is 0.
            gates: (N, deep channels) factors, see `gates`.

        Returns:
            (N, 1, K, J, I).
        """
        cells = _to_cells(x)
        mean = F.avg_pool3d(cells.mean(1, keepdim=True), 3, 1, 1, count_include_pad=False)
        told = level.reshape(-1, 1, 1, 1, 1).expand(-1, 1, *cells.shape[2:])
        # Noise is small beside anatomy: without a gain, the network is long in finding it.
        fine = self.before(self.head(torch.cat([_GAIN * (cells - mean), mean, _GAIN * told], 1)))
        coarse = self.deep(F.relu(self.down(fine)) * gates[:, :, None, None, None])
        coarse = F.interpolate(self.up(coarse), scale_factor=2, mode="trilinear", align_corners=False)
        return _from_cells(self.tail(self.after(fine + coarse))) * level.reshape(-1, 1, 1, 1, 1)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


def _to_cells(x: torch.Tensor) -> torch.Tensor:
    """(N, 1, K, J, I) to (N, 8, K/2, J/2, I/2)."""
    n, _, k, j, i = x.shape
    x = x.reshape(n, k // 2, 2, j // 2, 2, i // 2, 2).permute(0, 2, 4, 6, 1, 3, 5)
    return x.reshape(n, 8, k // 2, j // 2, i // 2)


def _from_cells(x: torch.Tensor) -> torch.Tensor:
    """The inverse of `_to_cells`."""
    n, _, k, j, i = x.shape
    x = x.reshape(n, 2, 2, 2, k, j, i).permute(0, 4, 1, 5, 2, 6, 3)
    return x.reshape(n, 1, 2 * k, 2 * j, 2 * i)


def gates(channels: int, rng: np.random.Generator) -> torch.Tensor:
    """(1, channels): channels left out at random, the others made up for it (Srivastava et al. 2014)."""
    kept = rng.random(channels) >= DROPOUT
    return torch.from_numpy(np.where(kept, 1 / (1 - DROPOUT), 0).astype(np.float32))[None]


# What is kept must serve gradients later on, although a plain draw asked for it first.
@lru_cache(maxsize=4)
@torch.inference_mode(False)
def load(weights: Path = WEIGHTS) -> Network:
    """The trained network.

    Raises:
        InputError: if the weights are missing or belong to another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = Network()
    try:
        network.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{weights} does not hold the denoiser's weights; reinstall MedShield.") from error
    return network.eval().requires_grad_(False)


def change(
    voxels: torch.Tensor,
    grid: WorkingGrid,
    intensities: tuple[float, float],
    level: float,
    cap: float,
    rng: np.random.Generator,
) -> torch.Tensor:
    """What the shipped network takes for noise in a volume, to be taken away; differentiable.

    Args:
        voxels: float32 (K, J, I).
        grid: the target's, in that volume; noise finer than it can see means nothing to it.
        intensities: the lowest and the highest, between which the network sees [0, 1].
        level: root mean square of the noise, as a share of that range.
        cap: no voxel of it is larger, likewise.
        rng: see `estimate`.

    Returns:
        (K, J, I) in the volume's intensity units.
    """
    low, high = intensities
    lattice = _lattice(grid)
    unit = (lattice.to_grid(voxels) - low) / (high - low)
    noise = estimate(load(), unit, level, rng).clamp(-cap, cap)
    return lattice.spread(noise) * (high - low)


def estimate(network: Network, x: torch.Tensor, level: float, rng: np.random.Generator) -> torch.Tensor:
    """The noise in a whole volume, float32 (K, J, I), as one random view of the network sees it.

    Args:
        network: trained.
        x: (K, J, I) of any size; the intensity range is [0, 1].
        level: root mean square of the noise, in the same unit.
        rng: draws orientation, cells, and the channels left out.
    """
    order, flips = rng.permutation(3).tolist(), np.flatnonzero(rng.random(3) < 0.5).tolist()
    turned = x.permute(order).flip(flips).clamp(*_CLIP)
    first = rng.integers(0, DIVISOR, 3).tolist()
    pads = [(n, -(n + size) % DIVISOR) for n, size in zip(first, turned.shape, strict=True)]
    padded = F.pad(turned[None, None], [n for pair in reversed(pads) for n in pair], mode="replicate")
    noise = _by_tiles(network, padded, torch.tensor([level]).float(), gates(network.DEEP, rng))
    inner = tuple(slice(n, n + size) for n, size in zip(first, turned.shape, strict=True))
    return noise[0, 0][inner].flip(flips).permute(np.argsort(order).tolist()).contiguous()


def _by_tiles(network: Network, x: torch.Tensor, level: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    """The network on tiles with as much around them as counts: the same as on the whole, in less memory."""
    noise = torch.zeros_like(x)
    for kept in _tiles(x.shape[2:]):
        k, j, i = (slice(max(0, s.start - _HALO), s.stop + _HALO) for s in kept)
        inner = tuple(
            slice(s.start - seen.start, s.stop - seen.start) for s, seen in zip(kept, (k, j, i), strict=True)
        )
        noise[0, 0][kept] = network(x[:, :, k, j, i], level, gates)[0, 0][inner]
    return noise


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """The fewest tiles, cut along the longest axes, that fit in memory with their halos."""
    parts = [1, 1, 1]

    def extent(axis: int) -> int:
        """Voxels of an inner tile with its halo; one or two parts have fewer neighbours."""
        cells = -(-shape[axis] // (DIVISOR * parts[axis]))
        return min(shape[axis], DIVISOR * cells + min(2, parts[axis] - 1) * _HALO)

    while np.prod([extent(axis) for axis in range(3)]) > _TILE:
        axis = max(range(3), key=lambda axis: shape[axis] / parts[axis])
        if parts[axis] * DIVISOR >= shape[axis]:
            break  # halos alone exceed the limit
        parts[axis] += 1
    edges = []
    for size, count in zip(shape, parts, strict=True):
        step = DIVISOR * -(-size // (DIVISOR * count))
        edges.append([*range(0, size, step), size])
    yield from product(*([slice(*pair) for pair in pairwise(axis)] for axis in edges))


def _lattice(grid: WorkingGrid) -> WorkingGrid:
    """The grid on which noise is looked for: the target's own along axes on which it is clearly coarser than
    the voxels (finer noise means nothing to the target), the volume's elsewhere.
    """
    sizes = [grid.volume_shape[axis] for axis in grid.axes]
    k, j, i = (n if size >= _COARSER * n else size for n, size in zip(grid.shape, sizes, strict=True))
    return replace(grid, shape=(k, j, i))
