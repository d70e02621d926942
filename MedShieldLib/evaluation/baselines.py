"""Baseline defences without training: nothing at all, and one fixed filter.

A filter both reforms (the target segments the filtered volume) and detects (how much the answer changes:
feature squeezing, Xu et al. 2018). Its strength is chosen as the shield chooses its versions: on clean
volumes, the strongest that the target tolerates.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from MedShieldLib import detector
from MedShieldLib.errors import Cancelled
from MedShieldLib.evaluation import filters
from MedShieldLib.evaluation.defence import Asked, Opinion, Setting
from MedShieldLib.targets.base import Target
from MedShieldLib.versions import Source
from MedShieldLib.volume import Volume

# Strengths are chosen on so many clean volumes, as the strongest whose mean disagreement stays below this.
_ENOUGH, _TOLERANCE = 3, 0.03


@dataclass(frozen=True)
class Undefended:
    """The target alone."""

    name: str = "none"
    identity: str = "none"
    wants_threshold: bool = False
    learns: bool = False

    def judge(self, target: Asked, volume: Volume, seed: int) -> Opinion:
        """No suspicion, and no other segmentation than the target's."""
        return Opinion(float("nan"))


@dataclass(frozen=True)
class Filter:
    """A family of fixed filters: (source, strength) -> voxels, and its strengths from strong to weak."""

    name: str
    apply: Callable[[Source, float], np.ndarray]
    strengths: tuple[float, ...]


FILTERS = (
    Filter("gaussian", filters.gaussian, (1.0, 0.7, 0.5, 0.35)),
    Filter("median", filters.median, (1,)),
    Filter("bit-depth", filters.bit_depth, (3, 4, 5)),
    Filter("jpeg", filters.jpeg, (25, 50, 75)),
    Filter("low-pass", filters.low_pass, (0.35, 0.5, 0.65, 0.8)),
    Filter("visu-shrink", filters.visu_shrink, (1.0, 0.5, 0.25)),
    Filter("frequency-refinement", filters.frequency_refinement, (1.0, 0.5, 0.25)),
)


@dataclass(frozen=True)
class Filtered:
    """One filter at one strength."""

    filter: Filter
    strength: float
    wants_threshold: bool = True
    learns: bool = False

    @property
    def name(self) -> str:
        """The filter's."""
        return self.filter.name

    @property
    def identity(self) -> str:
        """Name and strength."""
        return f"{self.name} {self.strength:g}"

    def judge(self, target: Asked, volume: Volume, seed: int) -> Opinion:
        """Suspicious is what the target sees otherwise once it is filtered."""
        return squeezed(target, volume, self.reform(target, volume))

    def reform(self, target: Target | Asked, volume: Volume) -> Volume:
        """The filtered volume."""
        source = Source(volume, target.grid(volume), target.finest_mm)
        return volume.with_voxels(self.filter.apply(source, self.strength))

    @classmethod
    def fit(cls, family: Filter, setting: Setting) -> Filtered:
        """The strongest of a family that the target tolerates on clean volumes; else the weakest.

        Raises:
            Cancelled: when asked to stop.
        """
        path = setting.folder / f"{family.name}.json"
        if path.exists():
            return cls(family, json.loads(path.read_text())["strength"])
        strengths = family.strengths if len(family.strengths) > 1 else ()
        for strength in strengths:
            if cls(family, strength)._harm(setting) <= _TOLERANCE:
                break
        else:
            strength = family.strengths[-1]
        write_text(path, json.dumps({"strength": strength}))
        return cls(family, strength)

    def _harm(self, setting: Setting) -> float:
        """Mean disagreement that the filter causes on clean volumes."""
        losses = []
        for _, volume in setting.clean[:_ENOUGH]:
            if setting.cancelled():
                raise Cancelled
            answer = setting.target.probabilities(volume)
            other = setting.target.probabilities(self.reform(setting.target, volume))
            losses.append(detector.disagreement(answer, other).mean())
        return float(np.mean(losses))


def squeezed(target: Asked, volume: Volume, reformed: Volume) -> Opinion:
    """The target's answer to a reformed volume as defence, its difference from the plain one as suspicion."""
    other = target.probabilities(reformed)
    score = detector.disagreement(target.probabilities(volume), other).mean()
    return Opinion(float(score), lambda: target.segmentation(other, volume))


def write_text(path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
