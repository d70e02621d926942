"""The panel, clicked through as a radiologist would, with the real worker behind it."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("PySide6")
slicer = pytest.importorskip("slicer")

import harness  # noqa: E402
from harness import MODULE, finish  # noqa: E402

from MedShieldLib import effort  # noqa: E402


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"


def started(panel):
    """Click, and wait until the worker has said its first word."""
    panel.ui.checkButton.click()
    harness.spin(lambda: panel.session.job is None or panel.ui.progressBar.value > 0, 300)
    assert panel.session.job is not None, panel.ui.logText.toPlainText()
    return panel.session.job


def nodes():
    scene = slicer.mrmlScene
    return {scene.GetNthNode(n).GetName() for n in range(scene.GetNumberOfNodes())}


def test_empty_scene_says_what_to_do(panel):
    assert not panel.ui.checkButton.enabled
    assert "Choose a volume" in panel.ui.checkButton.toolTip
    assert "Not checked" in panel.ui.verdictLabel.text


def test_every_control_that_is_out_of_use_says_why(panel, loaded):
    for name, tip in panel._toolTips.items():
        control = getattr(panel.ui, name)
        assert tip, f"{name} has no tool tip of its own"
        assert control.enabled or (control.toolTip and control.toolTip != tip), name


def test_whole_check_with_the_real_worker(panel, checked, loaded):
    assert checked.data["verdict"] in ("clean", "out_of_distribution", "suspected_attack")
    assert checked.data["target"]["name"] == "tissues"
    segmentations, volumes = ("original", "defended"), ("reformed", "heatmap")
    for role in (*segmentations, *volumes, "spectrum", "agreement", "evidence", "report"):
        assert checked.node(role) is not None, role
    assert "p (attack)" in panel.ui.verdictLabel.text
    assert panel.ui.agreementTable.rowCount == 3
    assert panel.ui.agreementTable.item(1, 0).text() == "Grey matter"
    assert panel.ui.evidenceTable.rowCount == len(checked.data["evidence"])
    assert not os.listdir(slicer.app.temporaryPath)


@pytest.mark.parametrize(("chosen", "compared"), [(2, 2), (6, 3)])
def test_as_many_versions_are_compared_as_were_chosen(panel, loaded, chosen, compared):
    """The calibration has three; the highest number takes all that there are."""
    spin_box = panel.ui.versionsSpinBox
    assert (spin_box.minimum, spin_box.maximum, spin_box.value) == (effort.QUICK, effort.ALL, effort.ALL)
    spin_box.value = chosen
    panel.ui.checkButton.click()
    harness.finish(panel)
    evidence = panel.session.result.data["evidence"]
    assert sum(" version" in name for name in evidence) == compared


def test_comparison_comes_by_itself_and_goes_on_leaving(panel, checked):
    views = panel.session.views
    assert views.is_shown and panel.ui.compareButton.checked
    panel.exit()
    assert not views.is_shown and not panel.ui.compareButton.checked


def test_each_segmentation_is_only_in_its_own_views(panel, checked):
    from MedShieldLib.slicer.layouts import Side

    for side, role in ((Side.ORIGINAL, "original"), (Side.DEFENDED, "defended")):
        display = checked.node(role).GetDisplayNode()
        ours = {view.GetID() for view in panel.session.views.slice_nodes(side)}
        assert len(ours) == 3 and set(display.GetViewNodeIDs()) == ours


def test_heatmap_controls_change_the_views(panel, checked):
    composites = list(panel.session.views._composites())
    heatmap = checked.node("heatmap")
    assert {c.GetForegroundVolumeID() for c in composites} == {heatmap.GetID()}
    panel.ui.opacitySlider.value = 0.25
    panel.ui.thresholdSlider.value = 0.5
    assert {c.GetForegroundOpacity() for c in composites} == {0.25}
    assert heatmap.GetDisplayNode().GetLowerThreshold() == 0.5
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(heatmap)
    assert legend is not None and legend.GetVisibility()
    panel.ui.bandComboBox.currentIndex = 1
    harness.spin(lambda: checked.node("heatmap-low") is not None, 60)
    band = composites[0].GetForegroundVolumeID()
    assert band != heatmap.GetID() and checked.node("heatmap-low").GetID() == band
    panel.ui.showHeatmapCheckBox.checked = False
    assert {c.GetForegroundVolumeID() for c in composites} == {None}
    assert not legend.GetVisibility()
    panel.ui.compareButton.checked = False
    assert not panel.ui.opacitySlider.enabled and "side by side" in panel.ui.opacitySlider.toolTip


def test_cancel_in_the_middle_changes_nothing(panel, loaded):
    before = nodes()
    job = started(panel)
    assert panel.ui.checkButton.text == "Cancel" and not panel.ui.targetComboBox.enabled
    panel.ui.checkButton.click()
    finish(panel)
    harness.spin(lambda: not alive(job.pid), 10)
    assert "Cancelled" in panel.ui.verdictLabel.text
    assert nodes() == before and panel.ui.checkButton.text == "Check && Segment"


def test_killed_worker_is_told_and_the_next_check_works(panel, loaded):
    before = nodes()
    job = started(panel)
    os.kill(job.pid, signal.SIGKILL)
    finish(panel)
    assert "ended unexpectedly" in panel.ui.verdictLabel.text and "No verdict" in panel.ui.verdictLabel.text
    assert nodes() == before
    panel.ui.checkButton.click()
    finish(panel)
    assert panel.session.result is not None


def test_two_checks_in_a_row_keep_both_results(panel, checked, loaded):
    panel.ui.checkButton.click()
    finish(panel)
    assert panel.session.result is not None and panel.session.result.record is not checked.record
    assert checked.node("original") is not None


def test_deleted_input_stops_its_check(panel, loaded):
    job = started(panel)
    slicer.mrmlScene.RemoveNode(loaded)
    assert panel.session.job is None and not alive(job.pid)
    assert "was deleted" in panel.ui.logText.toPlainText()


def test_closed_scene_stops_the_check(panel, loaded):
    job = started(panel)
    slicer.mrmlScene.Clear(0)
    assert panel.session.job is None and not alive(job.pid)
    assert "scene was closed" in panel.ui.logText.toPlainText()
    assert panel._parameterNode is not None and not panel.ui.checkButton.enabled


def test_reload_stops_the_check_and_brings_a_working_panel(panel, loaded, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "MedShieldLib"]:
        monkeypatch.setitem(sys.modules, name, sys.modules[name])  # other tests go on with these
    job = started(panel)
    panel.ui.versionsSpinBox.value = 3
    panel.onReload()
    fresh = slicer.modules.MedShieldWidget
    assert not alive(job.pid) and fresh is not panel
    assert sys.modules["MedShieldLib.slicer.check"].CheckJob is not type(job)
    assert fresh.source.GetName() == "Head" and fresh.ui.checkButton.enabled
    assert fresh.ui.versionsSpinBox.value == 3 and not panel.ui.versionsSpinBox.visible


def test_closing_slicer_stops_the_check(panel, loaded):
    job = started(panel)
    slicer.app.moduleAboutToBeUnloaded.emit("MedShield")
    assert not alive(job.pid)


def test_worker_ends_when_slicer_is_killed(panel, loaded):
    job = started(panel)
    # In test_worker.py a caller is really killed, and its worker removes that folder.
    assert job._arguments[-2:] == ["--scratch", job._folder]
    job._worker._process.stdin.close()  # what the system does when Slicer is gone
    harness.spin(lambda: not alive(job.pid), 30)


def test_foreign_program_is_run_only_with_the_users_consent(panel, loaded):
    slicer.app.answer = False
    panel.ui.checkButton.click()
    assert panel.session.job is None and "tissues.pt is a program" in slicer.app.questions[-1]
    slicer.app.answer = True
    panel.ui.checkButton.click()
    assert panel.session.job is not None
    panel.ui.checkButton.click()
    finish(panel)


def test_chosen_model_file_is_remembered(panel, loaded, target):
    box = panel.ui.targetComboBox
    assert box.currentText == "tissues.json"
    box.currentIndex = 0
    assert panel._parameterNode.target == "brain-tissue"
    assert box.findData(str(target)) > 0


def test_missing_model_is_told_in_a_sentence(panel, loaded, tmp_path):
    panel._parameterNode.target = str(tmp_path / "no such model.json")
    panel.ui.checkButton.click()
    finish(panel)
    assert "no such model.json" in panel.ui.verdictLabel.text and panel.session.result is None


def test_volume_that_cannot_be_checked_starts_no_worker(panel, loaded):
    import numpy as np

    from MedShieldLib.slicer.nodes import add_volume
    from MedShieldLib.volume import Volume

    flat = add_volume(slicer.mrmlScene, Volume(np.zeros((20, 20, 20), np.float32)), "Flat")
    panel._parameterNode.inputVolume = flat
    panel.ui.checkButton.click()
    assert panel.session.job is None and "No verdict" in panel.ui.verdictLabel.text


def test_volume_that_is_named_like_the_one_before_can_be_chosen(panel, loaded):
    twin = slicer.mrmlScene.CopyNode(loaded)
    assert twin.GetName() == loaded.GetName() and panel.source is loaded
    box = panel.ui.inputVolumeSelector._box
    box.currentIndex = box.findData(twin.GetID())
    box.activated.emit(box.currentIndex)
    assert panel.source is twin


def test_input_without_display_node_and_under_a_transform(panel, loaded):
    loaded.RemoveAllDisplayNodeIDs()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    loaded.SetAndObserveTransformNodeID(transform.GetID())
    panel.ui.checkButton.click()
    finish(panel)
    result = panel.session.result
    assert result is not None, panel.ui.logText.toPlainText()
    assert result.node("defended").GetTransformNodeID() == transform.GetID()


def test_export_writes_the_chosen_files_and_asks_before_replacing(panel, checked, tmp_path):
    panel.ui.exportPathLineEdit.currentPath = str(tmp_path)
    for name in ("exportNiftiCheckBox", "exportHeatmapCheckBox"):
        getattr(panel.ui, name).checked = True
    panel.ui.exportButton.click()
    written = {file.name for file in tmp_path.iterdir() if file.is_file()}
    assert written == {
        "Head-defended.seg.nrrd",
        "Head-defended.nii.gz",
        "Head-heatmap.nii.gz",
        "Head-result.json",
        "Head-report.html",
    }
    (tmp_path / "Head-result.json").write_text("mine")
    slicer.app.answer = False
    panel.ui.exportButton.click()
    assert "Replace" in slicer.app.questions[-1]
    assert (tmp_path / "Head-result.json").read_text() == "mine"


def test_exported_seg_nrrd_has_names_and_labels(panel, checked, loaded, tmp_path):
    import numpy as np

    from MedShieldLib.export.segmentation import read_segmentation
    from MedShieldLib.slicer.nodes import segmentation_from_node

    panel.ui.exportPathLineEdit.currentPath = str(tmp_path)
    panel.ui.exportButton.click()
    exported = read_segmentation(tmp_path / "Head-defended.seg.nrrd")
    assert [s.name for s in exported.structures] == ["CSF", "Grey matter", "White matter"]
    shown = segmentation_from_node(checked.node("defended"), loaded).labels
    assert np.count_nonzero(exported.labels) == np.count_nonzero(shown)


@pytest.fixture
def clean(panel, loaded, head, tmp_path):
    """A folder of two clean volumes, chosen in the panel."""
    folder = tmp_path / "clean volumes"
    folder.mkdir()
    for n in range(2):
        head.with_voxels(head.voxels + n).write(folder / f"clean {n}.nii.gz")
    panel.ui.cleanFolderPathLineEdit.currentPath = str(folder)
    assert panel.ui.calibrateButton.enabled
    return folder


def test_calibration_runs_to_its_end_and_its_file_is_chosen(panel, clean):
    from MedShieldLib.calibration import Calibration

    panel.ui.calibrateButton.click()
    assert panel.ui.calibrateButton.text == "Cancel the calibration" and not panel.ui.checkButton.enabled
    finish(panel)
    file = clean / "medshield-tissues.json"
    assert panel.ui.calibrationPathLineEdit.currentPath == str(file), panel.ui.logText.toPlainText()
    assert panel.settings().calibration == str(file) and Calibration.load(file).n_subjects == 2
    assert "Calibrated" in panel.ui.verdictLabel.text and panel.ui.checkButton.enabled
    slicer.app.answer = False
    panel.ui.calibrateButton.click()
    assert "Replace" in slicer.app.questions[-1] and panel.session.job is None


def test_second_opinion_is_calibrated_and_asked(panel, clean, target):
    """The same model under another name; a calibration that does not know it is refused in a sentence."""
    twin = target.with_name("twin.json")
    twin.write_text(json.dumps(json.loads(target.read_text()) | {"name": "twin"}))
    box = panel.ui.secondOpinionComboBox
    assert box.currentText == "nobody" and panel.settings().second_opinion == ""
    panel._parameterNode.secondOpinion = str(twin)
    assert box.currentText == "twin.json"
    panel.ui.checkButton.click()
    finish(panel)
    assert "holds no second opinion" in panel.ui.verdictLabel.text
    panel.ui.calibrateButton.click()
    finish(panel)
    panel.ui.checkButton.click()
    finish(panel)
    assert panel.session.result.data["second_opinion"]["name"] == "twin", panel.ui.logText.toPlainText()
    box.currentIndex = 0
    assert panel.settings().second_opinion == ""


def test_cancelled_calibration_leaves_no_file_and_the_earlier_choice(panel, clean, calibration):
    panel.ui.calibrateButton.click()
    harness.spin(lambda: panel.session.job is None or panel.ui.progressBar.value > 0, 300)
    panel.ui.calibrateButton.click()
    finish(panel)
    assert "Cancelled" in panel.ui.verdictLabel.text
    assert not list(clean.glob("*.json"))
    assert panel.ui.calibrationPathLineEdit.currentPath == str(calibration)


def test_emptied_calibration_field_means_the_one_that_ships(panel, loaded):
    panel.ui.calibrationPathLineEdit.currentPath = ""
    panel.ui.alphaSpinBox.value = 0.1
    assert panel.ui.calibrationPathLineEdit.currentPath == "" and panel.settings().calibration == ""


def test_calibration_path_can_be_deleted_letter_by_letter(panel, loaded):
    import qt

    field = panel.ui.calibrationPathLineEdit.findChild(qt.QLineEdit)
    while field.text:
        field.backspace()
    panel.ui.alphaSpinBox.value = 0.1
    assert field.text == "" and panel.settings().calibration == ""


def exported_dicom_seg(panel, folder):
    """Check, and export DICOM SEG alone to the folder that the panel offers; returns the file."""
    panel.ui.checkButton.click()
    finish(panel)
    assert panel.session.result is not None, panel.ui.logText.toPlainText()
    assert panel.ui.exportPathLineEdit.currentPath == str(folder)
    assert panel.ui.exportDicomCheckBox.enabled
    for name in ("exportSegNrrdCheckBox", "exportJsonCheckBox", "exportReportCheckBox"):
        getattr(panel.ui, name).checked = False
    panel.ui.exportDicomCheckBox.checked = True
    panel.ui.exportButton.click()
    file = folder / "MR-defended.dcm"
    assert file.is_file(), slicer.app.questions
    assert "MR-defended.dcm" in panel.ui.exportLabel.text
    return file


def test_dicom_seg_is_written_beside_its_series_and_refers_to_it(panel, from_dicom, series):
    import highdicom
    import numpy as np
    import pydicom

    from MedShieldLib.slicer.nodes import segmentation_from_node

    folder = next(iter(series.values())).parent
    file = exported_dicom_seg(panel, folder)
    first = pydicom.dcmread(next(iter(series.values())))
    seg = highdicom.seg.segread(file)
    file.unlink()
    assert seg.StudyInstanceUID == first.StudyInstanceUID and seg.PatientID == first.PatientID
    (reference,) = seg.ReferencedSeriesSequence
    assert reference.SeriesInstanceUID == first.SeriesInstanceUID
    shown = segmentation_from_node(panel.session.result.node("defended"), from_dicom)
    positions = {pydicom.dcmread(path).ImagePositionPatient[2]: uid for uid, path in series.items()}
    counts = np.zeros(4, int)
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        counts[frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber] += pixels.sum()
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        z = frame.PlanePositionSequence[0].ImagePositionPatient[2]
        assert positions[z] == image.ReferencedSOPInstanceUID
    for number, structure in enumerate(shown.structures, 1):
        description = seg.get_segment_description(number)
        assert description.segment_label == structure.name
        assert counts[number] == np.count_nonzero(shown.labels == structure.value) > 0
        (algorithm,) = description.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "MedShield" and "tissues" in algorithm.AlgorithmParameters


def test_dicom_seg_of_a_multi_frame_file_refers_to_its_frames(panel, from_enhanced, enhanced):
    import highdicom
    import numpy as np
    import pydicom

    from MedShieldLib.slicer.nodes import segmentation_from_node

    ((uid, source),) = enhanced.items()
    seg = highdicom.seg.segread(exported_dicom_seg(panel, source.parent))
    frames = pydicom.dcmread(source).PerFrameFunctionalGroupsSequence
    shown = segmentation_from_node(panel.session.result.node("defended"), from_enhanced)
    to_index = np.linalg.inv(shown.volume.affine)
    labels = np.zeros_like(shown.labels)
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == uid
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        same = frames[int(image.ReferencedFrameNumber) - 1].PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(place, same, atol=1e-4)
        i, j, k = np.rint((to_index @ [*place, 1])[:3]).astype(int)
        assert (i, j) == (0, 0)
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        labels[k][pixels > 0] = shown.structures[number - 1].value
    np.testing.assert_array_equal(labels, shown.labels)
    assert len(np.unique(labels)) == 4


def test_dicom_seg_needs_a_volume_from_dicom_and_its_packages(panel, checked, loaded, tmp_path, monkeypatch):
    from MedShieldLib.slicer import environment

    assert not panel.ui.exportDicomCheckBox.enabled and "DICOM" in panel.ui.exportDicomCheckBox.toolTip
    loaded.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    monkeypatch.setattr(slicer, "dicomDatabase", harness.DicomDatabase({"1.2.3": "gone.dcm"}), raising=False)
    monkeypatch.setattr(environment, "DICOM_SEG", ("highdicom>=9999",))
    panel.refresh()
    panel.ui.exportPathLineEdit.currentPath = str(tmp_path)
    panel.ui.exportDicomCheckBox.checked = True
    panel.ui.exportButton.click()
    asked, _constraints, requester = slicer.packaging.stand_in.asked[-1]
    assert requester == "MedShield" and "highdicom>=9999" in asked
    assert "not installed" in slicer.app.questions[-1]
    assert not list(tmp_path.glob("Head-*"))


def test_export_needs_a_folder(panel, checked):
    assert panel.ui.exportPathLineEdit.currentPath == ""  # the volume comes from no file
    assert not panel.ui.exportButton.enabled and "folder" in panel.ui.exportButton.toolTip


def test_nothing_is_installed_without_asking(panel, loaded, monkeypatch):
    panel.packages._requirements.append("monai>=9999")
    panel.ui.checkButton.click()
    asked, constraints, requester = slicer.packaging.stand_in.asked[-1]
    assert requester == "MedShield" and "monai>=9999" in asked
    kept = {line.partition("==")[0] for line in constraints.splitlines()}
    assert {"numpy", "torch", "scipy", "simpleitk", "pydicom"} <= kept and "monai" not in kept
    assert panel.session.job is None and "not installed" in panel.ui.verdictLabel.text


def test_check_without_the_packages_of_the_report_still_gives_a_verdict(panel, loaded, tmp_path, monkeypatch):
    broken = tmp_path / "no jinja2" / "jinja2.py"
    broken.parent.mkdir()
    broken.write_text('raise ModuleNotFoundError("No module named jinja2", name="jinja2")')
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    panel.ui.checkButton.click()
    finish(panel)
    result = panel.session.result
    assert result is not None and result.node("report") is None, panel.ui.logText.toPlainText()
    assert "p (attack)" in panel.ui.verdictLabel.text
    assert not panel.ui.reportButton.enabled and "packages" in panel.ui.reportButton.toolTip


def test_message_ends_with_another_choice_but_outlives_a_deleted_volume(panel, loaded, head):
    from MedShieldLib.slicer.nodes import add_volume

    other = add_volume(slicer.mrmlScene, head, "Other")
    panel._parameterNode.target = "no such model"
    panel.ui.checkButton.click()
    finish(panel)
    assert "no such model" in panel.ui.verdictLabel.text
    panel._parameterNode.inputVolume = other
    assert "Not checked" in panel.ui.verdictLabel.text
    panel._parameterNode.inputVolume = loaded
    panel._parameterNode.target = "brain-tissue"
    panel.ui.checkButton.click()
    slicer.mrmlScene.RemoveNode(loaded)
    assert panel.source is other and "was deleted" in panel.ui.verdictLabel.text


def test_results_of_two_volumes_and_of_a_reopened_scene_are_shown_again(panel, checked, head, tmp_path):
    from MedShieldLib.slicer.nodes import add_volume

    verdict = panel.ui.verdictLabel.text
    first = panel.source
    panel._parameterNode.inputVolume = add_volume(slicer.mrmlScene, head, "Other")
    assert "Not checked" in panel.ui.verdictLabel.text and panel.ui.agreementTable.rowCount == 0
    assert not panel.ui.compareButton.enabled and not panel.session.views.is_shown
    panel._parameterNode.inputVolume = first
    assert panel.ui.verdictLabel.text == verdict and panel.ui.agreementTable.rowCount == 3
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.Commit()
    slicer.mrmlScene.Clear(0)
    assert "Not checked" in panel.ui.verdictLabel.text
    slicer.mrmlScene.Import()
    assert panel.source.GetName() == "Head" and panel.ui.verdictLabel.text == verdict


def test_panel_says_what_an_opened_scene_holds(panel, checked, tmp_path):
    scene, verdict = slicer.mrmlScene, panel.ui.verdictLabel.text
    scene.SetURL(str(tmp_path / "checked.mrml"))
    scene.Commit()
    scene.Clear(0)
    scene.SetURL(str(tmp_path / "empty.mrml"))
    scene.Commit()
    for name, said, rows in (("checked", verdict, 3), ("empty", "Not checked yet.", 0)):
        scene.SetURL(str(tmp_path / f"{name}.mrml"))
        scene.Connect()  # closes and imports in one batch
        assert panel.ui.verdictLabel.text == said and panel.ui.agreementTable.rowCount == rows
        assert panel.ui.checkButton.enabled == (rows > 0)


@pytest.mark.parametrize("entered", [True, False])
def test_settings_of_a_saved_scene_come_back(panel, loaded, head, tmp_path, entered):
    from MedShieldLib.slicer.nodes import add_volume

    panel.ui.inputVolumeSelector.setCurrentNode(add_volume(slicer.mrmlScene, head, "Other"))
    panel.ui.versionsSpinBox.value = 3
    panel.ui.seedSpinBox.value = 7
    saved = panel.settings()
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.Commit()
    if not entered:
        panel.exit()
    panel.parent.isEntered = entered
    slicer.mrmlScene.Clear(0)
    slicer.mrmlScene.Import()
    panel.enter()
    assert panel.settings() == saved and panel.ui.versionsSpinBox.value == 3
    assert panel.source.GetName() == panel.ui.inputVolumeSelector.currentNode().GetName() == "Other"


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("device", "QUANTUM"),
        ("band", "THE_LOST_BAND"),
        ("alpha", "7.5"),
        ("alpha", "nan"),
        ("versions", "1"),
        ("seed", "many"),
        ("heatmapOpacity", ""),
    ],
)
def test_setting_that_another_version_saved_gives_way_to_the_default(panel, loaded, tmp_path, name, saved):
    panel.ui.keepFilesCheckBox.checked = True
    node, default = panel._parameterNode.parameterNode, getattr(panel._parameterNode, name)
    node.SetDisableModifiedEvent(True)
    node.SetParameter(name, saved)
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.Commit()
    node.SetDisableModifiedEvent(False)
    slicer.mrmlScene.Clear(0)
    slicer.mrmlScene.Import()
    panel.enter()
    assert panel.ui.logText.toPlainText().count(f"'{name}' is replaced by its default") == 1
    assert getattr(panel._parameterNode, name) == default
    assert panel._parameterNode.keepFiles and panel.source.GetName() == "Head"
    assert panel.ui.checkButton.enabled


def test_widgets_let_go_of_the_parameter_node_when_the_panel_does(panel, loaded):
    before = panel._parameterNode
    panel.setParameterNode(None)
    panel.ui.seedSpinBox.value = 7
    assert before.seed == 0


def test_module_test_for_slicer_passes_here_too(panel):
    """MedShieldTest, which is written for the real application, with the shipped target and samples."""
    slicer.selfTests["MedShield"]()


def test_interface_stays_live_during_a_check(panel, loaded):
    """No turn of the interface computes more than a small part of what the check does, in the same run."""
    panel.ui.checkButton.click()
    longest, calls, before = 0.0, 0, computed_by_children()
    gc.freeze()  # what the tests before this one left behind is not for one turn of this one to sort out
    while panel.session.job is not None:
        began = time.thread_time()  # of this thread alone: other programs may keep the processor busy
        slicer.app.processEvents()
        longest, calls = max(longest, time.thread_time() - began), calls + 1
        time.sleep(0.005)
    gc.unfreeze()
    assert calls > 10 and longest < 0.2 * (computed_by_children() - before)


def computed_by_children() -> float:
    """Seconds of processor that ended and waited-for children of this process have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_unknown_widget_in_the_ui_file_is_an_error(app):
    import qt
    from harness.pythonqt import UnknownWidget

    text = MODULE.with_name("Resources") / "UI" / "MedShield.ui"
    broken = text.read_text("utf-8").replace("ctkSliderWidget", "ctkSliderWidgetTypo")
    buffer = qt.QBuffer()
    buffer.setData(broken.encode())
    buffer.open(qt.QIODevice.ReadOnly)
    with pytest.raises(UnknownWidget, match="ctkSliderWidgetTypo"):
        qt.QUiLoader().load(buffer)


def test_sample_data_is_registered_with_checksums(panel):
    import SampleData

    for source in SampleData.SampleDataLogic.registered:
        assert source["category"] == "MedShield" and source["checksums"].startswith("SHA256:")
        assert source["uris"].startswith("file:")


def test_module_file_stays_thin():
    assert len(MODULE.read_text("utf-8").splitlines()) < 400
