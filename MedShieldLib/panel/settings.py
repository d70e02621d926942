"""What the panel remembers between sessions of Slicer: lists of strings among Slicer's settings."""

from __future__ import annotations

import json
from collections.abc import Iterable

import qt
import slicer.util


def read_setting(name: str) -> list[str]:
    """The strings that were stored under a name; empty at first."""
    return json.loads(slicer.util.settingsValue(f"MedShield/{name}", "[]"))


def write_setting(name: str, values: Iterable[str]) -> None:
    """Store strings under a name. As JSON, because Qt makes a bare string of a list of one."""
    qt.QSettings().setValue(f"MedShield/{name}", json.dumps(list(values)))
