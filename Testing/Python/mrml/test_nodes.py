"""Volumes and segmentations between MedShield and the scene."""

from __future__ import annotations

import numpy as np
import pytest

from MedShieldLib.errors import InputError
from MedShieldLib.slicer.nodes import (
    add_segmentation,
    add_volume,
    segmentation_from_node,
    volume_from_node,
    world_position,
)
from MedShieldLib.volume import Volume

slicer = pytest.importorskip("slicer")


def test_oblique_left_handed_volume_survives_the_scene(scene):
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, -1]])
    voxels = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    before = Volume(voxels, (1.5, 2.0, 3.0), (10.0, -20.0, 30.0), tuple(turn.ravel()))
    after = volume_from_node(add_volume(scene, before, "scan"))
    assert np.array_equal(after.voxels, voxels) and after.voxels.dtype == np.int16
    assert np.allclose(after.spacing, before.spacing) and np.allclose(after.origin, before.origin)
    assert np.allclose(after.direction, before.direction)


def test_segments_keep_names_colours_codes_and_empty_structures(scene, tissue):
    labels = np.where(tissue.labels == 1, 0, tissue.labels).astype(np.uint8)
    grid = add_volume(scene, tissue.volume, "scan")
    segmentation = type(tissue)(tissue.volume.with_voxels(labels), tissue.structures)
    node = add_segmentation(scene, segmentation, "brain", grid)
    contents = node.GetSegmentation()
    assert [contents.GetNthSegment(n).GetName() for n in range(3)] == ["CSF", "Grey matter", "White matter"]
    assert contents.GetNthSegment(1).GetColor() == pytest.approx((0.35, 0.75, 0.35))
    tag = contents.GetNthSegment(2).GetTerminologyEntryTagName()
    read = slicer.vtkSegment.GetTag
    import vtk

    text = vtk.reference("")
    assert read(contents.GetNthSegment(2), tag, text) and "389080008" in str(text)
    back = segmentation_from_node(node, grid)
    assert np.array_equal(back.labels, labels)
    assert [s.value for s in back.structures] == [1, 2, 3]


def test_edited_segment_is_what_is_read(scene, tissue):
    grid = add_volume(scene, tissue.volume, "scan")
    node = add_segmentation(scene, tissue, "brain", grid)
    node.GetSegmentation().RemoveSegment("Segment_2")
    back = segmentation_from_node(node, grid)
    assert np.array_equal(back.labels, np.where(tissue.labels == 2, 0, tissue.labels))


def test_volume_without_voxels_is_refused_by_name(scene):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    with pytest.raises(InputError, match="Nothing"):
        volume_from_node(node)


def test_world_position_follows_a_transform(scene, mni_4mm):
    node = add_volume(scene, mni_4mm, "scan")
    before = world_position(node, (10, 20, 30))
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    import vtk

    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 15.0)
    transform.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    assert np.allclose(np.subtract(world_position(node, (10, 20, 30)), before), (15, 0, 0))
