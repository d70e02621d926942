"""How often a calibration would call its own clean volumes suspicious, were their subject not part of it.

Run as `python -m MedShieldLib.evaluation.false_alarms [CALIBRATION]`; the default ships with `brain-tissue`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from MedShieldLib.calibration import Calibration
from MedShieldLib.detector import p_attack, p_value
from MedShieldLib.study import exit_code

ALPHA = 0.05


def left_out(
    scores: np.ndarray, subjects: tuple[str, ...], p_of: Callable[..., float] = p_attack
) -> np.ndarray:
    """(N,) p-values of clean scores (N,), each under the scores of the other subjects alone.

    Args:
        scores: of the N volumes.
        subjects: whose they are.
        p_of: `detector.p_attack` for attack scores, `detector.p_value` for others.
    """
    names = np.array(subjects)
    values = np.empty(len(scores))
    for n, (score, subject) in enumerate(zip(scores, subjects, strict=True)):
        others = names != subject
        values[n] = p_of(float(score), scores[others], names[others].tolist())
    return values


@exit_code
def main() -> None:
    """Command line."""
    from MedShieldLib.targets import load_target

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calibration", type=Path, nargs="?", help="default: the one of brain-tissue")
    file = parser.parse_args().calibration
    calibration = Calibration.load(file) if file else Calibration.shipped(load_target("brain-tissue"))
    print(
        f"{calibration.name}: {len(calibration.subjects)} clean scores of {calibration.n_subjects} subjects"
    )
    kinds = {"attack": (calibration.instability, p_attack), "novelty": (calibration.novelty, p_value)}
    if calibration.second is not None:
        kinds[f"attack, with the opinion of {calibration.second.target_name},"] = calibration.fused, p_attack
    for kind, (scores, p_of) in kinds.items():
        alarms = left_out(scores, calibration.subjects, p_of) <= ALPHA
        print(f"{kind} alarms at {ALPHA:.0%}: {alarms.sum()} of {len(alarms)} ({alarms.mean():.1%})")
        whose = Counter(np.array(calibration.subjects)[alarms].tolist())
        if whose:
            print(f"  of {', '.join(f'{subject} ({n})' for subject, n in whose.items())}")
        shifts = np.array(calibration.shift_names)
        for shift in dict.fromkeys(calibration.shift_names):
            these = alarms[shifts == shift]
            print(f"  {shift:<14} {these.sum()} of {len(these)}")


if __name__ == "__main__":
    sys.exit(main())
