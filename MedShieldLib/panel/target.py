"""The controls that choose the volume, the target, its calibration and who gives a second opinion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer.util

from MedShieldLib.errors import InputError
from MedShieldLib.panel.paths import on_path
from MedShieldLib.panel.settings import read_setting, write_setting
from MedShieldLib.slicer import environment, presenter
from MedShieldLib.slicer.text import _
from MedShieldLib.targets.description import describe_foreign_code

_RECENT = "RecentTargets"


class TargetSection:
    """Keeps the selectors, the path fields and the parameter node in step.

    Args:
        ui: the panel's widgets.
    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._values: Any = None
        self._trusted: set[str] = set()
        ui.inputVolumeSelector.connect("nodeActivated(vtkMRMLNode*)", self.on_volume)
        ui.targetComboBox.connect("currentIndexChanged(int)", self.on_chosen)
        ui.secondOpinionComboBox.connect("currentIndexChanged(int)", self.on_second)
        on_path(ui.targetPathLineEdit, self.on_file)
        on_path(ui.calibrationPathLineEdit, self.on_calibration)

    def show(self, values: Any) -> None:
        """Show what a parameter node says; None for no node."""
        self._values = values
        if values is None:
            return
        recent = presenter.remembered(read_setting(_RECENT), values.target)
        has_deepbet = bool(environment.removable(["deepbet"]))
        _fill(self._ui.targetComboBox, presenter.target_choices(recent, has_deepbet), values.target)
        recent = presenter.remembered(recent, values.secondOpinion)
        opinions = presenter.opinion_choices(recent, has_deepbet)
        _fill(self._ui.secondOpinionComboBox, opinions, values.secondOpinion)
        if self._ui.calibrationPathLineEdit.currentPath != values.calibration:
            self._ui.calibrationPathLineEdit.currentPath = values.calibration

    def require_consent(self) -> None:
        """A model file is somebody else's program: ask before it runs, once for each file and session.

        Raises:
            InputError: if the user does not trust it, or it does not describe a model.
        """
        for target in (self._values.target, self._values.secondOpinion):
            question = describe_foreign_code(target) if target else None
            if question and target not in self._trusted:
                if not slicer.util.confirmYesNoDisplay(question + "\n\n" + _("Go on?")):
                    raise InputError(_("The model was not run."))
                self._trusted.add(target)

    def on_volume(self, node: Any) -> None:
        """The user has chosen a volume; the parameter node hears of it only if it has another name."""
        if self._values:
            self._values.inputVolume = node

    def on_chosen(self, index: int) -> None:
        if self._values and index >= 0:
            self._values.target = self._ui.targetComboBox.itemData(index)

    def on_second(self, index: int) -> None:
        """The user has chosen who gives a second opinion."""
        if self._values and index >= 0:
            self._values.secondOpinion = self._ui.secondOpinionComboBox.itemData(index)

    def on_file(self) -> None:
        path = self._ui.targetPathLineEdit.currentPath
        if self._values and Path(path).suffix and Path(path).is_file():
            write_setting(_RECENT, presenter.remembered(read_setting(_RECENT), path))
            self._values.target = path

    def on_calibration(self) -> None:
        if self._values:
            self._values.calibration = self._ui.calibrationPathLineEdit.currentPath


def _fill(box: Any, choices: list[tuple[str, str]], chosen: str) -> None:
    """Offer (text, value) in a box and show what is chosen, even a model file that is gone."""
    if chosen not in dict(choices).values():  # say so at the check
        choices = [*choices, (Path(chosen).name, chosen)]
    if [box.itemText(n) for n in range(box.count)] != [text for text, _value in choices]:
        blocked = box.blockSignals(True)
        box.clear()
        for text, value in choices:
            box.addItem(text, value)
        box.blockSignals(blocked)
    box.currentIndex = box.findData(chosen)
