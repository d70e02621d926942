"""Brain tissue (CSF, grey matter, white matter) on T1 MR at 2 mm: the reference target and its robust twin.

Both ship with the project, so that a fresh machine has a real model to protect and somebody to ask for a
second opinion about any model that draws the brain; trained by `MedShieldLib.training`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from MedShieldLib.errors import InputError
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.volume import Structure

NAME = "brain-tissue"
ROBUST_NAME = "brain-tissue-robust"
_DATA = Path(__file__).parents[1] / "data"
WEIGHTS = _DATA / "brain-tissue.safetensors"
ROBUST_WEIGHTS = _DATA / "brain-tissue-robust.safetensors"
SPACING_MM = 2.0
ORIENTATION = "LPS"
DIVISOR = 8
STRUCTURES = (
    Structure(1, "CSF", (0.25, 0.55, 0.95)),
    Structure(2, "Grey matter", (0.35, 0.75, 0.35)),
    Structure(3, "White matter", (0.95, 0.85, 0.35)),
)


# The first level keeps the full 2 mm: the cortex is hardly wider than that.
_CHANNELS, _STRIDES = (16, 32, 48, 64, 80), (1, 2, 2, 2)


def build_network() -> torch.nn.Module:
    """The untrained network: a residual U-Net (Kerfoot et al. 2018, as in MONAI), 0.8 M parameters.

    Its norm layers use fixed statistics after training, so an answer depends on its surroundings alone and
    not on how much air or neck the volume shows.
    """
    from monai.networks.nets import UNet

    norm = ("batch", {"affine": False})
    classes = 1 + len(STRUCTURES)
    network: Any = UNet(3, 1, classes, channels=_CHANNELS, strides=_STRIDES, num_res_units=1, norm=norm)
    return network.to(memory_format=torch.channels_last_3d)  # faster on CPUs, most of all in training


def load(weights: Path = WEIGHTS, name: str = NAME) -> NetworkTarget:
    """The trained target.

    Raises:
        InputError: if the weights are missing or belong to another network.
    """
    return target_of(network_of(weights, name), hashlib.sha256(weights.read_bytes()).hexdigest(), name)


def load_robust() -> NetworkTarget:
    """The same network, trained on under changes made against it (Madry et al. 2018): harder to mislead.

    Made to be asked for second opinions.

    Raises:
        InputError: as `load`.
    """
    return load(ROBUST_WEIGHTS, ROBUST_NAME)


def network_of(weights: Path, name: str = NAME) -> torch.nn.Module:
    """The network with trained weights.

    Raises:
        InputError: if they are missing or belong to another network.
    """
    from safetensors.torch import load_file

    network = build_network()
    try:
        network.load_state_dict(load_file(weights))
    except (OSError, RuntimeError) as error:
        raise InputError(f"{weights} does not hold the weights of '{name}'; reinstall MedShield.") from error
    return network


def target_of(network: torch.nn.Module, sha256: str, name: str = NAME) -> NetworkTarget:
    """A network of this architecture as a target; training uses it to validate half-trained weights."""
    spacing = (SPACING_MM, SPACING_MM, SPACING_MM)
    return NetworkTarget(
        name, network, STRUCTURES, sha256, spacing, ORIENTATION, divisor=DIVISOR, one_piece=True
    )
