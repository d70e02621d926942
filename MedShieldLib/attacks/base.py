"""The common call of every attack, the case that it works on, and the report that it gives.

How an attack searches is in its own file; what it climbs is in `losses.py`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from MedShieldLib.attacks import losses
from MedShieldLib.attacks.losses import LossFunction, Reference
from MedShieldLib.attacks.ssim import ssim
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.targets.base import DifferentiableTarget, answered_logits, on_points
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.targets.network import add_within
from MedShieldLib.volume import Volume

Progress = Callable[[float, str], None]
Render = Callable[[torch.Tensor], torch.Tensor]

# Window space is float32: the search stays this share inside its bound, so that rounding cannot pass it.
_FLOAT32_ROOM = 1e-5
# A bound of exactly one grey level may come out this much below, for the window is float32.
_LEVEL_TOLERANCE = 2e-5
# By so much of it, in the mean, a window may differ from what attacks take it for.
_WINDOW_TOLERANCE = 0.01


@dataclass(frozen=True)
class AttackResult:
    """An attacked volume and how far the attack went, measured on the voxels as they would be written.

    Attributes:
        attack: the attack with its parameters.
        volume: the attacked volume, in the geometry and data type of the clean one.
        eps: the bound that was set, in units of the target's [0, 1] window.
        linf: the largest change of a voxel, in the same units; at most `eps`.
        l2: the root of the summed squared changes, in the same units.
        ssim: structural similarity of what the target's network sees of the two volumes, at most 1.
        dice: for every structure of the target's clean answer (by label value), Dice of the new answer.
        passes: how often the attack ran the target's network.
        seconds: time of the search, without these measurements.
    """

    attack: Attack
    target: str
    volume: Volume = field(repr=False)
    eps: float
    seed: int
    linf: float
    l2: float
    ssim: float
    dice: dict[int, float]
    passes: int
    seconds: float

    @property
    def dice_drop(self) -> float:
        """1 - the mean Dice over the structures of the clean answer."""
        return 1 - float(np.mean(list(self.dice.values())))


@dataclass
class Case:
    """One volume under attack: what an attack may ask and where it may go.

    The search space is the file's own voxels, in units of the target's window. (A search on the target's
    grid loses much of what it found when it is written to voxels that do not fit that grid.) Every answer
    is that to the volume as it would be written, rounding included.

    Every pass through `logits` is counted, checked for cancellation and reported as progress. Every answer
    that comes by `gradient` or `look` is judged: `best` is the input with the lowest score so far, which is
    the true mean Dice unless the attack says otherwise, so that an attack never loses what it had found.

    Attributes:
        target: the target under attack.
        volume: the clean volume.
        x: its voxels, (1, 1, K, J, I); the target's window is [0, 1], voxels beyond it lie outside.
        reference: the target's answer to them.
        width: of the window, in the volume's intensity units.
        grid: the target's working grid.
        eps: L-infinity bound around `x`.
        generator: the only source of randomness.
        expected_passes: for progress.
        room: share of eps that each voxel may use, of the shape of `x`.
        passes: how often the target's network was run.
        best: the best input found within the bound; the clean one at first.
    """

    target: DifferentiableTarget
    volume: Volume
    x: torch.Tensor
    reference: Reference
    width: float
    grid: WorkingGrid
    eps: float
    generator: torch.Generator
    expected_passes: int = 1
    progress: Progress | None = None
    cancelled: Callable[[], bool] | None = None
    room: torch.Tensor | float = 1.0
    passes: int = 0

    @classmethod
    def of(
        cls,
        target: DifferentiableTarget,
        volume: Volume,
        eps: float,
        generator: torch.Generator,
        expected_passes: int = 1,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Case:
        """The case of one volume; asks the target for its clean answer, which is not counted as a pass.

        Raises:
            InputError: if the target finds no structure, for then nothing can be attacked, or if its window
                is not what gradients are taken through, see `DifferentiableTarget.window`.
        """
        with torch.no_grad():
            reference = Reference(answered_logits(target, target.window(volume)))
        if not reference.structures:
            raise InputError(f"Target '{target.name}' finds nothing in this volume; attack another one.")
        grid, width = target.grid(volume), window_width(target, volume)
        x = _in_window_units(target, volume, width)
        return cls(
            target, volume, x, reference, width, grid, eps, generator, expected_passes, progress, cancelled
        )

    def __post_init__(self) -> None:
        self.judge(lambda labels: losses.mean_dice(labels, self.reference.labels))

    def judge(self, score: Callable[[torch.Tensor], float]) -> None:
        """Judge answers by `score` of their label map (1, K, J, I) from now on; lower is better."""
        self._score = score
        self.last_score = self.best_score = score(self.reference.labels)
        self.best = self.x

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(1, C, K', J', I') of the target for voxels of the shape of `x`."""
        return self.answer(self.written(x), x)

    def answer(self, written: Volume, x: torch.Tensor) -> torch.Tensor:
        """The target's logits for a volume whose voxels, in window units, are a function `x` of others.

        Going forward everything is as in a file, and the answer is post-processed as the shield gets it, so
        that a structure that the target drops does the attack no good. The gradient goes through the grid.
        It is stopped only where the window clips so far that no change within eps comes back.
        """
        if self.cancelled is not None and self.cancelled():
            raise Cancelled
        seen = self.target.window(written)
        if x.requires_grad:
            gridded = on_points(self.target, x[0, 0], self.volume)[None, None]
            reachable = (gridded.detach() > -self.eps) & (gridded.detach() < 1 + self.eps)
            seen = seen + (gridded - gridded.detach()) * reachable
        answer = answered_logits(self.target, seen)
        self.passes += 1
        if self.progress is not None:
            self.progress(min(1.0, self.passes / self.expected_passes), "Attacking")
        return answer

    def gradient(
        self,
        z: torch.Tensor,
        loss: LossFunction,
        render: Render | None = None,
        track: LossFunction | None = None,
    ) -> tuple[torch.Tensor, float]:
        """The gradient of loss(logits(render(z)), reference) by z, and the loss, or `track` if given.

        Args:
            z: parameters of any shape; without `render`, the input itself.
            loss: what to climb.
            render: makes the input of the parameters, differentiably.
            track: another loss, whose value is of interest.
        """
        z = z.detach().requires_grad_()
        x = z if render is None else render(z)
        logits = self.logits(x)
        value = loss(logits, self.reference)
        (gradient,) = torch.autograd.grad(value, z)
        self._consider(x.detach(), logits.detach())
        if track is not None:
            value = track(logits.detach(), self.reference)
        return gradient, float(value.detach())

    def look(self, x: torch.Tensor) -> torch.Tensor:
        """The logits at `x`, without a gradient."""
        with torch.no_grad():
            logits = self.logits(x)
        self._consider(x, logits)
        return logits

    def project(self, x: torch.Tensor, radius: float = 1.0) -> torch.Tensor:
        """The nearest input within `radius` times eps of the clean one, and nowhere further out of [0, 1]."""
        reach = radius * self.eps * self.room
        return x.clamp((self.x - reach).maximum(self._floor), (self.x + reach).minimum(self._ceiling))

    def project_straight(self, x: torch.Tensor) -> torch.Tensor:
        """`project`, with the gradient passed on as if nothing had been clipped."""
        return x + (self.project(x) - x).detach()

    def written(self, x: torch.Tensor) -> Volume:
        """The volume with these voxels, in its own data type."""
        change = (x.detach() - self.x)[0, 0] * self.width
        return add_within(self.volume, change.numpy())

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Zeros (K, J, I) through which gradients in the volume's intensity units reach `x`."""
        return (x - x.detach())[0, 0] * self.width

    @cached_property
    def _floor(self) -> torch.Tensor:
        return self.x.clamp(max=0)

    @cached_property
    def _ceiling(self) -> torch.Tensor:
        return self.x.clamp(min=1)

    def uniform(self, shape: Sequence[int]) -> torch.Tensor:
        """Uniform in [-1, 1]."""
        return torch.rand(tuple(shape), generator=self.generator) * 2 - 1

    def _consider(self, x: torch.Tensor, logits: torch.Tensor) -> None:
        self.last_score = self._score(logits.argmax(dim=1))
        if self.last_score < self.best_score and self._is_within(x):
            self.best, self.best_score = self.project(x), self.last_score

    def _is_within(self, x: torch.Tensor) -> bool:
        return bool((x - self.project(x)).abs().max() < _FLOAT32_ROOM)


