"""MagNet (Meng and Chen 2017) for volumes: an autoencoder of clean volumes that detects and reforms.

It works on the target's working grid, on patches while it learns and on the whole grid afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from MedShieldLib import converter
from MedShieldLib.evaluation.defence import Asked, Opinion, Setting
from MedShieldLib.evaluation.fitting import Parts, fit
from MedShieldLib.targets.base import Target
from MedShieldLib.volume import Volume

STEPS = 400
_EDGE = 48
_BATCH = 2
# Noise on the inputs while training, of the intensity range, as in the paper.
_NOISE = 0.1
_RATE = 2e-3


@dataclass(frozen=True, eq=False)
class MagNet:
    """Detector: mean error of the reconstruction. Reformer: the reconstruction.

    Attributes:
        autoencoder: (1, 1, K', J', I') to the same, intensity range [0, 1].
        identity: of its weights.
    """

    autoencoder: nn.Module = field(repr=False)
    identity: str
    name: str = "magnet"
    wants_threshold: bool = True
    learns: bool = True

    @classmethod
    def fit(cls, setting: Setting, steps: int = STEPS) -> MagNet:
        """Learn to denoise clean volumes.

        Raises:
            Cancelled: when asked to stop; a later call goes on.
        """
        torch.manual_seed(setting.seed)
        network = Autoencoder()
        optimizer = torch.optim.Adam(network.parameters(), _RATE)
        heads = [on_grid(setting.target, volume)[0] for _, volume in setting.clean]

        def step(n: int) -> None:
            generator = torch.Generator().manual_seed(setting.seed * 1_000_003 + n)
            x = torch.stack([_patch(heads, generator) for _ in range(_BATCH)])
            noisy = x + _NOISE * torch.randn(x.shape, generator=generator)
            loss = F.mse_loss(network(noisy.clamp(0, 1)), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        parts: Parts = {"network": network, "optimizer": optimizer}
        path = setting.folder / "magnet.pt"
        sha256 = fit(parts, step, steps, path, setting.progress, setting.cancelled)
        return cls(network.eval(), f"magnet {sha256[:16]}")

    def judge(self, target: Asked, volume: Volume, seed: int) -> Opinion:
        """How badly the autoencoder knows the volume; the target's answer to what it makes of it."""
        x, width = on_grid(target, volume)
        with torch.inference_mode():
            change = self.autoencoder(x[None, None])[0, 0] - x
        moved = target.grid(volume).spread(change) * width
        answer = target.probabilities(volume.with_voxels(volume.voxels + moved.numpy()))
        return Opinion(float(change.abs().mean()), lambda: target.segmentation(answer, volume))


class Autoencoder(nn.Module):
    """The paper's autoencoder for colour images in three dimensions: shallow, one pooling, 8 k weights."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv3d(1, width, 3, padding=1), nn.ReLU(), nn.Conv3d(width, width, 3, padding=1), nn.ReLU()
        )
        self.decode = nn.Sequential(
            nn.Conv3d(width, width, 3, padding=1), nn.ReLU(), nn.Conv3d(width, 1, 3, padding=1), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, K, J, I) in [0, 1] to the same shape."""
        code = F.avg_pool3d(self.encode(x), 2, ceil_mode=True)
        return self.decode(F.interpolate(code, size=x.shape[2:], mode="trilinear", align_corners=False))


def on_grid(target: Target | Asked, volume: Volume) -> tuple[torch.Tensor, float]:
    """The volume on the target's working grid, its intensity range as [0, 1]; and that range's width."""
    low, high = converter.intensity_range(volume.voxels)
    x = (target.grid(volume).to_grid(volume.voxels) - low) / (high - low)
    return x.clamp(0, 1), high - low


def _patch(heads: list[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """(1, 48, 48, 48), or less if any head is smaller, from anywhere in one of them."""
    head = heads[int(torch.randint(len(heads), (1,), generator=generator))]
    edge = min(_EDGE, *(n for each in heads for n in each.shape))  # the same in a whole batch
    k, j, i = (int(torch.randint(n - edge + 1, (1,), generator=generator)) for n in head.shape)
    return head[None, k : k + edge, j : j + edge, i : i + edge]
