"""Small targets and a small head for the tests of attacks: seconds for all of them together."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.targets.window import Window
from MedShieldLib.volume import Structure, Volume

STRUCTURES = (Structure(1, "Grey", (0.0, 1.0, 0.0)), Structure(2, "White", (1.0, 1.0, 1.0)))
CENTRES = torch.tensor([0.15, 0.5, 0.85]).reshape(1, 3, 1, 1, 1)


class Sharpening(torch.nn.Module):
    """Classifies by intensity after sharpening, so that fine patterns sway it more than smooth ones."""

    def __init__(self, strength: float = 3.0, gain: float = 30.0) -> None:
        super().__init__()
        self.strength, self.gain = strength, gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, (1,) * 6, mode="replicate")
        sharp = x + self.strength * (x - F.avg_pool3d(padded, 3, stride=1))
        return -self.gain * (sharp - CENTRES) ** 2


class Striped(torch.nn.Module):
    """Classifies by intensity and by stripes across the last axis: noise hardly sways it, stripes do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, (1, 1, 2, 2, 2, 2), mode="replicate")
        stripes = F.avg_pool3d(padded - F.avg_pool3d(padded, (1, 1, 3), 1, (0, 0, 1)), (5, 5, 1), 1)
        return -30 * (x + 4 * stripes[..., 1:-1] - CENTRES) ** 2


class Pointwise(torch.nn.Module):
    """Structure 1 wherever the intensity is above one half: what any attack can reach is known exactly."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([20 * (0.5 - x), 20 * (x - 0.5)], dim=1)


def target_of(network: torch.nn.Module, classes: int = 3, spacing: float = 2.0, **more) -> NetworkTarget:
    window = Window(0, 1000, fixed=True)
    return NetworkTarget(
        "toy", network, STRUCTURES[: classes - 1], "0", (spacing,) * 3, window=window, **more
    )


def head(size: int = 20, dtype: str = "float32", spacing: float = 2.0, seed: int = 0) -> Volume:
    """Smooth blobs in [0, 1000] in an empty margin."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((size,) * 3), 2)
    inside = np.zeros((size,) * 3, bool)
    inside[2:-2, 2:-2, 2:-2] = True
    unit = np.where(inside, np.clip(0.5 + noise / (4 * noise.std()), 0, 1), 0)
    if dtype == "uint8":
        return Volume((255 * unit).astype(dtype), (spacing,) * 3)
    return Volume((1000 * unit).astype(dtype), (spacing,) * 3)
