"""Clean volumes of a calibration that the others would not pass: odd ones, or some that are not clean.

With a handful of subjects, a single odd one decides how loud an attack has to be before it is heard. Nothing
is left out by itself: whether scans like it will be checked, only who calibrates can know.
"""

from __future__ import annotations

import numpy as np

from MedShieldLib import detector
from MedShieldLib.calibration import Calibration

# With fewer others, nothing is known of how subjects differ.
_FEWEST_OTHERS = 3


def outliers(calibration: Calibration, alpha: float = 0.05) -> tuple[str, ...]:
    """Subjects whose median attack score would raise an alarm in a calibration on the others alone.

    Args:
        calibration: with subjects whose names tell them apart.
        alpha: accepted rate of false alarms, in (0, 1).
    """
    subjects = np.array(calibration.subjects)
    names = dict.fromkeys(calibration.subjects)
    return tuple(name for name in names if _is_one(calibration, subjects == name, alpha))


def notes(calibration: Calibration, alpha: float = 0.05) -> tuple[str, ...]:
    """A few sentences on each of the `outliers`."""
    subjects = np.array(calibration.subjects)
    return tuple(_note(name, calibration, subjects == name, alpha) for name in outliers(calibration, alpha))


def _note(name: str, calibration: Calibration, mine: np.ndarray, alpha: float) -> str:
    begin = [
        detector.loudest_silent(alpha, made.instability, made.subjects)
        for made in (calibration, calibration.of(~mine))
    ]
    return (
        f"'{name}' would raise an alarm in a calibration on the others alone. Look at it: if it is no clean "
        "scan, or unlike those that you will check, calibrate without it. With it, alarms begin at a score "
        f"of {begin[0]:.2f}, without it at {begin[1]:.2f}, so that weaker attacks are seen."
    )


def _is_one(calibration: Calibration, mine: np.ndarray, alpha: float) -> bool:
    others = calibration.of(~mine)
    if others.n_subjects < _FEWEST_OTHERS:
        return False
    score = float(np.median(calibration.instability[mine]))  # measured on the scale of the others
    return detector.p_attack(score, others.instability, others.subjects) <= alpha
