"""The brain mask U-Net of TorchIO's tutorial (Perez-Garcia et al. 2021): 4 mm, a fraction of a second.

A third-party model for the benchmark and for quick tests; not shipped and not needed for anything else.
`python -m MedShieldLib.evaluation.torchio_unet CHECKPOINT --out FOLDER` writes it as a TorchScript model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import sys
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F

from MedShieldLib.errors import InputError
from MedShieldLib.evaluation.baselines import write_text
from MedShieldLib.study import exit_code
from MedShieldLib.targets.device import bare
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.volume import Structure

NAME = "torchio-unet"
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

    Its histogram standardisation is left out: the landmarks are not published with the weights. TorchScript
    can compile it.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.field, self.outside = network, list(_FIELD), _OUTSIDE

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = [x.shape[4], x.shape[3], x.shape[2]]  # trained on (R, A, S), while x is (S, A, R)
        seen = _crop_or_pad(x.permute(0, 1, 4, 3, 2), self.field)
        head = seen[seen > seen.mean()]
        logits = self.network((seen - head.mean()) / head.std().clamp(min=1e-12))
        background = _crop_or_pad(logits[:, :1], size, self.outside[0])
        brain = _crop_or_pad(logits[:, 1:], size, self.outside[1])
        return torch.cat([background, brain], dim=1).permute(0, 1, 4, 3, 2)


def _crop_or_pad(x: torch.Tensor, shape: list[int], value: float = 0.0) -> torch.Tensor:
    """The middle of (1, C, R, A, S), filled up with `value`."""
    sides: list[int] = []
    for axis in (2, 1, 0):
        have, want = x.shape[axis + 2], shape[axis]
        low = (want - have) // 2
        sides += [low, want - have - low]
    return F.pad(x, sides, value=value)


def export(path: Path, folder: Path) -> Path:
    """The same as a TorchScript file and its description, as its makers would bring it; returns the latter.

    Raises:
        InputError: as `load`.
    """
    target = load(path, NAME)
    network = cast(_Tutorial, bare(target.network))
    network.network = torch.jit.trace(network.network, torch.zeros(1, 1, *_FIELD), check_trace=False)
    folder.mkdir(parents=True, exist_ok=True)
    torch.jit.script(network).save(str(folder / f"{NAME}.pt"))
    description = {
        "model": f"{NAME}.pt",
        "spacing_mm": list(target.spacing),
        "orientation": target.orientation,
        "structures": [{"value": s.value, "name": s.name, "color": list(s.color)} for s in STRUCTURES],
    }
    described = folder / f"{NAME}.json"
    write_text(described, json.dumps(description, indent=2) + "\n")
    return described


@exit_code
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="whole_images_epoch_5.pth of the tutorial")
    parser.add_argument("--out", type=Path, required=True, help="folder for the TorchScript file")
    arguments = parser.parse_args()
    print(export(arguments.checkpoint, arguments.out))


if __name__ == "__main__":
    sys.exit(main())
