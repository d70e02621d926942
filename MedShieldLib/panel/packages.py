"""The section on packages: what is installed, installing what is missing, removing what was installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer.util

from MedShieldLib.panel.settings import read_setting, write_setting
from MedShieldLib.slicer import environment
from MedShieldLib.slicer.text import _

_INSTALLED = "Installed"


class PackageSection:
    """Knows which packages are missing, and gets them when the user agrees.

    Args:
        ui: the panel's widgets.
        requirements: file with the requirements of a check.
        changed: called when packages came or went.
    """

    def __init__(self, ui: Any, requirements: str, changed: Callable[[], None]) -> None:
        self._ui, self._changed = ui, changed
        self._requirements = environment.read_requirements(requirements)
        self.missing: list[str] = []
        ui.installButton.connect("clicked(bool)", self.install)
        ui.removeButton.connect("clicked(bool)", self.remove)
        self._look()

    @property
    def removable(self) -> list[str]:
        """Packages that MedShield installed here and that are still there."""
        return environment.removable(read_setting(_INSTALLED))

    def ensure(self, *extra: str) -> None:
        """Make sure that a check's packages are there, and `extra` requirements; asks before installing.

        Raises:
            InputError: if they could not be installed.
        """
        added = environment.ensure([*self._requirements, *extra])
        if added:
            write_setting(_INSTALLED, sorted({*read_setting(_INSTALLED), *added}))
            self._look()
            self._changed()

    def install(self) -> None:
        """The button."""
        with slicer.util.tryWithErrorDisplay(_("Installation failed.")):
            self.ensure()

    def remove(self) -> None:
        """The button."""
        names = self.removable
        question = _("Remove these packages?") + "\n" + ", ".join(names)
        if slicer.util.confirmYesNoDisplay(question):
            with slicer.util.tryWithErrorDisplay(_("Removing failed."), waitCursor=True):
                environment.remove(names)
                write_setting(_INSTALLED, [])
            self._look()
            self._changed()

    def _look(self) -> None:
        self.missing = environment.missing(self._requirements)
        lines = [_("Device: {device}").format(device=environment.device())]
        lines += [f"{k} {v or _('(not installed)')}" for k, v in environment.versions().items()]
        self._ui.environmentLabel.text = "\n".join(lines)
