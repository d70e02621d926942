"""A second opinion for a calibration that is there already: its rows, which took long, are not redone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from MedShieldLib import converter, second_opinion, shifts
from MedShieldLib.calibration import Calibration, Row, Rows, SecondOpinion
from MedShieldLib.detector import PROFILE_EDGES, novelty_features
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.observation import IsCancelled, Progress
from MedShieldLib.targets.base import Target, answer_of
from MedShieldLib.versions import Source
from MedShieldLib.volume import Volume

# Features of one volume and one answer, measured twice, differ by less; those of another answer by more.
_SAME_FEATURE = 2e-3


def with_second_opinion(
    calibration: Calibration,
    target: Target,
    second: Target,
    volumes: Sequence[tuple[str, Volume]],
    *,
    augmentations: Sequence[shifts.Shift] = shifts.CALIBRATION,
    per_volume: int | None = None,
    stand_ins: Mapping[str, Target] | None = None,
    seed: int = 0,
    progress: Progress = lambda fraction, step: None,
    cancelled: IsCancelled = lambda: False,
) -> Calibration:
    """A calibration with a second opinion of the same volumes: two inferences a row, and nothing redone.

    The result is what `calibrate` would have made with `second`. All arguments beside `second` must be those
    with which it made `calibration`.

    Raises:
        InputError: if the volumes are not those that `calibration` was made of, or cannot be segmented.
        Cancelled: when `cancelled()` says so.
    """
    calibration.require_target(target)
    rows = Rows(target, volumes, augmentations, per_volume, stand_ins or {}, seed)
    if (rows.subjects, rows.shift_names) != (calibration.subjects, calibration.shift_names):
        raise InputError(
            f"Calibration '{calibration.name}' was not made of these {len(volumes)} volumes under these "
            "shifts; give the ones it was made of."
        )
    contradictions = []
    for n, row in enumerate(rows.each(progress)):
        if cancelled():
            raise Cancelled
        answer = answer_of(row.target, row.volume)
        _require_same(calibration, n, row, answer)
        contradictions.append(second_opinion.contradictions(row.target, answer, second, row.volume, row.seed))
    return replace(calibration, second=SecondOpinion.of_targets(target, second, contradictions))


def _require_same(calibration: Calibration, n: int, row: Row, answer: np.ndarray) -> None:
    """Refuse a volume or an answer other than that which row `n` was made of."""
    source = Source(row.volume, row.target.grid(row.volume), row.target.finest_mm)
    profile = converter.radial_profile(source.spectrum, PROFILE_EDGES)
    found = novelty_features(profile, source, answer, row.target)
    features = [found.get(name, np.nan) for name in calibration.feature_names]
    if not np.allclose(features, calibration.features[n], rtol=0, atol=_SAME_FEATURE):
        raise InputError(
            f"Calibration '{calibration.name}' saw another volume or asked another network for "
            f"{calibration.subjects[n]} ({calibration.shift_names[n]}); give the data, the seed and the "
            "networks it was made with."
        )
