"""The panel in the stand-in application, a small real head to check, and a calibration for it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from MedShieldLib.volume import Volume

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
    holder.deleteLater()


@pytest.fixture(scope="session")
def head(mni_2mm: Volume) -> Volume:
    """The middle of the MNI152 head, 48 x 48 x 40 voxels of 2 mm, as int16: quick to check."""
    voxels = np.round(mni_2mm.voxels[30:70, 35:83, 25:73] * 1000).astype(np.int16)
    return mni_2mm.with_voxels(voxels)


@pytest.fixture(scope="session")
def calibration(head: Volume, tmp_path_factory) -> Path:
    """The reference target on twenty noisy copies of the head: enough for an alarm at 5 %."""
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
    found = calibrate(load_target("brain-tissue"), volumes, versions, augmentations=(shifts.none,))
    return found.save(tmp_path_factory.mktemp("calibration") / "head.json")


@pytest.fixture
def loaded(panel, head, calibration):
    """The panel with the head loaded and the calibration chosen; returns the head's node."""
    import slicer

    from MedShieldLib.slicer.nodes import add_volume

    node = add_volume(slicer.mrmlScene, head, "Head")
    panel._parameterNode.inputVolume = node
    panel.ui.calibrationPathLineEdit.currentPath = str(calibration)
    return node


@pytest.fixture
def checked(panel, loaded):
    """The panel after a whole check by the real worker; returns its result."""
    panel.ui.checkButton.click()
    harness.finish(panel)
    assert panel.session.result is not None, panel.ui.logText.toPlainText()
    return panel.session.result
