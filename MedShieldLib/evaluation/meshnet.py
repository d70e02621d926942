"""MeshNet (Fedorov et al. 2017): small dilated networks for grey and white matter, from brainchop.

Third-party models for the benchmark, read from .npz files; not shipped and not needed for anything else.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedShieldLib.errors import InputError
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.targets.window import Window
from MedShieldLib.volume import Structure

STRUCTURES = (
    Structure(1, "White matter", (0.95, 0.85, 0.35)),
    Structure(2, "Grey matter", (0.35, 0.75, 0.35)),
)


def load(path: Path, name: str, activation: type[torch.nn.Module], window: Window) -> NetworkTarget:
    """A target from wNN (out, in, k, k, k), bNN (out,) and dilNN (dilation) of each layer NN.

    Fully convolutional, so it runs on the whole 1 mm grid at once, without filling it up to 256^3.

    Args:
        path: the .npz file.
        name: of the target.
        activation: after every layer but the last.
        window: intensities that map to [0, 1].

    Raises:
        InputError: if the file is missing or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            network = _network(dict(arrays), activation)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read as a MeshNet ({error}).") from error
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return NetworkTarget(name, network, STRUCTURES, sha256, (1.0, 1.0, 1.0), "LIA", window)


def _network(arrays: dict[str, np.ndarray], activation: type[torch.nn.Module]) -> torch.nn.Module:
    depth = sum(key.startswith("w") for key in arrays)
    layers: list[torch.nn.Module] = []
    for n in range(depth):
        weight, bias, dilation = (arrays[f"{key}{n:02d}"] for key in ("w", "b", "dil"))
        layer = torch.nn.Conv3d(
            weight.shape[1], weight.shape[0], weight.shape[2], padding="same", dilation=int(dilation)
        )
        # The kernels were trained on (i, j, k), while a working grid is (k, j, i).
        kernels = torch.from_numpy(weight).float().permute(0, 1, 4, 3, 2).contiguous()
        layer.load_state_dict({"weight": kernels, "bias": torch.from_numpy(bias).float()})
        layers += [layer, activation()] if n < depth - 1 else [layer]
    if not layers:
        raise ValueError("it has no layers")
    # Twice as fast on CPUs, and three times with gradients.
    network: Any = torch.nn.Sequential(*layers)
    return network.to(memory_format=torch.channels_last_3d)
