"""A hardened copy of a target: the target's own code with other weights, which are harder to mislead.

It is made by `medshield harden` (`training/copies.py`) to be asked for second opinions. Its JSON file names
the target and the weights (`description.py`); these are safetensors, so that opening them runs no
code but the target's.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch

from MedShieldLib.errors import InputError
from MedShieldLib.targets.base import Target, Trainable
from MedShieldLib.targets.device import bare


def with_weights(target: Trainable, weights: Path, name: str) -> Trainable:
    """`target`, which changes, with the weights of a copy and a name of its own.

    Raises:
        InputError: if the weights cannot be read or belong to another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = weights.read_bytes()
        _put(load(data), bare(target.network))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{weights} does not hold weights for target '{target.name}'; make them with: medshield harden"
        ) from error
    target.sha256 = hashlib.sha256(target.sha256.encode() + data).hexdigest()
    target.name = name
    return target


def _put(weights: dict[str, torch.Tensor], network: torch.nn.Module) -> None:
    """All parameters, each once, however many names a module has for it."""
    parameters = dict(network.named_parameters())
    if parameters.keys() != weights.keys():
        raise RuntimeError("other names")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != weights[name].shape:
                raise RuntimeError(f"another shape of {name}")
            parameter.copy_(weights[name])


def require_trainable(target: Target) -> Trainable:
    """The target, if it has weights that can be trained on.

    Raises:
        InputError: if it has none, or shows no gradients.
    """
    if not isinstance(target, Trainable) or not any(True for _ in target.network.parameters()):
        raise InputError(
            f"Target '{target.name}' has no weights that can be trained on; export it without freezing them."
        )
    return target


def require_copy(copy: Target, target: Trainable) -> Trainable:
    """The copy, if it has weights like the target's, whatever their values.

    Raises:
        InputError: if it has not.
    """
    copy = require_trainable(copy)
    if _shapes(copy.network) != _shapes(target.network):
        raise InputError(f"'{copy.name}' is no copy of target '{target.name}': its network is another one.")
    return copy


def _shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in bare(network).named_parameters()}


def save(network: torch.nn.Module, target: str, out: Path) -> Path:
    """Write a copy's weights, and then `out`, its JSON file, each whole or not at all.

    Args:
        network: with the weights.
        target: of which it is a copy, by built-in name or JSON path.
        out: file; the weights go beside it.

    Returns:
        The file of the weights.
    """
    from safetensors.torch import save as to_bytes

    weights = weights_beside(out)
    state = {name: x.detach().cpu().contiguous() for name, x in network.named_parameters()}
    path = Path(target)
    of = _seen_from(out.parent, path) if path.suffix == ".json" else target
    entries = {"hardened": of, "weights": weights.name, "name": f"{path.stem}-hardened"}
    for file, write in (
        (weights, lambda part: part.write_bytes(to_bytes(state))),  # `save_file` lets nobody else read it
        (out, lambda part: part.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")),
    ):
        part = file.with_name(f".{file.name}.part")
        write(part)
        os.replace(part, file)
    return weights


def _seen_from(folder: Path, path: Path) -> str:
    """A relative path, so that both can be moved together; absolute where Windows has them on two drives."""
    try:
        return os.path.relpath(path, folder)
    except ValueError:
        return str(path.absolute())


def weights_beside(out: Path) -> Path:
    """Where the weights of the copy that `out` describes go."""
    return out.with_suffix(".safetensors")
