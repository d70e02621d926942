"""Something to do when the event loop runs again, for instance when new widgets have got their size."""

from __future__ import annotations

from collections.abc import Callable

import qt


def later(owner: qt.QObject, action: Callable[[], None]) -> None:
    """Call `action` once from the event loop, unless `owner` is deleted before."""
    timer = qt.QTimer(owner)
    timer.setSingleShot(True)
    timer.connect("timeout()", action)
    timer.connect("timeout()", timer.deleteLater)
    timer.start(0)
