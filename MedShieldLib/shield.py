"""The shield: converter, detector and reformer in front of a target.

`Shield.check_and_segment` is the one way through which every face (command line, Slicer, browser, Python)
checks a volume.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from MedShieldLib import __version__, detector, heatmap, reformer
from MedShieldLib.agreement import compare
from MedShieldLib.calibration import Calibration
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.observation import IsCancelled, Observation, Progress, observe
from MedShieldLib.result import (
    CalibrationInfo,
    CheckResult,
    EvidenceItem,
    SpectrumProfile,
    TargetInfo,
    Verdict,
)
from MedShieldLib.stopwatch import Stopwatch
from MedShieldLib.targets.base import Target
from MedShieldLib.volume import Segmentation, Volume

# The evidence that decides when another target was asked as well.
FUSED = "instability or second opinion"
_SHARE_OF_OBSERVING = 0.9  # of the progress bar


class Shield:
    """Checks volumes before a target's segmentation is believed.

    Args:
        target: the model under protection.
        calibration: made for this target with its present weights.
        alpha: accepted rate of false alarms, in (0, 1).
        seed: of the random versions; None draws a fresh one for every check, which an attacker cannot know.
        second: another target, built or trained otherwise, that gives a second opinion; the calibration must
            hold its opinion of the clean volumes. None asks nobody else.

    Raises:
        InputError: if alpha or seed is out of range, or the calibration belongs to another target, or to
            another second one.
    """

    def __init__(
        self,
        target: Target,
        calibration: Calibration,
        *,
        alpha: float = 0.05,
        seed: int | None = None,
        second: Target | None = None,
    ) -> None:
        if not 0 < alpha < 1:
            raise InputError(f"The alarm rate alpha is {alpha}; give a number between 0 and 1, such as 0.05.")
        if seed is not None and seed < 0:
            raise InputError(f"The seed is {seed}; give a whole number that is not negative.")
        calibration.require_target(target)
        if second is not None:
            calibration.require_second(second)
        self.target, self.calibration, self.alpha, self.seed = target, calibration, alpha, seed
        self.second = second

    @classmethod
    def for_target(
        cls,
        target: Target,
        calibration: Calibration | str | Path | None = None,
        *,
        alpha: float = 0.05,
        seed: int | None = None,
        versions: int | None = None,
        second: Target | None = None,
    ) -> Shield:
        """A shield with a given calibration (or its file), or with the one that ships for the target.

        Args:
            target: the model under protection.
            calibration: made for it, or the file of one; None takes the one that ships.
            alpha: accepted rate of false alarms, in (0, 1).
            seed: of the random versions; None draws a fresh one for every check.
            versions: how many of the family to use, 2 or more: fewer are faster, and easier to fool. None
                takes all.
            second: another target that gives a second opinion.

        Raises:
            InputError: if there is no such calibration or it belongs to other targets, or a number is out
                of range.
        """
        if calibration is None:
            calibration = Calibration.shipped(target)
        elif not isinstance(calibration, Calibration):
            calibration = Calibration.load(calibration)
        if versions is not None:
            calibration = calibration.limited(versions)
        return cls(target, calibration, alpha=alpha, seed=seed, second=second)

    @property
    def clean_scores(self) -> np.ndarray:
        """(N,) attack scores of clean volumes: instability, fused with the second opinion if there is one."""
        return self.calibration.instability if self.second is None else self.calibration.fused

    def check_and_segment(
        self, volume: Volume, progress: Progress | None = None, cancelled: IsCancelled | None = None
    ) -> CheckResult:
        """Check a volume and segment it, defended where it was not clean.

        Raises:
            InputError: if the volume cannot be checked.
            Cancelled: when `cancelled()` says so.
        """
        progress, cancelled = progress or (lambda fraction, step: None), cancelled or (lambda: False)
        seed = secrets.randbits(32) if self.seed is None else self.seed
        watch = Stopwatch()
        with watch.of("total"):
            volume.require_checkable()
            seen = observe(
                self.target,
                volume,
                self.calibration.versions,
                seed,
                lambda fraction, step: progress(_SHARE_OF_OBSERVING * fraction, step),
                cancelled,
                self.second,
            )
            p_attack, p_novelty = self._p_values(seen)
            verdict = detector.verdict(p_attack, p_novelty, self.alpha)
            if cancelled():
                raise Cancelled
            progress(_SHARE_OF_OBSERVING, "Comparing the segmentations")
            with ThreadPoolExecutor(1) as aside:  # a hash keeps one core busy, and most label maps another
                hashed = aside.submit(volume.sha256)
                with watch.of("labels"):
                    original = self._segmentation(seen.answer, volume)
                    # The target's own answer, bit for bit, where nothing is wrong.
                    defended = self._repaired(seen, volume) if self._mends(verdict) else original
                with watch.of("hash"):  # what is left of it
                    input_sha256 = hashed.result()
            with watch.of("agreement"):
                structures = compare(original, defended)
            with watch.of("heatmap"):
                heat = heatmap.combined(seen.source, seen.unrest)
        progress(1.0, "Checked")
        return CheckResult(
            volume=volume,
            verdict=verdict,
            p_attack=p_attack,
            p_novelty=p_novelty,
            alpha=self.alpha,
            evidence=self._evidence(seen),
            structures=structures,
            original=original,
            defended=defended,
            reformed=seen.reformed,
            heatmap=heat,
            spectrum=self._spectrum(seen),
            timings_s={**seen.timings_s, **watch.seconds},
            target=TargetInfo(self.target.name, self.target.sha256),
            calibration=self._calibration_info(),
            input_sha256=input_sha256,
            seed=seed,
            version=__version__,
            notes=self._notes(),
            second=None if self.second is None else TargetInfo(self.second.name, self.second.sha256),
        )

    def attack_score(self, seen: Observation) -> float:
        """The score that `clean_scores` is to be compared with."""
        instability = self.calibration.normaliser.instability(seen.disagreements, seen.dispersions)
        if self.second is None or seen.contradictions is None:
            return float(instability)
        return float(self.calibration.fusion.fused(instability, seen.contradictions))

    def _novelty(self, seen: Observation) -> float:
        if set(seen.features) != set(self.calibration.feature_names):
            raise InputError(
                f"Calibration '{self.calibration.name}' measures other features than this version of "
                "MedShield; make a new one with medshield calibrate."
            )
        features = np.array([seen.features[name] for name in self.calibration.feature_names])
        return float(self.calibration.normaliser.novelty(features))

    def _p_values(self, seen: Observation) -> tuple[float, float]:
        clean = self.calibration
        return (
            detector.p_attack(self.attack_score(seen), self.clean_scores, clean.subjects),
            detector.p_value(self._novelty(seen), clean.novelty, clean.subjects),
        )

    def _evidence(self, seen: Observation) -> tuple[EvidenceItem, ...]:
        """The two scores that decide first, then what went into them."""
        clean, scale = self.calibration, self.calibration.normaliser
        name = "instability" if seen.contradictions is None else FUSED
        items = [
            _item(name, "instability", self.attack_score(seen), self.clean_scores),
            _item("novelty", "novelty", self._novelty(seen), clean.novelty),
        ]
        if seen.contradictions is not None:
            instability = float(scale.instability(seen.disagreements, seen.dispersions))
            contradiction = float(clean.fusion.contradiction(seen.contradictions))
            items.append(_item("instability", "instability", instability, clean.instability))
            items.append(_item("second opinion", "instability", contradiction, clean.contradiction))
        spread = float(scale.spread(seen.dispersions).mean())
        items.append(_item("versions among themselves", "instability", spread, clean.spread))
        lopsided = scale.asymmetry(seen.disagreements)
        if lopsided is not None and clean.asymmetry is not None:
            items.append(_item("nudge over its opposite", "instability", float(lopsided), clean.asymmetry))
        for n, value in enumerate(scale.per_version(seen.disagreements)):
            name = f"{clean.versions[n].kind.replace('_', ' ')} version"
            items.append(_item(name, "instability", float(value), clean.per_version[:, n]))
        for n, name in enumerate(clean.feature_names):
            items.append(_item(name, "novelty", seen.features[name], clean.features[:, n]))
        return tuple(items)

    def _spectrum(self, seen: Observation) -> SpectrumProfile:
        edges, (low, high) = detector.PROFILE_EDGES, self.calibration.profile_band()
        return SpectrumProfile((edges[1:] + edges[:-1]) / 2, seen.profile - seen.profile[1], low, high)

    def _mends(self, verdict: Verdict) -> bool:
        """Whether another segmentation than the target's own is recommended."""
        return verdict is not Verdict.CLEAN

    def _repaired(self, seen: Observation, volume: Volume) -> Segmentation:
        """The vote, where the answer stands alone, and beyond it as far as clean volumes do not explain."""
        instability = self.calibration.normaliser.instability(seen.disagreements, seen.dispersions)
        share = detector.unexplained(float(instability), self.calibration.instability)
        where = reformer.standing_alone(seen.vote, seen.answer, seen.scatter, share)
        return self._segmentation(reformer.repaired(seen.vote, seen.answer, where, share), volume)

    def _segmentation(self, probabilities: np.ndarray, volume: Volume) -> Segmentation:
        return Segmentation(
            volume.with_voxels(self.target.labelmap(probabilities, volume)), tuple(self.target.structures)
        )

    def _calibration_info(self) -> CalibrationInfo:
        c = self.calibration
        return CalibrationInfo(c.name, c.sha256, c.n_subjects, len(c.subjects))

    def _notes(self) -> tuple[str, ...]:
        support = self.calibration.support(self.alpha)
        return (support,) if support else ()


def _item(name: str, kind: str, value: float, clean: np.ndarray) -> EvidenceItem:
    return EvidenceItem(name, kind, value, 100 * float(np.mean(clean < value)), np.sort(clean))
