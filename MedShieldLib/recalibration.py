"""A second opinion for a calibration that is there already: its rows, which took long, are not redone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from MedShieldLib import converter, second_opinion
from MedShieldLib.calibration import Calibration
from MedShieldLib.clean_opinion import SecondOpinion
from MedShieldLib.clean_rows import Row, Rows
from MedShieldLib.detector import PROFILE_EDGES
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.observation import IsCancelled, Progress
from MedShieldLib.targets.base import Target, answer_of

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
    """A calibration with a second opinion of the same volumes: two inferences a row, and nothing redone.

    The result is what `calibrate` would have made with `second`, if `rows` are those of `calibration`, with
    the same seed. Only stand-ins may be fewer, where they are not kept: then the target itself answers for
    what it was trained on, and is contradicted a little less than on new volumes.

    Raises:
        InputError: if `calibration` was not made of `rows`, or one cannot be segmented.
        Cancelled: when `cancelled()` says so.
    """
    calibration.require_target(rows.target)
    if (rows.subjects, rows.shift_names) != (calibration.subjects, calibration.shift_names):
        raise InputError(
            f"Calibration '{calibration.name}' was not made of these volumes under these shifts; give the "
            "ones it was made of."
        )
    contradictions = []
    for n, row in enumerate(rows.each(progress)):
        if cancelled():
            raise Cancelled
        _require_same(calibration, n, row)
        answer = answer_of(row.target, row.volume)
        contradictions.append(second_opinion.contradictions(row.target, answer, second, row.volume, row.seed))
    return replace(calibration, second=SecondOpinion.of_targets(rows.target, second, contradictions))


def _require_same(calibration: Calibration, n: int, row: Row) -> None:
    """Refuse a volume other than that which row `n` was made of."""
    profile = converter.radial_profile(converter.Spectrum.of(row.volume), PROFILE_EDGES)
    if not np.allclose(profile, calibration.profiles[n], rtol=0, atol=_SAME_POWER, equal_nan=True):
        raise InputError(
            f"Calibration '{calibration.name}' saw another volume for {calibration.subjects[n]} "
            f"({calibration.shift_names[n]}); give the data and the seed that it was made with."
        )
