"""The section that writes files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer.util

from MedShieldLib.panel.packages import PackageSection
from MedShieldLib.panel.paths import on_path
from MedShieldLib.slicer import environment
from MedShieldLib.slicer.export import Kind, default_folder, dicom_files_of, export, targets_of
from MedShieldLib.slicer.session import Session
from MedShieldLib.slicer.text import _

_CHECK_BOXES = {
    Kind.SEG_NRRD: "exportSegNrrdCheckBox",
    Kind.NIFTI: "exportNiftiCheckBox",
    Kind.DICOM_SEG: "exportDicomCheckBox",
    Kind.HEATMAP: "exportHeatmapCheckBox",
    Kind.JSON: "exportJsonCheckBox",
    Kind.REPORT: "exportReportCheckBox",
}


class ExportSection:
    """Writes the chosen files of the result on show, and opens its report.

    Args:
        ui: the panel's widgets.
        session: knows the result.
        packages: gets what DICOM SEG needs.
        log: is told which files were written.
        changed: called when the choice of files has changed.
    """

    def __init__(
        self,
        ui: Any,
        session: Session,
        packages: PackageSection,
        log: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._ui, self._session, self._packages, self._log = ui, session, packages, log
        ui.exportButton.connect("clicked(bool)", self.export)
        ui.reportButton.connect("clicked(bool)", self.open_report)
        for name in _CHECK_BOXES.values():
            getattr(ui, name).connect("toggled(bool)", changed)
        on_path(ui.exportPathLineEdit, changed)

    @property
    def kinds(self) -> list[Kind]:
        """The chosen kinds of files."""
        boxes = {kind: getattr(self._ui, name) for kind, name in _CHECK_BOXES.items()}
        return [kind for kind, box in boxes.items() if box.checked and box.enabled]

    @property
    def has_folder(self) -> bool:
        """Whether there is a folder to write to."""
        return bool(self._ui.exportPathLineEdit.currentPath.strip())

    def offer_folder(self) -> None:
        """Offer the folder that the input came from; none rather than another patient's."""
        source = self._session.result.node("input") if self._session.result else None
        folder = default_folder(source, dicom_files_of(source, dicom_database()))
        self._ui.exportPathLineEdit.currentPath = str(folder or "")
        self._ui.exportLabel.text = ""

    def export(self) -> None:
        """The button: write, asking before anything is replaced."""
        result = self._session.result
        if result is None:
            return
        with slicer.util.tryWithErrorDisplay(_("Export failed."), waitCursor=True):
            files = targets_of(result, self.kinds, Path(self._ui.exportPathLineEdit.currentPath))
            existing = [str(file) for file in files.values() if file.exists()]
            question = "\n".join([_("These files exist already. Replace them?"), *existing])
            if existing and not slicer.util.confirmYesNoDisplay(question):
                return
            if Kind.DICOM_SEG in files:
                self._packages.ensure(*environment.DICOM_SEG)
            sources = dicom_files_of(result.node("input"), dicom_database())
            written = []
            for kind, file in files.items():
                export(result, kind, file, sources)
                self._log(_("Exported: {file}").format(file=file))
                written.append(file.name)
                self._ui.exportLabel.text = _("Written: {files}").format(files=", ".join(written))

    def open_report(self) -> None:
        """The button: the report in the web browser."""
        file = Path(slicer.util.tempDirectory()) / "medshield-report.html"
        with slicer.util.tryWithErrorDisplay(_("The report could not be opened.")):
            if self._session.result:
                export(self._session.result, Kind.REPORT, file, [])
                qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(file)))


def dicom_database() -> object | None:
    """Slicer's DICOM database, where there is one."""
    return getattr(slicer, "dicomDatabase", None)
