"""Models under protection: a small Protocol (`base.py`) and one adapter a file."""

from __future__ import annotations

from pathlib import Path

from MedShieldLib.errors import InputError
from MedShieldLib.targets.base import DifferentiableTarget, Target, Trainable

__all__ = ["BUILT_IN", "DifferentiableTarget", "Target", "Trainable", "load_target"]

BUILT_IN = ("brain-tissue", "brain-tissue-robust", "deepbet", "deepbet-coarse")


def load_target(name: str | Path) -> Target:
    """A target by its built-in name, or by the path of a JSON file.

    That file describes a TorchScript model (`torchscript.py`) or a hardened copy of a target (`hardened.py`).

    Raises:
        InputError: if there is no such target, or its weights cannot be loaded.
    """
    if name == "brain-tissue":
        from MedShieldLib.targets import brain_tissue

        return brain_tissue.load()
    if name == "brain-tissue-robust":
        from MedShieldLib.targets import brain_tissue

        return brain_tissue.load_robust()
    if name == "deepbet":
        from MedShieldLib.targets import deepbet

        return deepbet.load()
    if name == "deepbet-coarse":
        from MedShieldLib.targets import deepbet

        return deepbet.load_coarse()
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
