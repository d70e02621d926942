"""Models under protection: a small Protocol (`base.py`) and one adapter a file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from MedShieldLib.errors import InputError
from MedShieldLib.targets.base import DifferentiableTarget, Target, Trainable

__all__ = ["BUILT_IN", "DifferentiableTarget", "Target", "Trainable", "load_target"]

# Module and function, so that only the one that is asked for is imported.
_LOADERS = {
    "brain-tissue": ("brain_tissue", "load"),
    "brain-tissue-robust": ("brain_tissue", "load_robust"),
    "deepbet": ("deepbet", "load"),
    "deepbet-coarse": ("deepbet", "load_coarse"),
    "deepbet-coarse-hardened": ("deepbet", "load_hardened"),
}
BUILT_IN = tuple(_LOADERS)


def load_target(name: str | Path) -> Target:
    """A target by its built-in name, or by the path of a JSON file.

    That file describes a TorchScript model (`torchscript.py`) or a hardened copy of a target (`hardened.py`).

    Raises:
        InputError: if there is no such target, or its weights cannot be loaded.
    """
    if name in BUILT_IN:
        module, function = _LOADERS[str(name)]
        target: Target = getattr(import_module(f"{__name__}.{module}"), function)()
        return target
    if Path(name).suffix == ".json":
        return _described(Path(name))
    raise InputError(f"There is no target '{name}'; use {', '.join(BUILT_IN)} or a model's JSON file.")


def _described(path: Path) -> Target:
    from MedShieldLib.targets import description, hardened, torchscript

    copy = description.read_copy(path)
    if copy is None:
        return torchscript.load(path)
    return hardened.with_weights(
        hardened.require_trainable(load_target(copy.target)), copy.weights, copy.name
    )
