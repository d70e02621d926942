"""MedShield itself as one of the benchmark's defences, with the calibration that ships or one made here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import numpy as np

from MedShieldLib import reformer, versions
from MedShieldLib.calibration import Calibration, calibrate
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.evaluation.baselines import write_text
from MedShieldLib.evaluation.defence import Asked, Opinion, Setting
from MedShieldLib.shield import Shield
from MedShieldLib.volume import Volume

# The family of versions is chosen on so many clean volumes.
_ENOUGH = 3
# At this alarm rate every volume is defended, so that one check tells what the gate and the reformer do.
_ALWAYS = 1 - 1e-9


@dataclass(frozen=True)
class Shielded:
    """The shield with one calibration.

    Attributes:
        calibration: of the target it is asked with.
        name: as in the tables.
    """

    calibration: Calibration = field(repr=False)
    name: str = "shield"
    wants_threshold: bool = False

    @property
    def identity(self) -> str:
        """The calibration's hash."""
        return f"{self.name} {self.calibration.sha256[:16]}"

    def judge(self, target: Asked, volume: Volume, seed: int) -> Opinion:
        """The shield's instability score and p-values, and what it recommends when it is alarmed."""
        shield = Shield(target, self.calibration, alpha=_ALWAYS, seed=seed)
        result = shield.check_and_segment(volume)
        score = next((e.value for e in result.evidence if e.name == "instability"), 1 - result.p_attack)
        return Opinion(score, lambda: result.defended, result.p_attack, result.p_novelty)

    @classmethod
    def limited(cls, calibration: Calibration, versions: int | None, name: str) -> Shielded:
        """With so many of the calibration's versions; None takes all."""
        return cls(calibration if versions is None else calibration.limited(versions), name)


def calibration_for(setting: Setting) -> Calibration:
    """The calibration that ships for the target, if it fits its weights; else one made of the clean volumes.

    Raises:
        Cancelled: when asked to stop; a later call goes on with the next volume.
    """
    try:
        shipped = Calibration.shipped(setting.target)
        shipped.require_target(setting.target)
        return shipped
    except InputError:
        return _made(setting)


def _made(setting: Setting) -> Calibration:
    family = _family(setting)
    rows = []
    for n, (subject, volume) in enumerate(setting.clean):
        path = setting.folder / f"calibration-{n:02d}-{subject}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)

            def part(fraction: float, step: str, n: int = n) -> None:
                setting.progress((n + fraction) / len(setting.clean), f"Calibrating the shield: {step}")

            calibrate(
                setting.target,
                [(subject, volume)],
                family,
                seed=setting.seed + 1000 * n,
                progress=part,
                cancelled=setting.cancelled,
            ).save(path)
        rows.append(Calibration.load(path))
    return joined(rows, f"{setting.target.name}, {len(rows)} volumes")


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
    )


def _family(setting: Setting) -> tuple[versions.Version, ...]:
    path = setting.folder / "versions.json"
    if not path.exists():
        if setting.cancelled():
            raise Cancelled
        volumes = [volume for _, volume in setting.clean[:_ENOUGH]]
        chosen = reformer.choose(
            setting.target, volumes, seed=setting.seed, progress=setting.progress, cancelled=setting.cancelled
        )
        write_text(path, json.dumps([versions.to_json(version) for version in chosen]))
    return tuple(versions.from_json(version) for version in json.loads(path.read_text()))
