"""Path fields: what CTK's widget for them does not say by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def on_path(field: Any, action: Callable[[], None]) -> None:
    """Call `action` whenever the text of a ctkPathLineEdit changes.

    `currentPathChanged` alone misses that the user has emptied the field, which is no valid path any more.
    """
    field.connect("currentPathChanged(QString)", lambda _path: action())
    field.connect("validInputChanged(bool)", lambda _valid: action())
