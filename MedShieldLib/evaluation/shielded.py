"""MedShield itself as one of the benchmark's defences, with the calibration that ships or one made here.

Alone, in its quick mode, or with a second opinion.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedShieldLib import families, versions
from MedShieldLib.calibration import Calibration, calibrate
from MedShieldLib.clean_opinion import SecondOpinion
from MedShieldLib.clean_rows import Rows
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.evaluation.baselines import write_text
from MedShieldLib.evaluation.defence import Asked, Opinion, Setting
from MedShieldLib.recalibration import with_second_opinion
from MedShieldLib.result import Verdict
from MedShieldLib.shield import Shield
from MedShieldLib.targets.base import Target
from MedShieldLib.volume import Volume

# Raise it when the code of a check changes what it finds or recommends: then its rows are measured anew.
# The first adds nothing to the keys, so that rows older than this number stay found.
REVISION = 8


class _Mending(Shield):
    """Recommends the repair whatever the verdict, so that one check tells what gate and reformer do."""

    def _mends(self, verdict: Verdict) -> bool:
        return True


@dataclass(frozen=True)
class Shielded:
    """The shield with one calibration.

    Attributes:
        calibration: of the target it is asked with.
        name: as in the tables.
        second: the target that gives a second opinion; None asks nobody else.
    """

    calibration: Calibration = field(repr=False)
    name: str = "shield"
    second: Target | None = field(default=None, repr=False)
    wants_threshold: bool = False
    learns: bool = False

    @property
    def identity(self) -> str:
        """The calibration's hash, and which revision of the check's code."""
        revision = f" revision {REVISION}" if REVISION > 1 else ""
        return f"{self.name} {self.calibration.sha256[:16]}{revision}"

    def judge(self, target: Asked, volume: Volume, seed: int) -> Opinion:
        """The score and p-values of the shield, and what it recommends when it is alarmed."""
        second = None if self.second is None else Asked(self.second)
        shield = _Mending(target, self.calibration, seed=seed, second=second)
        result = shield.check_and_segment(volume)
        if second is not None:
            target.charge(second)
        return Opinion(result.evidence[0].value, lambda: result.defended, result.p_attack, result.p_novelty)

    @classmethod
    def limited(cls, calibration: Calibration, versions: int | None, name: str) -> Shielded:
        """With so many of the calibration's versions; None takes all."""
        return cls(calibration if versions is None else calibration.limited(versions), name)


def calibration_for(setting: Setting) -> Calibration:
    """The calibration that ships for the target, if it fits its weights; else one made of the clean volumes.

    Without a second opinion, so that it stays the same calibration, by its hash, when one is added.

    Raises:
        Cancelled: when asked to stop; a later call goes on with the next volume.
    """
    shipped = _shipped(setting.target)
    return replace(shipped, second=None) if shipped else _made(setting)


def with_opinion_of(second: Target, setting: Setting) -> Calibration:
    """`calibration_for`, with a second opinion; its rows, which take long, are not redone.

    Raises:
        InputError: if the calibration that ships lacks it: only who has its volumes can add it.
        Cancelled: when asked to stop; a later call goes on with the next volume.
    """
    shipped = _shipped(setting.target)
    if shipped is None:
        return _made(setting, second)
    if shipped.second is None:
        raise InputError(
            f"The calibration that ships for '{setting.target.name}' holds no second opinion; add one with "
            f"python -m MedShieldLib.training.calibrate DATA --second-opinion {second.name} --onto FILE."
        )
    shipped.require_second(second)
    return shipped


def with_learned_reformer(setting: Setting) -> Calibration:
    """One made of the clean volumes, whose family holds the learned reformer if the target tolerates it.

    Raises:
        Cancelled: when asked to stop; a later call goes on with the next volume.
    """
    return _made(setting, learned=True)


def _shipped(target: Target) -> Calibration | None:
    try:
        shipped = Calibration.shipped(target)
        shipped.require_target(target)
    except InputError:
        return None
    return shipped


