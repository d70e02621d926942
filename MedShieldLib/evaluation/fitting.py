"""Training of the baselines' small networks: steps with checkpoints, so that a stopped one goes on.

What a step does is the baseline's own business.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from MedShieldLib.errors import Cancelled
from MedShieldLib.observation import IsCancelled, Progress

_CHECKPOINT_EVERY = 25


Parts = Mapping[str, torch.nn.Module | torch.optim.Optimizer]


def fit(
    parts: Parts,
    step: Callable[[int], None],
    steps: int,
    path: Path,
    progress: Progress,
    cancelled: IsCancelled,
) -> str:
    """Run `step(0)` to `step(steps - 1)`, or what is left of them after a stop.

    A step must draw its randomness from its number alone; then a training that was stopped ends with the same
    weights as one that was not.

    Args:
        parts: everything that a step changes.
        step: one update of them.
        steps: how many altogether.
        path: checkpoint, and in the end the result.
        progress: called as progress(fraction, step).
        cancelled: asked before every step.

    Returns:
        SHA-256 of the final parts.

    Raises:
        Cancelled: when asked to stop; the last checkpoint stays.
    """
    first = _resume(parts, path)
    for n in range(first, steps):
        if cancelled():
            raise Cancelled
        step(n)
        progress((n + 1) / steps, f"Training {path.stem}")
        if (n + 1) % _CHECKPOINT_EVERY == 0 or n + 1 == steps:
            _save(parts, n + 1, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _resume(parts: Parts, path: Path) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)  # tensors and numbers only, never objects
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["steps"]


def _save(parts: Parts, steps: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    torch.save({name: part.state_dict() for name, part in parts.items()} | {"steps": steps}, temporary)
    os.replace(temporary, path)
