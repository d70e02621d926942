"""Volumes and segmentations between MedShield and the MRML scene; nothing here knows what a check is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from MedShieldLib.errors import InputError
from MedShieldLib.export.terminology import slicer_entry
from MedShieldLib.slicer.text import _
from MedShieldLib.volume import Segmentation, Structure, Volume

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

# How much of a segment's colour covers the scan: the anatomy below has to be seen.
_FILL = 0.3
_LPS = np.diag([-1.0, -1.0, 1.0])


def volume_from_node(node: vtkMRMLScalarVolumeNode) -> Volume:
    """The voxels and geometry of a volume node, before any transform that it is under.

    Raises:
        InputError: if the node holds no image, or more than one number for each voxel.
    """
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise InputError(_('"{name}" holds no image; choose another volume.').format(name=node.GetName()))
    if image.GetNumberOfScalarComponents() != 1:
        raise InputError(
            _('"{name}" has {count} components for each voxel; choose a volume with one.').format(
                name=node.GetName(), count=image.GetNumberOfScalarComponents()
            )
        )
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASDirectionMatrix(matrix)
    direction = _LPS @ slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]
    return Volume(
        voxels=slicer.util.arrayFromVolume(node),
        spacing=_triple(node.GetSpacing()),
        origin=_triple(_LPS @ np.array(node.GetOrigin())),
        direction=tuple(map(float, direction.ravel())),
    )


def first_volume(scene: vtkMRMLScene) -> vtkMRMLScalarVolumeNode | None:
    """The first volume of a scene that is no label map, vector image or the like."""
    kind = "vtkMRMLScalarVolumeNode"
    nodes = [scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind))]
    return next((n for n in nodes if n.GetClassName() == kind and not n.GetHideFromEditors()), None)


def add_volume(scene: vtkMRMLScene, volume: Volume, name: str) -> vtkMRMLScalarVolumeNode:
    """A new scalar volume node with the voxels and geometry of `volume`."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name))
    node.SetIJKToRASMatrix(ijk_to_ras(volume))
    slicer.util.updateVolumeFromArray(node, volume.voxels)
    node.CreateDefaultDisplayNodes()
    return node


def add_segmentation(
    scene: vtkMRMLScene, segmentation: Segmentation, name: str, grid: vtkMRMLScalarVolumeNode
) -> vtkMRMLSegmentationNode:
    """A new segmentation node: one segment for each structure, empty ones too, in one shared label map.

    Segment names, colours, label values and terminology are those of the structures; `grid` is the volume
    whose voxels the segmentation refers to.
    """
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(name))
    node.CreateDefaultDisplayNodes()
    labels = _oriented_image(segmentation.volume)
    contents = node.GetSegmentation()
    node.SetSourceRepresentationToBinaryLabelmap()
    for structure in segmentation.structures:
        contents.AddSegment(_segment(structure, labels), f"Segment_{structure.value}")
    node.SetReferenceImageGeometryParameterFromVolumeNode(grid)
    node.GetDisplayNode().SetOpacity2DFill(_FILL)
    return node


def segmentation_from_node(node: vtkMRMLSegmentationNode, grid: vtkMRMLScalarVolumeNode) -> Segmentation:
    """What a segmentation node shows now, edits included, on the voxel grid of `grid`."""
    contents = node.GetSegmentation()
    segments = [contents.GetNthSegment(n) for n in range(contents.GetNumberOfSegments())]
    identifiers, values = vtk.vtkStringArray(), vtk.vtkIntArray()
    labels = [segment.GetLabelValue() for segment in segments]
    if len(set(labels)) < len(labels) or 0 in labels:  # segments in several layers may share a value
        labels = list(range(1, len(segments) + 1))
    for index, label in enumerate(labels):
        identifiers.InsertNextValue(contents.GetNthSegmentID(index))
        values.InsertNextValue(label)
    merged = slicer.vtkOrientedImageData()
    slicer.vtkSlicerSegmentationsModuleLogic.GenerateMergedLabelmapInReferenceGeometry(
        node, grid, identifiers, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, merged, values
    )
    structures = [
        Structure(label, segment.GetName(), tuple(segment.GetColor()))
        for label, segment in zip(labels, segments, strict=True)
    ]
    return Segmentation(volume_from_node(grid).with_voxels(_voxels(merged, grid)), tuple(structures))


def ijk_to_ras(volume: Volume) -> vtk.vtkMatrix4x4:
    """The 4x4 matrix from voxel indices (i, j, k) to RAS millimetres."""
    matrix = np.eye(4)
    matrix[:3, :3] = _LPS @ np.reshape(volume.direction, (3, 3)) @ np.diag(volume.spacing)
    matrix[:3, 3] = _LPS @ np.asarray(volume.origin)
    return slicer.util.vtkMatrixFromArray(matrix)


def world_position(node: vtkMRMLScalarVolumeNode, ijk: Iterable[float]) -> tuple[float, float, float]:
    """RAS millimetres, transforms of the node included, of the voxel (i, j, k)."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    local = matrix.MultiplyPoint([*map(float, ijk), 1.0])[:3]
    world = [0.0, 0.0, 0.0]
    node.TransformPointToWorld(local, world)
    return _triple(world)


def place_beside(node: vtkMRMLNode, beside: vtkMRMLNode, folder: int = 0) -> None:
    """Put a new node in the subject hierarchy where `beside` is, or in `folder`."""
    hierarchy, item = hierarchy_item(node)
    hierarchy.SetItemParent(item, folder or hierarchy.GetItemParent(hierarchy_item(beside)[1]))


def hierarchy_item(node: vtkMRMLNode):
    """The subject hierarchy of the node's scene and the node's item in it, made where there is none."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    if item == hierarchy.GetInvalidItemID():
        item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    return hierarchy, item


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    x, y, z = map(float, values)
    return x, y, z


def _segment(structure: Structure, labels: slicer.vtkOrientedImageData) -> slicer.vtkSegment:
    segment = slicer.vtkSegment()
    segment.SetName(structure.name)
    segment.SetColor(*structure.color)
    segment.SetLabelValue(structure.value)
    segment.SetTag(segment.GetTerminologyEntryTagName(), slicer_entry(structure.name))
    segment.AddRepresentation(
        slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName(), labels
    )
    return segment


def _oriented_image(volume: Volume) -> slicer.vtkOrientedImageData:
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*volume.voxels.shape[::-1])
    voxels = np.ascontiguousarray(volume.voxels, dtype=np.uint8)
    image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
    image.SetImageToWorldMatrix(ijk_to_ras(volume))
    return image


def _voxels(image: slicer.vtkOrientedImageData, grid: vtkMRMLScalarVolumeNode) -> np.ndarray:
    """uint8 (K, J, I) on the whole grid; the image may cover a part of it, or nothing."""
    labels = np.zeros(grid.GetImageData().GetDimensions()[::-1], np.uint8)
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    if i1 >= i0 and j1 >= j0 and k1 >= k0 and image.GetPointData().GetScalars() is not None:
        part = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
        labels[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = part
    return labels
