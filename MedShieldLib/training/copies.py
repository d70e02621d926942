"""A hardened copy of any target: its own weights, trained on under changes that are made against the copy.

Adversarial training (Madry et al. 2018) with the target's soft answers in place of labels, as in distillation
(Hinton et al. 2015; Goldblum et al. 2020): it needs clean volumes and nothing else. Whoever misleads the
target unseen has to mislead the copy alike. What the copy is for is in `second_opinion.py`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from MedShieldLib import shifts
from MedShieldLib.targets.base import Trainable
from MedShieldLib.targets.device import bare
from MedShieldLib.training import consistency, hardening, precision
from MedShieldLib.training.hardening import Change
from MedShieldLib.training.loop import Cycle, Progress, fit
from MedShieldLib.volume import Volume

# The draws of a sample, each apart from that of its change (`hardening.draw`).
_STREAM = 3
# A head lies and is sized otherwise in every sample: degrees, share of its size, share of the field of view.
_TURN, _GROWTH, _MOVE = 10.0, 0.1, 0.05

_WEIGHT_DECAY = 1e-4
_CHECKPOINT_EVERY = 100

Sample = tuple[torch.Tensor, Change]


@dataclass(frozen=True)
class Recipe:
    """What decides the copy's weights, apart from the target and the volumes.

    Attributes:
        iterations: samples, one at a time.
        learning_rate: at its peak.
        steps: of the change of each sample.
        overlap: weight of the disagreement over structures, beside the cross-entropy of every cell.
        averaging: see `loop.Cycle`.
        seed: of all draws.
    """

    iterations: int = 1600
    learning_rate: float = 5e-4
    steps: int = 3
    overlap: float = 3.0
    averaging: float = 0.99
    seed: int = 13


def harden(
    target: Trainable,
    copy: Trainable,
    volumes: Sequence[Volume],
    work: Path,
    recipe: Recipe,
    progress: Progress = lambda fraction, step: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> torch.nn.Module:
    """The network of a hardened copy, in evaluation mode; picks up where it stopped.

    Norm layers keep their statistics. Every sample is a volume under a benign shift, turned, sized and moved.

    Args:
        target: the target under protection, which stays as it is.
        copy: the same target, loaded once more, or a copy of it made before; its weights change.
        volumes: clean ones. A calibration of the second opinion has to be of others.
        work: folder for checkpoints.
        recipe: how long, how fast, and against what changes.
        progress: called after every iteration.
        cancelled: asked before every iteration.

    Raises:
        Cancelled: when `cancelled()` says so; the last checkpoint stays.
    """
    network = bare(copy.network)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    cycle = Cycle(recipe.iterations, recipe.learning_rate, _WEIGHT_DECAY, recipe.averaging, _CHECKPOINT_EVERY)

    def make(iteration: int) -> Sample:
        return sample(target, volumes, recipe.seed * 1_000_003 + iteration)

    def loss_of(drawn: Sample) -> torch.Tensor:
        return loss(target, copy, drawn, recipe)

    return fit(network, cycle, make, loss_of, work, progress, cancelled)


def identity(target: Trainable, copy: Trainable, names: Sequence[str], recipe: Recipe) -> str:
    """A folder name for checkpoints: other weights, other volumes or another recipe get another one."""
    return hashlib.sha256(repr((target.sha256, copy.sha256, sorted(names), recipe)).encode()).hexdigest()[:16]


def sample(target: Trainable, volumes: Sequence[Volume], seed: int) -> Sample:
    """(1, 1, K', J', I') in [0, 1] and how it is to be changed; a function of its arguments alone."""
    rng = np.random.default_rng([seed, _STREAM])
    volume = volumes[int(rng.integers(len(volumes)))]
    shift = shifts.CALIBRATION[int(rng.integers(len(shifts.CALIBRATION)))]
    x = _posed(target.window(shift(volume, rng)), rng)
    patch = getattr(target, "patch_size", None)
    if patch is not None:
        x = _cropped(x, patch, rng)
    return x, hardening.draw(x.shape, seed)


def loss(target: Trainable, copy: Trainable, drawn: Sample, recipe: Recipe) -> torch.Tensor:
    """How far the copy's answer to a changed sample is from the target's answer to the sample itself."""
    x, change = drawn
    with torch.no_grad():
        answer = _logits(target, x).softmax(1)

    def apart(x: torch.Tensor) -> torch.Tensor:
        logits = _logits(copy, x)
        overlap = consistency.apart(logits.softmax(1)[0], answer[0])
        return F.cross_entropy(logits, answer) + recipe.overlap * overlap

    return apart(hardening.changed(x, change, apart, recipe.steps))


def _logits(target: Trainable, x: torch.Tensor) -> torch.Tensor:
    with precision.mixed():
        return target.logits(x).float()


def _posed(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Turned about each axis, sized and moved along it, linearly; beyond the border as at the border."""
    turned = np.eye(3)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = math.radians(rng.uniform(-_TURN, _TURN))
        axis = np.eye(3)
        axis[first, first] = axis[second, second] = math.cos(angle)
        axis[first, second], axis[second, first] = -math.sin(angle), math.sin(angle)
        turned = turned @ axis
    # In cells turns are turns; `affine_grid` counts in halves of each side.
    sides = np.array(x.shape[:1:-1], dtype=float)
    turned = turned * rng.uniform(1 - _GROWTH, 1 + _GROWTH, 3) * sides / sides[:, None]
    move = rng.uniform(-2 * _MOVE, 2 * _MOVE, 3)
    theta = torch.from_numpy(np.column_stack([turned, move]).astype(np.float32))[None]
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _cropped(x: torch.Tensor, patch: Sequence[int], rng: np.random.Generator) -> torch.Tensor:
    """A box of that size, or the whole where it is smaller."""
    begin = [
        int(rng.integers(max(0, size - side) + 1)) for size, side in zip(x.shape[2:], patch, strict=True)
    ]
    k, j, i = (slice(start, start + side) for start, side in zip(begin, patch, strict=True))
    return x[..., k, j, i]
