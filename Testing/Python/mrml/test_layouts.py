"""The comparison layout in a scene with Slicer's own layout logic."""

from __future__ import annotations

import pytest

from MedShieldLib.export.json_result import dumps
from MedShieldLib.slicer.layouts import LAYOUT_ID, SPECTRUM_VIEW, ComparisonLayout, Shown, Side
from MedShieldLib.slicer.nodes import add_volume
from MedShieldLib.slicer.results import add_result

slicer = pytest.importorskip("slicer")


@pytest.fixture
def shown(application, scene, mni_4mm, make_result):
    source = add_volume(scene, mni_4mm, "Head")
    result = make_result()
    added = add_result(result, dumps(result, {}), "", source)
    return Shown(*(added.node(role) for role in ("input", "original", "defended", "spectrum")))


@pytest.fixture
def layout(application, scene):
    return ComparisonLayout(scene, application)


def test_views_are_named_oriented_and_in_one_group(layout, scene, shown):
    layout.show(shown)
    for side in Side:
        views = layout.slice_nodes(side)
        assert [view.GetOrientation() for view in views] == ["Axial", "Coronal", "Sagittal"]
        assert {view.GetViewGroup() for view in views} == {47}
    plot = scene.GetSingletonNode(SPECTRUM_VIEW, "vtkMRMLPlotViewNode")
    assert plot.GetPlotChartNodeID() == shown.chart.GetID()


def test_earlier_layout_comes_back(application, layout, shown):
    node = application.layouts.GetLayoutNode()
    node.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    layout.show(shown)
    layout.show(shown)
    assert node.GetViewArrangement() == LAYOUT_ID and layout.is_shown
    layout.restore(shown.defended)
    assert node.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
    layout.restore()
    assert node.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView


def test_afterwards_the_defended_segmentation_is_seen_and_the_original_is_not(layout, scene, shown):
    layout.show(shown)
    layout.restore(shown.defended)
    red = scene.GetSingletonNode("Red", "vtkMRMLSliceNode").GetID()
    assert shown.defended.GetDisplayNode().IsDisplayableInView(red)
    assert not shown.original.GetDisplayNode().IsDisplayableInView(red)


def test_jump_goes_through_the_point_in_every_view(layout, shown):
    layout.show(shown)
    layout.jump_to((10.0, -20.0, 30.0))
    axial, coronal, sagittal = layout.slice_nodes(Side.DEFENDED)
    assert axial.GetSliceOffset() == pytest.approx(30)
    assert coronal.GetSliceOffset() == pytest.approx(-20)
    assert abs(sagittal.GetSliceOffset()) == pytest.approx(10)


def test_without_views_nothing_happens(mni_4mm):
    layout = ComparisonLayout(slicer.vtkMRMLScene(), slicer.vtkMRMLApplicationLogic())
    layout.show(Shown(None, None, None))
    layout.restore()
    assert not layout.is_possible and not layout.is_shown
