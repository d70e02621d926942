"""A result in the scene: what comes in, where it goes, how it is found again."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from MedShieldLib.export.folder import load_result, save_result
from MedShieldLib.export.json_result import dumps
from MedShieldLib.result import Verdict
from MedShieldLib.slicer import heatmap
from MedShieldLib.slicer.bands import BandMaker
from MedShieldLib.slicer.disagreement import labels_of, largest_disagreement
from MedShieldLib.slicer.nodes import add_volume, hierarchy_item, volume_from_node
from MedShieldLib.slicer.presenter import sides_differ, verdict_banner
from MedShieldLib.slicer.results import add_result, all_or_nothing, results_of

slicer = pytest.importorskip("slicer")
ROLES = ("original", "defended", "reformed", "heatmap", "agreement", "evidence", "spectrum", "report")


@pytest.fixture
def source(scene, mni_4mm):
    return add_volume(scene, mni_4mm, "Head")


def add(result, source, report="<html></html>"):
    return add_result(result, dumps(result, {}), report, source)


def test_all_nodes_come_into_the_study_of_the_input(scene, source, make_result):
    hierarchy, item = hierarchy_item(source)
    subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    study = hierarchy.CreateStudyItem(subject, "Study")
    hierarchy.SetItemParent(item, study)
    added = add(make_result(), source)
    for role in ROLES:
        node = added.node(role)
        assert node is not None, role
        assert hierarchy.GetItemAncestorAtLevel(hierarchy.GetItemByDataNode(node), "Study") == study, role


def test_input_is_left_as_it_was(scene, source, make_result):
    before = volume_from_node(source).voxels.copy()
    name, modified = source.GetName(), source.GetMTime()
    add(make_result(), source)
    assert np.array_equal(volume_from_node(source).voxels, before)
    assert source.GetName() == name and source.GetMTime() == modified


def test_results_follow_the_transform_of_the_input(scene, source, make_result):
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    source.SetAndObserveTransformNodeID(transform.GetID())
    added = add(make_result(), source)
    for role in ("original", "defended", "reformed", "heatmap"):
        assert added.node(role).GetTransformNodeID() == transform.GetID(), role


def test_two_checks_of_one_volume_keep_both_results(scene, source, make_result):
    first, second = add(make_result(), source), add(make_result(Verdict.CLEAN), source)
    assert results_of(source) == [first, second]
    assert first.node("original") is not second.node("original")
    assert first.node("original").GetName() != second.node("original").GetName()


def test_results_are_found_again_in_a_saved_scene(tmp_path, scene, source, make_result):
    add(make_result(), source)
    text = results_of(source)[0].record.GetText()
    file = tmp_path / "scene.mrml"
    scene.SetURL(str(file))
    scene.Commit()
    again = slicer.vtkMRMLScene()
    again.SetURL(str(file))
    again.Import()
    head = again.GetFirstNodeByName("Head")
    found = results_of(head)
    assert len(found) == 1 and "suspected_attack" in text
    assert found[0].node("defended").GetName() == "Head - defended segmentation"


def test_failing_half_way_leaves_no_node_behind(scene, source, make_result, monkeypatch):
    def broken(*_):
        raise RuntimeError("no spectrum")

    monkeypatch.setattr("MedShieldLib.slicer.results.add_spectrum_chart", broken)
    before = [scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())]
    with pytest.raises(RuntimeError, match="no spectrum"):
        add(make_result(), source)
    after = [scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())]
    assert [i for i in after if "SubjectHierarchy" not in i] == [
        i for i in before if "SubjectHierarchy" not in i
    ]
    assert results_of(source) == []


def test_nodes_inside_a_finished_block_stay(scene):
    with all_or_nothing(scene):
        scene.AddNewNodeByClass("vtkMRMLTextNode", "kept")
    assert scene.GetFirstNodeByName("kept") is not None


def test_result_from_a_folder_is_the_same_as_before_saving(tmp_path, scene, source, make_result):
    result = make_result()
    loaded = load_result(save_result(result, tmp_path / "out", report=False))
    added = add(loaded, source)
    original, defended = labels_of(added.node("original"), added.node("defended"), source)
    assert np.array_equal(original, result.original.labels)
    assert np.array_equal(defended, result.defended.labels)


def test_tables_say_what_the_result_says(scene, source, make_result):
    result = make_result()
    added = add(result, source)
    table = added.node("agreement").GetTable()
    assert [table.GetValue(row, 0).ToString() for row in range(3)] == [s.name for s in result.structures]
    assert table.GetValue(2, 1).ToDouble() == pytest.approx(result.structures[2].dice)
    evidence = added.node("evidence").GetTable()
    assert evidence.GetNumberOfRows() == 1 and evidence.GetValue(0, 2).ToDouble() == pytest.approx(3.2)


def test_spectrum_chart_shows_the_volume_and_the_band(scene, source, make_result):
    chart = add(make_result(), source).node("spectrum")
    assert chart.GetNumberOfPlotSeriesNodes() == 3
    series = chart.GetNthPlotSeriesNode(0)
    table = series.GetTableNode().GetTable()
    assert table.GetNumberOfRows() == 20
    assert table.GetColumnByName(series.GetYColumnName()) is not None
    assert "cycles/mm" in chart.GetXAxisTitle()


def test_largest_disagreement_lies_where_the_sides_differ(scene, source, make_result):
    added = add(make_result(), source)
    original, defended = labels_of(added.node("original"), added.node("defended"), source)
    i, j, k = largest_disagreement(original, defended)
    assert original[k, j, i] != defended[k, j, i]
    assert 20 <= k < 26 and 30 <= j < 36 and 18 <= i < 30
    assert largest_disagreement(original, original) is None
    assert largest_disagreement(original, defended, label=99) is None


def collect(maker, result, band):
    maker.want(result, band)
    end = time.monotonic() + 60
    while not maker.collect():
        assert time.monotonic() < end, "still computing"
        time.sleep(0.01)


def test_band_heatmaps_lie_in_zero_to_one(scene, source, make_result):
    pytest.importorskip("pywt")
    added, maker = add(make_result(), source), BandMaker()
    for band in (heatmap.Band.LOW, heatmap.Band.HIGH):
        collect(maker, added, band)
        voxels = volume_from_node(added.node(band.role)).voxels
        assert voxels.min() >= 0 and voxels.max() <= 1 and voxels.any()
    assert added.node(heatmap.Band.LOW.role) is not added.node(heatmap.Band.HIGH.role)


def test_band_heatmap_of_a_closed_scene_is_dropped(scene, source, make_result):
    pytest.importorskip("pywt")
    added, maker = add(make_result(), source), BandMaker()
    maker.want(added, heatmap.Band.LOW)
    scene.Clear(0)
    collect(maker, added, heatmap.Band.LOW)
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0 and not maker.is_busy


def test_heatmap_hides_what_is_below_the_threshold(scene, source, make_result):
    node = add(make_result(), source).node("heatmap")
    heatmap.style(node, 0.7)
    display = node.GetDisplayNode()
    assert display.GetLowerThreshold() == pytest.approx(0.7) and display.GetApplyThreshold()


@pytest.mark.parametrize("verdict", list(Verdict))
def test_banner_says_the_verdict_in_words_and_figures(verdict, scene, source, make_result):
    data = add(make_result(verdict), source).data
    banner = verdict_banner(data)
    word = {"clean": "No sign", "out_of_distribution": "Unlike", "suspected_attack": "Suspected"}[
        verdict.value
    ]
    assert word in banner.html and "0.05" in banner.html and "A note." in banner.html
    assert sides_differ(data) == (verdict is not Verdict.CLEAN)


def test_banner_of_a_calibration_that_can_never_alarm_is_not_green(make_result):
    clean = make_result(Verdict.CLEAN)
    small = replace(clean, calibration=replace(clean.calibration, n_scores=18))
    green, banner = (verdict_banner(json.loads(dumps(result, {}))) for result in (clean, small))
    assert "too small" in banner.html and "No sign" not in banner.html
    assert banner.background != green.background


def test_deleted_nodes_are_missed_one_by_one(scene, source, make_result):
    added = add(make_result(), source)
    scene.RemoveNode(added.node("heatmap"))
    assert added.node("heatmap") is None and added.node("defended") is not None
    scene.RemoveNode(source)
    assert added.node("input") is None
