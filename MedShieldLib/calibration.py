"""Calibration: the distribution of the evidence on clean volumes of one protocol, for one target.

Built from clean volumes and benign shifts of them, stored as JSON; never looks at an attack.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np

from MedShieldLib import shifts
from MedShieldLib.clean_opinion import SecondOpinion
from MedShieldLib.clean_rows import Rows
from MedShieldLib.detector import PROFILE_EDGES, Normaliser, pairs
from MedShieldLib.digits import rounded, stored
from MedShieldLib.effort import QUICK
from MedShieldLib.errors import InputError
from MedShieldLib.fusion import Fusion
from MedShieldLib.observation import IsCancelled, Progress, observe
from MedShieldLib.result import can_alarm
from MedShieldLib.targets.base import Target
from MedShieldLib.versions import Moved, Version, from_json, nudges, to_json, votes
from MedShieldLib.volume import Volume

SCHEMA = "medshield-calibration/2"
_DATA = Path(__file__).parent / "data"
# After the point, in files: what nudges do to an answer is small, and matters to within a hundredth of it.
_FINE_DIGITS = 8
_MUST_BE_FINITE = ("disagreements", "dispersions", "features")


@dataclass(frozen=True)
class Calibration:
    """Evidence on N clean volumes (subjects x benign shifts).

    Attributes:
        name: shown to the user.
        target_name, target_sha256: the target that answered.
        versions: the family that was drawn; a check draws the same kinds.
        subjects, shift_names: for each of the N rows.
        disagreements: (N, V, S).
        dispersions: (N, P, S), see `detector.dispersions`.
        feature_names, features: (F,) and (N, F).
        profiles: (N, B) log10 power per shell of `detector.PROFILE_EDGES`, NaN where there was none.
        second: that of another target about the same volumes, if it was asked.
    """

    name: str
    target_name: str
    target_sha256: str
    versions: tuple[Version, ...]
    subjects: tuple[str, ...]
    shift_names: tuple[str, ...]
    disagreements: np.ndarray = field(repr=False)
    dispersions: np.ndarray = field(repr=False)
    feature_names: tuple[str, ...]
    features: np.ndarray = field(repr=False)
    profiles: np.ndarray = field(repr=False)
    second: SecondOpinion | None = None

    @property
    def n_subjects(self) -> int:
        """How many different subjects."""
        return len(set(self.subjects))

    @cached_property
    def normaliser(self) -> Normaliser:
        """The scale of clean evidence over all rows."""
        return Normaliser.fit(self.disagreements, self.dispersions, self.features, nudges(self.versions))

    @cached_property
    def fusion(self) -> Fusion:
        """The scale of the second opinion over all rows; there must be one."""
        assert self.second is not None
        own = self.normaliser.instability(self.disagreements, self.dispersions)
        return Fusion.fit(own, self.second.contradictions)

    @cached_property
    def instability(self) -> np.ndarray:
        """(N,) clean scores, each on a scale fitted without its own subject (cross-conformal, Vovk 2015)."""
        return self._left_out(
            lambda others, mine: others.normaliser.instability(mine.disagreements, mine.dispersions)
        )

    @cached_property
    def novelty(self) -> np.ndarray:
        """(N,) clean scores, likewise."""
        return self._left_out(lambda others, mine: others.normaliser.novelty(mine.features))

    @cached_property
    def contradiction(self) -> np.ndarray:
        """(N,) clean scores of the second opinion, likewise."""
        return self._left_out(lambda others, mine: others.fusion.contradiction(_contradictions(mine)))

    @cached_property
    def fused(self) -> np.ndarray:
        """(N,) clean scores of instability and second opinion together, likewise."""
        return self._left_out(
            lambda others, mine: others.fusion.fused(
                others.normaliser.instability(mine.disagreements, mine.dispersions), _contradictions(mine)
            )
        )

    @cached_property
    def per_version(self) -> np.ndarray:
        """(N, V) clean relative disagreement per version."""
        return self.normaliser.per_version(self.disagreements)

    @cached_property
    def spread(self) -> np.ndarray:
        """(N,) clean relative dispersion of the versions, averaged over structures."""
        return self.normaliser.spread(self.dispersions).mean(-1)

    @cached_property
    def asymmetry(self) -> np.ndarray | None:
        """(N,) what a nudge does to clean volumes, as a multiple of what its opposite does."""
        return self.normaliser.asymmetry(self.disagreements)

    @cached_property
    def sha256(self) -> str:
        """Hash of the stored form."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def limited(self, count: int) -> Calibration:
        """The same clean volumes seen through `count` versions of the family; all of it if it has no more.

        Two are the quick family: the last version in place that is no nudge, and the volume moved, or where
        nothing is moved the first version. From four on come the nudges, which are worth nothing alone, then
        the others in their order. The second one always votes.

        Raises:
            InputError: if `count` is below 2, or a larger family has nothing in place.
        """
        if count < QUICK:
            raise InputError(f"A check cannot do with {count} versions of the volume; take {QUICK} or more.")
        if count >= len(self.versions):
            return self
        compared = range(len(self.versions) - nudges(self.versions))
        moved = [n for n in compared if isinstance(self.versions[n], Moved)]
        in_place = [n for n in compared if n not in moved]
        if not in_place:
            raise InputError(
                f"Calibration '{self.name}' cannot do with fewer versions of the volume; take all of them."
            )
        first = [in_place[-1], (moved or in_place)[0]]
        pushes = range(len(compared), len(self.versions)) if count >= QUICK + nudges(self.versions) else ()
        others = [n for n in compared if n not in first]
        kept = sorted([*first, *pushes, *others][:count])
        name = f"{self.name} ({'quick' if count == QUICK else f'{count} versions'})"
        return replace(self._through(kept), name=name)

    def profile_band(self) -> tuple[np.ndarray, np.ndarray]:
        """5 and 95 % quantiles of the clean profiles, relative to their first shells; NaN where unknown."""
        relative = self.profiles - self.profiles[:, 1:2]
        seen = np.isfinite(relative).sum(0) >= max(3, len(relative) // 5)
        low, high = np.full(relative.shape[1], np.nan), np.full(relative.shape[1], np.nan)
        if seen.any():
            low[seen], high[seen] = np.nanquantile(relative[:, seen], [0.05, 0.95], axis=0)
        return low, high

    def support(self, alpha: float) -> str | None:
        """A sentence when the calibration is too small for `alpha`, else None."""
        n_scores, n_shifts = len(self.subjects), len(set(self.shift_names))
        if not can_alarm(alpha, n_scores):
            return (
                f"The calibration holds {n_scores} clean scores; an alarm rate of {alpha:.3g} needs at least "
                f"{int(np.ceil(1 / alpha)) - 1}, so no volume can be called suspicious: calibrate on more "
                "volumes."
            )
        if alpha * (self.n_subjects + 1) < 1:
            return (
                f"The calibration holds {self.n_subjects} subjects, seen under {n_shifts} benign shifts; "
                f"without counting the shifts it supports alarm rates down to "
                f"{1 / (self.n_subjects + 1):.2f}, so read {alpha:.3g} as approximate."
            )
        return None

    def save(self, path: str | Path) -> Path:
        """Write as JSON, whole or not at all.

        Raises:
            InputError: if the file cannot be written.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.part")
        try:
            try:
                temporary.write_text(self._text(), encoding="utf-8")
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}); choose another place.") from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a stored calibration.

        Raises:
            InputError: if the file is missing or is no calibration of this version.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if data.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            for name in ("disagreements", "dispersions", "features", "profiles"):
                data[name] = np.array(data[name], dtype=float)
            n, _, structures = data["disagreements"].shape
            data["dispersions"] = data["dispersions"].reshape(n, -1, structures)  # of one version: no pairs
            for name in ("subjects", "shift_names", "feature_names"):
                data[name] = tuple(data[name])
            data["versions"] = tuple(from_json(v) for v in data["versions"])
            if "second" in data:
                data["second"] = SecondOpinion.read(data["second"])
            calibration = cls(**data)
            calibration._require_consistent()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); name a calibration file.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is not a MedShield calibration; make one with medshield calibrate."
            ) from error
        return calibration

    @classmethod
    def shipped(cls, target: Target) -> Calibration:
        """The calibration that ships for a built-in target.

        Raises:
            InputError: if none ships for it.
        """
        if not cls.ships_for(target.name):
            raise InputError(
                f"No calibration ships for target '{target.name}'; make one with medshield calibrate FOLDER."
            )
        return cls.load(_shipped_file(target.name))

    @staticmethod
    def ships_for(target_name: str) -> bool:
        """Whether a calibration ships for the target of that name."""
        return _shipped_file(target_name).exists()

    def require_target(self, target: Target) -> None:
        """Refuse to judge a target that this calibration was not made for.

        Raises:
            InputError: if name or weights differ.
        """
        if (self.target_name, self.target_sha256) != (target.name, target.sha256):
            raise InputError(
                f"Calibration '{self.name}' was made for target '{self.target_name}' with other weights than "
                f"the '{target.name}' given; run medshield calibrate for this one."
            )

    def require_second(self, second: Target) -> None:
        """Refuse a second target whose clean contradictions are not here.

        Raises:
            InputError: if there is no second opinion, or that of another target or of other weights.
        """
        known = self.second and (self.second.target_name, self.second.target_sha256)
        if known != (second.name, second.sha256):
            raise InputError(
                f"Calibration '{self.name}' holds no second opinion of the '{second.name}' given; calibrate "
                "with that second opinion chosen (on the command line: medshield calibrate --second-opinion)."
            )

    def of(self, rows: np.ndarray) -> Calibration:
        """Only some rows, by a boolean array (N,)."""
        return replace(
            self,
            subjects=tuple(np.array(self.subjects)[rows]),
            shift_names=tuple(np.array(self.shift_names)[rows]),
            disagreements=self.disagreements[rows],
            dispersions=self.dispersions[rows],
            features=self.features[rows],
            profiles=self.profiles[rows],
            second=self.second and self.second.of(rows),
        )

    def _through(self, kept: Sequence[int]) -> Calibration:
        """The same clean volumes seen through some versions of the family, by their places in it."""
        compared = range(len(self.versions) - nudges(self.versions))
        columns = pairs(len(compared))
        paired = combinations([n for n in kept if n in compared], 2)
        return replace(
            self,
            versions=tuple(self.versions[n] for n in kept),
            disagreements=self.disagreements[:, list(kept)],
            dispersions=self.dispersions[:, [columns.index(pair) for pair in paired]],
        )

    def _left_out(self, score: Callable[[Calibration, Calibration], np.ndarray]) -> np.ndarray:
        """`score(others, mine)` for the rows of each subject, which those of all others must judge."""
        subjects, scores = np.array(self.subjects), np.empty(len(self.subjects))
        for subject in set(self.subjects):
            mine = subjects == subject
            others = ~mine if (~mine).any() else mine
            scores[mine] = score(self.of(others), self.of(mine))
        return scores

    def _require_consistent(self) -> None:
        n = len(self.subjects)
        structures, shells = self.disagreements.shape[-1], len(PROFILE_EDGES) - 1
        wanted = {
            "disagreements": (n, len(self.versions), structures),
            "dispersions": (n, len(pairs(len(self.versions) - nudges(self.versions))), structures),
            "features": (n, len(self.feature_names)),
            "profiles": (n, shells),
        }
        if any(getattr(self, name).shape != shape for name, shape in wanted.items()):
            raise ValueError("arrays of other shapes")
        if len(self.shift_names) != n or n == 0:
            raise ValueError("arrays of different lengths")
        if not any(map(votes, self.versions)):
            raise ValueError("nothing to vote with")
        if not all(np.isfinite(getattr(self, name)).all() for name in _MUST_BE_FINITE):
            raise ValueError("not finite")
        if self.second is not None:
            shape = (n, len(self.second.structures), 2)
            if self.second.contradictions.shape != shape or not self.second.structures:
                raise ValueError("contradictions of another shape")
            if not np.isfinite(self.second.contradictions).all():
                raise ValueError("not finite")

    def _text(self) -> str:
        # A file without a second opinion is written as it always was, so that its hash stays.
        second = {} if self.second is None else {"second": self.second.plain()}
        return json.dumps(
            {
                "schema": SCHEMA,
                "name": self.name,
                "target_name": self.target_name,
                "target_sha256": self.target_sha256,
                "versions": [to_json(v) for v in self.versions],
                "subjects": self.subjects,
                "shift_names": self.shift_names,
                "feature_names": self.feature_names,
                "disagreements": rounded(self.disagreements, _FINE_DIGITS),
                "dispersions": rounded(self.dispersions),
                "features": rounded(self.features),
                "profiles": rounded(self.profiles),
                **second,
            }
        )


def calibrate(
    target: Target,
    volumes: Sequence[tuple[str, Volume]],
    versions: Sequence[Version],
    *,
    name: str = "",
    augmentations: Sequence[shifts.Shift] = shifts.CALIBRATION,
    per_volume: int | None = None,
    stand_ins: Mapping[str, Target] | None = None,
    second: Target | None = None,
    seed: int = 0,
    progress: Progress = lambda fraction, step: None,
    cancelled: IsCancelled = lambda: False,
) -> Calibration:
    """Observe clean volumes, each under benign shifts.

    Args:
        target: the target that answers.
        volumes: (subject, volume) pairs.
        versions: the family to draw; `families.choose` picks one that suits the target.
        name: shown to the user; "" makes one of the target's name and the number of volumes.
        augmentations: the benign shifts, see `clean_rows.Rows` for these and the next two.
        per_volume: how many of them each volume is seen under; None takes all.
        stand_ins: by subject, targets that answer in place of `target`.
        second: another target that gives its opinion of every volume as well.
        seed: of the shifts and of the draws.
        progress: called as progress(fraction, step).
        cancelled: asked before every inference.

    Raises:
        InputError: if there are no volumes, or one cannot be segmented.
        Cancelled: when `cancelled()` says so.
    """
    disagreements, dispersions, features, profiles, contradictions = (
        [],
        [],
        [],
        [],
        [],
    )  # and not the observations, which hold whole volumes
    rows = Rows(
        target,
        volumes,
        augmentations=augmentations,
        per_volume=per_volume,
        stand_ins=stand_ins,
        seed=seed,
    )
    for row in rows.each(progress):
        seen = observe(row.target, row.volume, versions, row.seed, cancelled=cancelled, second=second)
        disagreements.append(seen.disagreements)
        dispersions.append(seen.dispersions)
        features.append(seen.features)
        profiles.append(seen.profile)
        contradictions.append(seen.contradictions)
    return Calibration(
        name or f"{target.name}, {len(volumes)} volumes",
        target.name,
        target.sha256,
        tuple(versions),
        rows.subjects,
        rows.shift_names,
        stored(np.array(disagreements), _FINE_DIGITS),
        stored(np.array(dispersions)),
        tuple(features[0]),
        stored(np.array([list(row.values()) for row in features])),
        stored(np.array(profiles)),
        None if second is None else SecondOpinion.of_targets(target, second, contradictions),
    )


def _shipped_file(target_name: str) -> Path:
    return _DATA / f"{target_name}.calibration.json"


def _contradictions(calibration: Calibration) -> np.ndarray:
    assert calibration.second is not None
    return calibration.second.contradictions
