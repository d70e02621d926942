"""The panel in the stand-in application, a small real head to check, and a calibration for it."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from MedShieldLib.volume import Volume

# PySide gives back more references to None than it takes. Python up to 3.11 counts them, and aborts when none
# is left after some thousand property writes; these are spare ones.
_take_reference = ctypes.pythonapi.Py_IncRef
_take_reference.argtypes = [ctypes.py_object]
for _ in range(1_000_000):
    _take_reference(None)

pytest.importorskip("PySide6", reason="needs PySide6-Essentials")
pytest.importorskip("slicer", reason="needs slicer-core")

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "Testing"))

import harness  # noqa: E402


@pytest.fixture(scope="session")
def app():
    return harness.boot()


@pytest.fixture
def panel(app, tmp_path):
    """A fresh panel over an empty scene; nothing runs any more afterwards."""
    import qt
    import slicer

    slicer.mrmlScene.Clear(0)
    qt.QSettings().clear()
    app.questions.clear()
    app.answer = True
    app.temporaryPath = str(tmp_path / "temporary")
    Path(app.temporaryPath).mkdir()
    module, panel, holder = harness.load_module(harness.MODULE)
    holder.show()
    yield panel
    slicer.modules.MedShieldWidget.cleanup()
    harness.unload(holder)


@pytest.fixture(scope="session")
def head(mni_4mm: Volume) -> Volume:
    """The MNI152 head at 4 mm, as int16."""
    return mni_4mm.with_voxels(np.round(mni_4mm.voxels * 1000).astype(np.int16))


@pytest.fixture(scope="session")
def target(tmp_path_factory) -> Path:
    """A TorchScript model that names tissues by intensity in a small neighbourhood: real, and quick."""
    import torch

    class Tissues(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("levels", torch.tensor([0.0, 0.35, 0.6, 0.85]).view(1, 4, 1, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -40 * (torch.nn.functional.avg_pool3d(x, 3, 1, 1) - self.levels) ** 2

    folder = tmp_path_factory.mktemp("target")
    torch.jit.trace(Tissues(), torch.zeros(1, 1, 16, 16, 16)).save(folder / "tissues.pt")
    names = ["CSF", "Grey matter", "White matter"]
    colors = [[0.25, 0.55, 0.95], [0.35, 0.75, 0.35], [0.95, 0.85, 0.35]]
    structures = [
        {"value": value, "name": name, "color": color}
        for value, (name, color) in enumerate(zip(names, colors, strict=True), 1)
    ]
    description = {"model": "tissues.pt", "name": "tissues", "spacing_mm": [4] * 3, "structures": structures}
    file = folder / "tissues.json"
    file.write_text(json.dumps(description))
    return file


@pytest.fixture(scope="session")
def calibration(head: Volume, target: Path, tmp_path_factory) -> Path:
    """That model on twenty noisy copies of the head: enough for an alarm at 5 %."""
    from MedShieldLib import shifts
    from MedShieldLib.calibration import calibrate
    from MedShieldLib.targets import load_target
    from MedShieldLib.versions import LowPass, Moved

    random = np.random.default_rng(0)
    volumes = []
    for n in range(20):
        noise = random.normal(0, 2 * n, head.voxels.shape)
        volumes.append((f"subject {n}", head.with_voxels((head.voxels + noise).astype(np.int16))))
    versions = [LowPass(0.6), Moved(2, False), Moved(2, True)]
    found = calibrate(load_target(target), volumes, versions, augmentations=(shifts.none,))
    return found.save(tmp_path_factory.mktemp("calibration") / "head.json")


@pytest.fixture(scope="session")
def series(head: Volume, tmp_path_factory) -> dict[str, Path]:
    """The head as a DICOM series, headers after the MR slice that pydicom ships; files by their UID."""
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    from pydicom.data import get_testdata_file
    from pydicom.uid import generate_uid

    folder, uid, study, frame = tmp_path_factory.mktemp("series"), *(generate_uid() for _ in range(3))
    columns, files = np.reshape(head.direction, (3, 3)), {}
    for k, voxels in enumerate(head.voxels):
        one = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, uid, frame
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.InstanceNumber, (one.Rows, one.Columns) = k + 1, voxels.shape
        one.PixelSpacing, one.SliceThickness = [head.spacing[1], head.spacing[0]], head.spacing[2]
        one.ImageOrientationPatient = [*columns[:, 0], *columns[:, 1]]
        one.ImagePositionPatient = list(head.origin + columns[:, 2] * k * head.spacing[2])
        one.PixelData = voxels.astype("<i2").tobytes()
        files[one.SOPInstanceUID] = folder / f"{k:03}.dcm"
        one.save_as(files[one.SOPInstanceUID])
    return files


@pytest.fixture(scope="session")
def enhanced(series: dict[str, Path], multi_frame, tmp_path_factory) -> dict[str, Path]:
    """The same series as one multi-frame file, by its UID."""
    import pydicom

    image = multi_frame([pydicom.dcmread(file) for file in series.values()])
    file = tmp_path_factory.mktemp("enhanced") / "head.dcm"
    image.save_as(file)
    return {image.SOPInstanceUID: file}


@pytest.fixture
def from_dicom(panel, series, target, calibration, monkeypatch):
    """The panel with that series loaded as Slicer's DICOM module loads it; returns its node."""
    return load_dicom(panel, series, target, calibration, monkeypatch)


@pytest.fixture
def from_enhanced(panel, enhanced, target, calibration, monkeypatch):
    """The panel with the multi-frame file, likewise."""
    return load_dicom(panel, enhanced, target, calibration, monkeypatch)


def load_dicom(panel, files: dict[str, Path], target, calibration, monkeypatch):
    """Bring a series into the scene, and its files into the database."""
    import slicer
    import vtk

    names = vtk.vtkStringArray()
    for file in files.values():
        names.InsertNextValue(str(file))
    node = slicer.modules.volumes.logic().AddArchetypeScalarVolume(names.GetValue(0), "MR", 0, names)
    node.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    monkeypatch.setattr(slicer, "dicomDatabase", harness.DicomDatabase(files), raising=False)
    choose(panel, target, calibration)
    assert panel.source is node
    return node


def choose(panel, target: Path, calibration: Path) -> None:
    """Choose a target and a calibration, by their files."""
    panel.ui.targetPathLineEdit.currentPath = str(target)
    panel.ui.calibrationPathLineEdit.currentPath = str(calibration)


@pytest.fixture
def loaded(panel, head, target, calibration):
    """The panel with the head loaded, target and calibration chosen; returns the head's node."""
    import slicer

    from MedShieldLib.slicer.nodes import add_volume

    node = add_volume(slicer.mrmlScene, head, "Head")
    choose(panel, target, calibration)
    assert panel.source is node
    return node


@pytest.fixture
def checked(panel, loaded):
    """The panel after a whole check by the real worker; returns its result."""
    panel.ui.checkButton.click()
    harness.finish(panel)
    assert panel.session.result is not None, panel.ui.logText.toPlainText()
    return panel.session.result
