"""The brain mask U-Net of TorchIO's tutorial (Perez-Garcia et al. 2021): 4 mm, a fraction of a second.

A third-party model for the benchmark and for quick tests; not shipped and not needed for anything else.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from MedShieldLib.errors import InputError
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.volume import Structure

STRUCTURES = (Structure(1, "Brain", (0.95, 0.75, 0.45)),)

# Voxels along (R, A, S) that the network was trained on, in the middle of the volume.
_FIELD = (48, 60, 48)
# Logits of background and brain outside of that field.
_OUTSIDE = (10.0, -10.0)


def load(path: Path, name: str) -> NetworkTarget:
    """The target, from the tutorial's checkpoint whole_images_epoch_5.pth.

    Raises:
        InputError: if the file is missing or another one, or the package unet is not installed.
    """
    try:
        from unet import UNet
    except ImportError as error:
        raise InputError(f"Target '{name}' needs the package unet; run: pip install unet==0.7.7") from error
    network = UNet(
        in_channels=1,
        out_classes=2,
        dimensions=3,
        num_encoding_blocks=3,
        out_channels_first_layer=8,
        normalization="batch",
        upsampling_type="linear",
        padding=True,
        activation="PReLU",
    )
    try:
        network.load_state_dict(_weights(path))
    except (OSError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is not the checkpoint of TorchIO's tutorial.") from error
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return NetworkTarget(name, _Tutorial(network), STRUCTURES, sha256, (4.0, 4.0, 4.0), "RAS")


def _weights(path: Path) -> dict[str, torch.Tensor]:
    # Beside the weights, the checkpoint holds two NumPy arrays of losses; nothing else may be unpickled.
    allowed: list = [
        (np.empty(0).__reduce__()[0], "numpy.core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        type(np.dtype("float64")),
    ]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)["weights"]


class _Tutorial(torch.nn.Module):
    """The tutorial's steps around its network: crop or pad, normalise, and back to the whole grid.

    Its histogram standardisation is left out: the landmarks are not published with the weights.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[:1:-1]  # trained on (R, A, S), while x is (S, A, R)
        seen = _crop_or_pad(x.permute(0, 1, 4, 3, 2), _FIELD)
        head = seen[seen > seen.mean()]
        logits = self.network((seen - head.mean()) / head.std().clamp(min=1e-12))
        whole = [_crop_or_pad(logits[:, n : n + 1], size, value) for n, value in enumerate(_OUTSIDE)]
        return torch.cat(whole, dim=1).permute(0, 1, 4, 3, 2)


def _crop_or_pad(x: torch.Tensor, shape: tuple[int, ...], value: float = 0.0) -> torch.Tensor:
    """The middle of (1, C, R, A, S), filled up with `value`."""
    sides: list[int] = []
    for have, want in zip(reversed(x.shape[2:]), reversed(shape), strict=True):
        low = (want - have) // 2
        sides += [low, want - have - low]
    return F.pad(x, sides, value=value)
