"""What a calibration lacks, added to it: its rows, which took long, are not redone.

The volumes have to be those that it was made of, under the same shifts and with the same seed. Only stand-ins
may be fewer than then, where they are not kept: the target itself answers for what it was trained on, and is
steadier there than on new volumes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from MedShieldLib import converter, second_opinion
from MedShieldLib.calibration import Calibration, SecondOpinion
from MedShieldLib.clean_rows import Row, Rows
from MedShieldLib.detector import PROFILE_EDGES, disagreement
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.families import BESIDE_NUDGES, NUDGES
from MedShieldLib.observation import IsCancelled, Progress
from MedShieldLib.targets.base import Target, answer_of
from MedShieldLib.versions import Source, votes

# Radial profiles (log10 power) of one volume, measured twice, differ by less; those of another one by more.
_SAME_POWER = 2e-3


def with_second_opinion(
    calibration: Calibration,
    rows: Rows,
    second: Target,
    *,
    progress: Progress = lambda fraction, step: None,
    cancelled: IsCancelled = lambda: False,
) -> Calibration:
    """A calibration with a second opinion of the same volumes, by two inferences a row.

    It is what `calibrate` would have made with `second`.

    Raises:
        InputError: if `calibration` was not made of `rows`, or one cannot be segmented.
        Cancelled: when `cancelled()` says so.
    """
    contradictions = [
        second_opinion.contradictions(row.target, answer, second, row.volume, row.seed)
        for row, answer in _answered(calibration, rows, progress, cancelled)
    ]
    return replace(calibration, second=SecondOpinion.of_targets(rows.target, second, contradictions))


def with_nudges(
    calibration: Calibration,
    rows: Rows,
    *,
    progress: Progress = lambda fraction, step: None,
    cancelled: IsCancelled = lambda: False,
) -> Calibration:
    """A calibration of a family without nudges, seen through its first voting versions and nudges.

    By three inferences a row. It is what `calibrate` would have made with that family.

    Raises:
        InputError: if `calibration` was not made of `rows`, or one cannot be segmented.
        Cancelled: when `cancelled()` says so.
    """
    kept = [n for n, version in enumerate(calibration.versions) if votes(version)][:BESIDE_NUDGES]
    moved = [
        _moved_by_nudges(row, answer, cancelled)
        for row, answer in _answered(calibration, rows, progress, cancelled)
    ]
    return calibration.through(kept).nudged(NUDGES, np.array(moved))


def _moved_by_nudges(row: Row, answer: np.ndarray, cancelled: IsCancelled) -> list[np.ndarray]:
    """(S,) disagreements of the answer to a row and those to both nudges of it."""
    source = Source(row.volume, row.target.grid(row.volume), row.target.finest_mm, row.seed)
    found = []
    for nudge in NUDGES:
        if cancelled():
            raise Cancelled
        drawn = nudge.draw(source, np.random.default_rng(row.seed))
        found.append(disagreement(answer, answer_of(row.target, drawn.volume)))
    return found


def _answered(
    calibration: Calibration, rows: Rows, progress: Progress, cancelled: IsCancelled
) -> Iterator[tuple[Row, np.ndarray]]:
    """The rows that a calibration was made of, each with the answer to it."""
    calibration.require_target(rows.target)
    if (rows.subjects, rows.shift_names) != (calibration.subjects, calibration.shift_names):
        raise InputError(
            f"Calibration '{calibration.name}' was not made of these volumes under these shifts; give the "
            "ones it was made of."
        )
    for n, row in enumerate(rows.each(progress)):
        if cancelled():
            raise Cancelled
        _require_same(calibration, n, row)
        yield row, answer_of(row.target, row.volume)


def _require_same(calibration: Calibration, n: int, row: Row) -> None:
    """Refuse a volume other than that which row `n` was made of."""
    profile = converter.radial_profile(converter.Spectrum.of(row.volume), PROFILE_EDGES)
    if not np.allclose(profile, calibration.profiles[n], rtol=0, atol=_SAME_POWER, equal_nan=True):
        raise InputError(
            f"Calibration '{calibration.name}' saw another volume for {calibration.subjects[n]} "
            f"({calibration.shift_names[n]}); give the data and the seed that it was made with."
        )
