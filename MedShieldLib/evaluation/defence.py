"""What the benchmark asks of a defence: how suspicious is a volume, and what should be drawn instead?

The defences themselves: `baselines.py`, `magnet.py`, `spectrum.py`, `published.py`, `shielded.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from MedShieldLib.observation import IsCancelled, Progress
from MedShieldLib.targets.base import Target
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.volume import Segmentation, Volume


@dataclass(frozen=True)
class Opinion:
    """What a defence says of one volume.

    Attributes:
        score: larger is more suspicious; NaN if the defence has no detector.
        defended: makes the segmentation it recommends under suspicion; None if it has no reformer.
        p_attack, p_novelty: its own p-values, where it has any; the benchmark makes those of the others.
    """

    score: float
    defended: Callable[[], Segmentation] | None = None
    p_attack: float = float("nan")
    p_novelty: float = float("nan")


class Defence(Protocol):
    """A defence that is ready for one target.

    Attributes:
        name: as in the tables.
        identity: changes whenever its opinions may change.
        wants_threshold: whether calibration heads must show which scores are ordinary.
        learns: whether what it scores was fitted to the heads to learn from. These would look too ordinary to
            its threshold; one that does not learn takes them as well, as the shield does.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def identity(self) -> str: ...  # noqa: D102

    @property
    def wants_threshold(self) -> bool: ...  # noqa: D102

    @property
    def learns(self) -> bool: ...  # noqa: D102

    def judge(self, target: Asked, volume: Volume, seed: int) -> Opinion:
        """Its opinion of a volume; `seed` is of whatever it draws at random."""


@dataclass(frozen=True)
class Setting:
    """What a defence may learn from: one target and clean volumes, never an attack.

    Attributes:
        target: the target to protect.
        clean: (subject, volume) pairs.
        folder: for what was learned, so that a stopped benchmark can go on.
        seed: of everything random.
        progress: called as progress(fraction, step).
        cancelled: asked often.
    """

    target: Target
    clean: Sequence[tuple[str, Volume]] = field(repr=False)
    folder: Path
    seed: int = 0
    progress: Progress = lambda fraction, step: None
    cancelled: IsCancelled = lambda: False


class Asked:
    """A target that counts and times its answers, and gives the one to the volume in question only once.

    Attributes:
        extra: answers about other volumes since `about`, which is what a defence costs.
        seconds: spent on them.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._volume: Volume | None = None
        self._answer = np.empty(0)
        self.name, self.structures, self.sha256 = target.name, target.structures, target.sha256
        self.finest_mm = target.finest_mm
        self.extra, self.seconds = 0, 0.0

    def about(self, volume: Volume) -> np.ndarray:
        """The target's plain answer to the volume in question; later askings get the same for nothing."""
        if volume is not self._volume:
            self._volume, self._answer = volume, self._target.probabilities(volume)
        self.extra, self.seconds = 0, 0.0
        return self._answer

    def probabilities(self, volume: Volume) -> np.ndarray:
        """See `Target.probabilities`."""
        if volume is self._volume:
            return self._answer
        began = time.perf_counter()
        answer = self._target.probabilities(volume)
        self.extra, self.seconds = self.extra + 1, self.seconds + time.perf_counter() - began
        return answer

    def charge(self, other: Asked) -> None:
        """Count the answers of another target, which a defence has asked as well."""
        self.extra, self.seconds = self.extra + other.extra, self.seconds + other.seconds

    def grid(self, volume: Volume) -> WorkingGrid:
        """See `Target.grid`."""
        return self._target.grid(volume)

    def labelmap(self, probabilities: np.ndarray, volume: Volume) -> np.ndarray:
        """See `Target.labelmap`."""
        return self._target.labelmap(probabilities, volume)

    def segmentation(self, probabilities: np.ndarray, volume: Volume) -> Segmentation:
        """An answer as a label map with its structures."""
        labels = self._target.labelmap(probabilities, volume)
        return Segmentation(volume.with_voxels(labels), tuple(self.structures))
