"""What the tests of the shield share: a small but real target, a head, and a calibration on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from MedShieldLib import shifts
from MedShieldLib.calibration import Calibration, calibrate
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import Diffusion, LowPass, Moved, WaveletShrinkage
from MedShieldLib.volume import Structure, Volume

FAMILY = (
    WaveletShrinkage(0.05),
    LowPass(0.6),
    Moved(3, False),
    Moved(3, True, Diffusion(0.06)),
)


class TissueByIntensity(torch.nn.Module):
    """Background, grey and white by the intensity of a voxel and its neighbours."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        smooth = torch.nn.functional.avg_pool3d(torch.nn.functional.pad(x, (1,) * 6, mode="replicate"), 3, 1)
        centres = torch.tensor([0.1, 0.5, 0.85]).reshape(1, 3, 1, 1, 1)
        return -80 * (smooth - centres) ** 2


@pytest.fixture(scope="session")
def small_target() -> NetworkTarget:
    """Milliseconds per answer, at 3 mm."""
    structures = (Structure(1, "Grey", (0.0, 1.0, 0.0)), Structure(2, "White", (1.0, 1.0, 1.0)))
    return NetworkTarget("by-intensity", TissueByIntensity(), structures, "00", (3.0, 3.0, 3.0))


@pytest.fixture(scope="session")
def small_heads() -> list[tuple[str, Volume]]:
    """Five int16 heads of 2 x 1.5 x 1.5 mm: a dark rim, grey, and white inside, each with its own folds."""
    return [(f"head {seed}", _head(seed)) for seed in range(5)]


@pytest.fixture(scope="session")
def small_calibration(small_target: NetworkTarget, small_heads: list[tuple[str, Volume]]) -> Calibration:
    """On four of the five heads, under four shifts that need no torchio: 16 scores."""
    mild = (shifts.none, shifts.gamma, shifts.bias_field, shifts.eight_bit)
    return calibrate(small_target, small_heads[:4], FAMILY, name="small", augmentations=mild, seed=5)


def _head(seed: int) -> Volume:
    rng = np.random.default_rng(seed)
    shape = (36, 48, 44)
    folds = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    depth = 0.85 - np.linalg.norm(grid, axis=0) + 0.5 * folds / folds.std() * 0.2
    tissue = np.select([depth > 0.25, depth > 0], [900, 500], 40)
    voxels = ndimage.gaussian_filter(tissue.astype(float), 0.7) + rng.normal(0, 8, shape)
    return Volume(np.round(voxels).astype(np.int16), (1.5, 1.5, 2.0))