def _made(setting: Setting, second: Target | None = None, learned: bool = False) -> Calibration:
    family, rows = _family(setting, learned), []
    for n in range(len(setting.clean)):
        part = _Part(setting, n, "learned" if learned else "calibration")
        rows.append(part.calibration(family) if second is None else part.with_opinion_of(second, family))
    return joined(rows, f"{setting.target.name}, {len(rows)} volumes")


@dataclass(frozen=True)
class _Part:
    """The rows of one volume, kept in files of their own."""

    setting: Setting
    number: int
    name: str

    def calibration(self, family: tuple[versions.Version, ...]) -> Calibration:
        """Without a second opinion."""
        path = self._file(self.name)
        if not _is_of(path, family):
            how = {"seed": self._seed, **self._how("Calibrating the shield")}
            calibrate(self.setting.target, self._volumes, family, **how).save(path)
        return Calibration.load(path)

    def with_opinion_of(self, second: Target, family: tuple[versions.Version, ...]) -> Calibration:
        """With the second opinion, asked in a pass of its own about the same volumes."""
        path = self._file(f"second-{second.name}-{second.sha256[:8]}")
        if not _is_of(path, family):
            alone, rows = self.calibration(family), Rows(self.setting.target, self._volumes, seed=self._seed)
            with_second_opinion(alone, rows, second, **self._how("Asking for a second opinion")).save(path)
        return Calibration.load(path)

    @property
    def _seed(self) -> int:
        return self.setting.seed + 1000 * self.number

    @property
    def _volumes(self) -> list[tuple[str, Volume]]:
        return [self.setting.clean[self.number]]

    def _file(self, kind: str) -> Path:
        self.setting.folder.mkdir(parents=True, exist_ok=True)
        return self.setting.folder / f"{kind}-{self.number:02d}-{self.setting.clean[self.number][0]}.json"

    def _how(self, what: str) -> dict[str, Any]:
        def progress(fraction: float, step: str) -> None:
            self.setting.progress((self.number + fraction) / len(self.setting.clean), f"{what}: {step}")

        return {"progress": progress, "cancelled": self.setting.cancelled}


def _is_of(path: Path, family: tuple[versions.Version, ...]) -> bool:
    """Whether a calibration was made before, and with the family of today."""
    return path.exists() and Calibration.load(path).versions == family


def joined(parts: list[Calibration], name: str) -> Calibration:
    """One calibration of the rows of several that were made alike."""
    return replace(
        parts[0],
        name=name,
        subjects=tuple(subject for part in parts for subject in part.subjects),
        shift_names=tuple(shift for part in parts for shift in part.shift_names),
        disagreements=np.concatenate([part.disagreements for part in parts]),
        dispersions=np.concatenate([part.dispersions for part in parts]),
        features=np.concatenate([part.features for part in parts]),
        profiles=np.concatenate([part.profiles for part in parts]),
        second=_joined_opinion([part.second for part in parts if part.second]),
    )


def _joined_opinion(parts: list[SecondOpinion]) -> SecondOpinion | None:
    if not parts:
        return None
    return replace(parts[0], contradictions=np.concatenate([part.contradictions for part in parts]))


def _family(setting: Setting, learned: bool) -> tuple[versions.Version, ...]:
    kind = "learned-versions" if learned else "versions"
    path = setting.folder / f"{kind}-{families.REVISION}.json"
    if not path.exists():
        if setting.cancelled():
            raise Cancelled
        volumes = [volume for _, volume in setting.clean]
        chosen = families.choose(
            setting.target,
            volumes,
            learned=learned,
            seed=setting.seed,
            progress=setting.progress,
            cancelled=setting.cancelled,
        )
        write_text(path, json.dumps([versions.to_json(version) for version in chosen]))
    return tuple(versions.from_json(version) for version in json.loads(path.read_text()))
