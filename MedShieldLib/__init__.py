"""MedShield: keeps medical image segmentation honest when somebody tampers with the scan.

The public names live here and are loaded on first use, so that importing the package stays cheap
inside 3D Slicer (no torch, no PyWavelets until something runs).
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "Volume": "MedShieldLib.volume",
    "Segmentation": "MedShieldLib.volume",
    "Shield": "MedShieldLib.shield",
    "CheckResult": "MedShieldLib.result",
    "Verdict": "MedShieldLib.result",
    "load_target": "MedShieldLib.targets",
    "InputError": "MedShieldLib.errors",
    "Cancelled": "MedShieldLib.errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
