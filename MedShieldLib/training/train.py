"""Training the reference target: seeded, on the CPU, resumable at any checkpoint.

`train` fits one network, `main` writes its weights. How good it is on subjects left out is in `validate.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedShieldLib.targets.brain_tissue import build_network
from MedShieldLib.training import augment, consistency, hardening, precision
from MedShieldLib.training.data import MNI, Subject
from MedShieldLib.training.hardening import Change
from MedShieldLib.training.loop import Cycle, Progress, fit

_MEASURING_SEED = 500

# Image and labels, (1, K, J, I) each, and how the image is changed.
HardenedSample = tuple[torch.Tensor, torch.Tensor, Change]


@dataclass(frozen=True)
class Phase:
    """One cycle of the learning rate.

    Attributes:
        iterations: samples seen, one at a time.
        learning_rate: at its peak (one-cycle policy, Smith and Topin 2019).
        norms_fixed: whether norm layers use statistics measured over many patches, not each sample's own.
            A network trained on patches learns well with their own, and then fails on whole heads, which
            hold more air; so the statistics are measured before the first phase that fixes them.
        consistency: weight of the disagreement between two views of each sample, see `consistency.py`;
            without it there is one view.
        hardened: gradient steps by which samples are changed against the network, see `hardening.py`; with
            any, the consistency is that with its answers to the unchanged ones before the phase.
    """

    iterations: int
    learning_rate: float
    norms_fixed: bool
    consistency: float = 0.0
    hardened: int = 0


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, apart from the data."""

    phases: tuple[Phase, ...] = (
        Phase(3800, 2e-3, norms_fixed=False),
        Phase(2600, 1e-3, norms_fixed=True),
        Phase(800, 7e-4, norms_fixed=True, consistency=3.0),
    )
    weight_decay: float = 1e-4
    averaging: float = 0.995
    measured_patches: int = 120
    seed: int = 7
    checkpoint_every: int = 200

    def of_length(self, iterations: int) -> Recipe:
        """The same phases in the same proportion, `iterations` in all."""
        share = iterations / sum(phase.iterations for phase in self.phases)
        phases = (replace(phase, iterations=max(1, round(share * phase.iterations))) for phase in self.phases)
        return replace(self, phases=tuple(phases))


def train(
    subjects: list[Subject],
    work: Path,
    recipe: Recipe,
    progress: Progress = lambda fraction, step: None,
    cancelled: Callable[[], bool] = lambda: False,
    begin: torch.nn.Module | None = None,
) -> torch.nn.Module:
    """Fit a network on `subjects`, with checkpoints in `work`; picks up where it stopped.

    With `begin`, a trained network is trained on, and keeps the statistics of its norms.

    Raises:
        Cancelled: when `cancelled()` says so; the last checkpoint stays.
    """
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network, measured = begin or build_network(), begin is not None
    for number, phase in enumerate(recipe.phases):
        if phase.norms_fixed and not measured:
            _measure_norms(network, subjects, recipe)
            measured = True
        network = _train_phase(network, subjects, work, recipe, number, progress, cancelled)
    return network.eval()


def _train_phase(
    network: torch.nn.Module,
    subjects: list[Subject],
    work: Path,
    recipe: Recipe,
    number: int,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> torch.nn.Module:
    """One phase, with its checkpoint in `work`/phase`number`.

    The loss is computed in float32, the network in whatever is fast (`precision.py`).
    """
    phase = recipe.phases[number]
    draw, loss_of = _task(network, phase)  # before resuming: a hardened phase keeps to where it began
    network.train()
    if phase.norms_fixed:
        _norms(network, lambda norm: norm.eval())
    cycle = Cycle(
        phase.iterations,
        phase.learning_rate,
        recipe.weight_decay,
        recipe.averaging,
        recipe.checkpoint_every,
    )
    make = _samples(subjects, phase.iterations, recipe.seed + 1000 * number, draw)
    return fit(network, cycle, make, partial(loss_of, network), work / f"phase{number}", progress, cancelled)


def _task(network: torch.nn.Module, phase: Phase) -> tuple[Callable, Callable]:
    """How the samples of a phase are drawn, and its loss of (network, sample)."""
    if phase.hardened:
        before = copy.deepcopy(network).eval()
        return _hardened_sample, partial(_of_hardened, phase, before)
    if phase.consistency:
        return consistency.views, partial(_of_views, phase.consistency)
    return augment.sample, _of_sample


def _of_sample(network: torch.nn.Module, sample: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    x, y = sample
    return _supervised(_logits(network, x[None]), y[None])


def _of_views(weight: float, network: torch.nn.Module, pair: consistency.Views) -> torch.Tensor:
    logits = _logits(network, pair.images)
    apart = consistency.disagreement(logits.softmax(1), pair)
    return _supervised(logits, pair.labels) + weight * apart


def _hardened_sample(subject: Subject, seed: int) -> HardenedSample:
    image, labels = augment.sample(subject, seed)
    return image, labels, hardening.draw(image.shape, seed)


def _of_hardened(
    phase: Phase, before: torch.nn.Module, network: torch.nn.Module, sample: HardenedSample
) -> torch.Tensor:
    image, labels, change = sample
    y = labels[None]
    x = hardening.changed(image[None], change, lambda x: _supervised(_logits(network, x), y), phase.hardened)
    with torch.no_grad():
        answer = _logits(before, image[None]).softmax(1)
    logits = _logits(network, x)
    return _supervised(logits, y) + phase.consistency * consistency.apart(logits.softmax(1)[0], answer[0])


def _logits(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with precision.mixed():
        return network(x).float()


def _supervised(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    from monai.losses import DiceCELoss

    return DiceCELoss(softmax=True, to_onehot_y=True, include_background=True)(logits, y)


def _samples(subjects: list[Subject], iterations: int, seed: int, draw: Callable) -> Callable[[int], Any]:
    """What makes the sample of an iteration.

    MNI152 comes as often as two heads: it is the only 1 mm and the only young-adult source.
    """
    weights = np.array([2.0 if s.name == MNI else 1.0 for s in subjects])
    order = np.random.default_rng(seed).choice(len(subjects), size=iterations, p=weights / weights.sum())
    return lambda iteration: draw(subjects[order[iteration]], seed * 1_000_003 + iteration)


def _measure_norms(network: torch.nn.Module, subjects: list[Subject], recipe: Recipe) -> None:
    """Set the norms' statistics to their average over some patches."""
    _norms(network, lambda norm: norm.reset_running_stats())
    _norms(network, lambda norm: setattr(norm, "momentum", None))  # None: a plain average
    network.train()
    with torch.no_grad():
        for n in range(recipe.measured_patches):
            network(augment.sample(subjects[n % len(subjects)], _MEASURING_SEED + n)[0][None])


def _norms(network: torch.nn.Module, change: Callable[[torch.nn.BatchNorm3d], object]) -> None:
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            change(module)
