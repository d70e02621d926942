"""The banner under the button: the verdict in plain words, or what happened instead of one."""

from __future__ import annotations

from typing import Any

import qt
import slicer

from MedShieldLib.slicer import presenter
from MedShieldLib.slicer.presenter import Banner
from MedShieldLib.slicer.results import Result


class BannerSection:
    """Shows the verdict on the chosen volume; a message takes its place until the user goes on.

    Args:
        label: the widget.
    """

    def __init__(self, label: qt.QLabel) -> None:
        self._label = label
        self._message: Banner | None = None
        self._source: Any = None

    def say(self, message: Banner | None) -> None:
        """Show a message from the next `show` on; None for the verdict."""
        self._message = message

    def show(self, result: Result | None, source: Any) -> None:
        """Show the message, or the verdict of the result of `source`, the chosen volume.

        Another choice ends a message, but not when the volume before has just been deleted: then the message
        is what says so.
        """
        if source is not self._source:
            if self._source is not None and slicer.mrmlScene.IsNodePresent(self._source):
                self._message = None
            self._source = source
        verdict = presenter.verdict_banner(result.data) if result else presenter.nothing_yet()
        banner = self._message or verdict
        self._label.text = banner.html
        self._label.styleSheet = banner.style
