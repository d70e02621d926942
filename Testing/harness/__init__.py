"""A stand-in for the Slicer application, to run the panel without it: PySide6 as PythonQt, real MRML below.

`boot()` makes the application, `load_module(path)` loads a scripted module as Slicer does. What is a stand-in
and what is real:

    real:       MRML scene, nodes, logics, displayable managers and slicer.util (slicer-core), Qt widgets
    stand-in:   PythonQt's way to speak to Qt (`pythonqt.py`), CTK and qMRML widgets (`widgets.py`), Slicer's
                Python base classes (`bases.py`, `parameters.py`), slicer.app and its views (`application.py`)

With MEDSHIELD_SLICER_PYTHON set to a folder with Slicer's own Python files (Base/Python of its source), its
base classes are used instead; packages are never installed. A passing panel test does not prove that the
panel runs in Slicer; the module's own MedShieldTest, run in Slicer, does.
"""

import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from harness.application import DicomDatabase, boot, finish, load_module, spin, unload  # noqa: E402

MODULE = Path(__file__).resolve().parents[2] / "MedShield" / "MedShield.py"

__all__ = ["MODULE", "DicomDatabase", "boot", "finish", "load_module", "spin", "unload"]
