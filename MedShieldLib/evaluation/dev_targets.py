"""Third-party targets of the benchmark, by name, from a folder of downloaded weights."""

from __future__ import annotations

from pathlib import Path

import torch

from MedShieldLib.errors import InputError
from MedShieldLib.evaluation import meshnet, torchio_unet
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.targets.window import Window

_MESHNETS = {
    "meshnet-model5": ("model5_gw_ae.npz", torch.nn.ReLU, Window()),
    "meshnet-model11": ("model11_gw_ae.npz", torch.nn.ReLU, Window()),
    "meshnet-model20": ("model20chan3cls.npz", torch.nn.ELU, Window(5.0, 95.0)),
}
NAMES = (*_MESHNETS, torchio_unet.NAME)


def load(name: str, models_folder: Path) -> NetworkTarget:
    """One of `NAMES`.

    Raises:
        InputError: if there is no such target, or its file is not in the folder.
    """
    if name == torchio_unet.NAME:
        return torchio_unet.load(models_folder / "torchio_whole_images_epoch_5.pth", name)
    if name in _MESHNETS:
        file, activation, window = _MESHNETS[name]
        return meshnet.load(models_folder / file, name, activation, window)
    raise InputError(f"There is no target '{name}'; use {', '.join(NAMES)}.")
