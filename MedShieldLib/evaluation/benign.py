"""The benign shifts at the strength at which the benchmark counts false alarms.

What they do is in `MedShieldLib/shifts.py`; calibration uses some of them, milder.
"""

from __future__ import annotations

from functools import partial

from MedShieldLib import shifts
from MedShieldLib.shifts import Shift

SHIFTS: dict[str, Shift] = {
    "rician-noise-1": partial(shifts.rician_noise, percent=(1.0, 1.0)),
    "rician-noise-3": partial(shifts.rician_noise, percent=(3.0, 3.0)),
    "bias-field": partial(shifts.bias_field, strength=0.3),
    "gamma": partial(shifts.gamma, log_gamma=0.35),
    "blur": partial(shifts.blur, sigma_mm=(0.8, 1.5)),
    "sharpening": shifts.sharpening,
    "resampling": shifts.resampling,
    "matrix-size": shifts.matrix_size,
    "anisotropy": partial(shifts.anisotropy, factor=(2.0, 3.0)),
    "rotation": partial(shifts.rotation, degrees=10.0),
    "motion": partial(shifts.motion, degrees=4.0, mm=4.0),
    "ghosting": partial(shifts.ghosting, intensity=(0.2, 0.5)),
    "spike": partial(shifts.spike, intensity=(0.1, 0.3)),
    "eight-bit": shifts.eight_bit,
    "jpeg": partial(shifts.jpeg, quality=(30.0, 75.0)),
    "contrast-agent": shifts.contrast_agent,
    "scanner": shifts.scanner,
    "contrast": shifts.contrast,
}
