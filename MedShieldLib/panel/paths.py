"""Path fields: what CTK's widget for them does not say by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt


def on_path(field: Any, action: Callable[[], None]) -> None:
    """Call `action` whenever the text of a ctkPathLineEdit changes.

    Its own signals are silent while the text does not suit the name filters: from the first deleted letter of
    the file's ending to the empty field.
    """
    field.findChild(qt.QLineEdit).connect("textChanged(QString)", lambda _text: action())
