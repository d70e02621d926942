"""The section that calibrates the chosen target on a folder of clean volumes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import slicer.util

from MedShieldLib.panel.paths import on_path
from MedShieldLib.slicer.session import Session
from MedShieldLib.slicer.text import _


class CalibrationSection:
    """Starts a calibration, and chooses its file when it is ready.

    Args:
        ui: the panel's widgets.
        session: has the jobs.
        start: start(launch, done) starts a job; done() is called if it ends well.
        changed: called when the folder has changed, or a job was cancelled.
    """

    def __init__(
        self, ui: Any, session: Session, start: Callable[..., None], changed: Callable[[], None]
    ) -> None:
        self._ui, self._session, self._start, self._changed = ui, session, start, changed
        self._values: Any = None
        ui.calibrateButton.connect("clicked(bool)", self.on_button)
        on_path(ui.cleanFolderPathLineEdit, changed)

    @property
    def has_folder(self) -> bool:
        """Whether there is a folder of clean volumes."""
        return bool(self._ui.cleanFolderPathLineEdit.currentPath.strip())

    def show(self, values: Any) -> None:
        """Work for a parameter node; None for no node."""
        self._values = values

    def on_button(self) -> None:
        """Start or cancel; asks before a file is replaced."""
        if self._session.job:
            self._session.cancel()
            self._changed()
            return
        target = self._values.target
        clean = Path(self._ui.cleanFolderPathLineEdit.currentPath)
        given = self._ui.calibrationOutputPathLineEdit.currentPath
        file = Path(given) if given else clean / f"medshield-{Path(target).stem}.json"
        if not file.exists() or slicer.util.confirmYesNoDisplay(_("Replace {file}?").format(file=file)):
            self._start(partial(self._session.calibrate, clean, file), partial(self._choose, file, target))

    def _choose(self, file: Path, target: str) -> None:
        if self._values and self._values.target == target:  # else the scene was closed meanwhile
            self._values.calibration = str(file)