@dataclass(frozen=True)
class Attack(ABC):
    """An attack: its fields are its parameters, calling it attacks one volume.

    Attributes:
        name: as in its paper.
        revision: raise it when the code or a default changes what the attack finds, so that the benchmark
            does not take volumes attacked before for those of today. Subclasses that set none inherit it; an
            attack that runs another one by default has to be raised with it.
    """

    name: ClassVar[str]
    revision: ClassVar[int] = 1

    @property
    @abstractmethod
    def expected_passes(self) -> int:
        """How often the attack runs the target's network, about."""

    @abstractmethod
    def perturb(self, case: Case) -> torch.Tensor:
        """The attacked input, (1, 1, K, J, I), within `case.project`."""

    def __call__(
        self,
        target: DifferentiableTarget,
        volume: Volume,
        eps: float,
        *,
        seed: int = 0,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AttackResult:
        """Attack one volume.

        Args:
            target: the target to mislead.
            volume: the clean volume.
            eps: L-infinity bound in units of the target's [0, 1] window, above 0.
            seed: of everything random.
            progress: called as progress(fraction, step).
            cancelled: asked before every pass through the target.

        Raises:
            InputError: if `eps` is not positive or the target finds nothing in the volume.
            Cancelled: when asked to stop.
        """
        if not eps > 0:
            raise InputError(f"The bound eps = {eps} must be above 0, such as 8/255.")
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        inside = eps * (1 - _FLOAT32_ROOM)
        case = Case.of(target, volume, inside, generator, self.expected_passes, progress, cancelled)
        attacked = case.written(case.project(self.perturb(case)))
        seconds = time.perf_counter() - began
        change = change_between(target, volume, attacked)
        return AttackResult(
            attack=self,
            target=target.name,
            volume=attacked,
            eps=eps,
            seed=seed,
            linf=change.linf,
            l2=change.l2,
            ssim=change.ssim,
            dice=_dice_between(target, volume, attacked),
            passes=case.passes,
            seconds=seconds,
        )


@dataclass(frozen=True)
class Change:
    """How far an attacked volume lies from the clean one; as those of `AttackResult`."""

    linf: float
    l2: float
    ssim: float


def change_between(target: DifferentiableTarget, clean: Volume, attacked: Volume) -> Change:
    """How far two volumes on the same voxels lie from each other, in units of the target's window."""
    change = np.abs(attacked.voxels.astype(np.float64) - clean.voxels.astype(np.float64))
    change /= window_width(target, clean)
    alike = ssim(target.window(clean)[0, 0].numpy(), target.window(attacked)[0, 0].numpy())
    return Change(float(change.max()), float(np.sqrt(np.square(change).sum())), alike)


def window_width(target: DifferentiableTarget, volume: Volume) -> float:
    """The intensity range that the target maps to [0, 1], in the volume's units.

    Asked of the target alone: moved by half a window everywhere, the voxels move by half this range.
    """
    precise = volume.with_voxels(volume.voxels.astype(np.float64))
    x = target.window(precise)
    moved = target.unwindow(torch.where(x < 0.5, x + 0.5, x - 0.5), precise)
    return 2 * float(np.abs(moved.voxels - precise.voxels).max())


def require_room(target: DifferentiableTarget, volume: Volume, eps: float) -> None:
    """Refuse a bound within which voxels that are whole numbers cannot change at all.

    Raises:
        InputError: if one grey level is more than `eps` times the window.
    """
    width = window_width(target, volume)
    if volume.voxels.dtype.kind in "iu" and eps * width < 1 - _LEVEL_TOLERANCE:
        raise InputError(
            f"{volume.source or 'The volume'} holds whole numbers, and one grey level is "
            f"{255 / width:.3g}/255 of the intensity window, more than the bound of {255 * eps:.3g}/255, so "
            "nothing could change; raise the bound to one grey level or more, or save the volume as float32."
        )


def _in_window_units(target: DifferentiableTarget, volume: Volume, width: float) -> torch.Tensor:
    """The voxels, scaled and shifted so that the target's window is [0, 1].

    Raises:
        InputError: if the window is not that, so that gradients through it would be wrong.
    """
    voxels = volume.voxels.astype(np.float64) / width
    seen, gridded = target.window(volume)[0, 0], on_points(target, torch.from_numpy(voxels).float(), volume)
    inside = (seen > 0) & (seen < 1)
    shift = (gridded - seen)[inside].median() if inside.any() else gridded.min()
    if float(((gridded - shift).clamp(0, 1) - seen).abs().mean()) > _WINDOW_TOLERANCE:
        raise InputError(
            f"The window of target '{target.name}' is not its volume on the working grid, scaled and cut, "
            "so its gradients would be wrong; give the target `sampled`, or another `window`."
        )
    return torch.from_numpy(voxels - float(shift)).float()[None, None]


def _dice_between(target: DifferentiableTarget, clean: Volume, attacked: Volume) -> dict[int, float]:
    answers = [torch.from_numpy(target.labelmap(target.probabilities(v), v)) for v in (attacked, clean)]
    return losses.dice(*answers)
