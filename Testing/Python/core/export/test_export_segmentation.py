"""Segmentation files: names, colours, codes and geometry survive, also in 3D Slicer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedShieldLib.errors import InputError
from MedShieldLib.export.segmentation import read_segmentation, write_segmentation
from MedShieldLib.export.terminology import slicer_entry
from MedShieldLib.volume import Segmentation, Structure, Volume

STRUCTURES = (
    Structure(2, "White matter", (0.95, 0.85, 0.35)),
    Structure(7, "Läsion := 5 <b>", (1.0, 0.0, 1 / 3)),
    Structure(9, "nowhere", (0.0, 0.0, 1.0)),
)
OBLIQUE = (0.8, -0.36, 0.48, 0.6, 0.48, -0.64, 0.0, 0.8, 0.6)
LEFT_HANDED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


@pytest.fixture(params=[OBLIQUE, LEFT_HANDED], ids=["oblique", "left-handed"])
def segmentation(request: pytest.FixtureRequest) -> Segmentation:
    labels = np.zeros((6, 7, 8), np.uint8)
    labels[1:3, 2:5, 3:8], labels[4, 6, 0] = 2, 7
    return Segmentation(Volume(labels, (0.9, 1.1, 3.0), (10.5, -20.25, 33.0), request.param), STRUCTURES)


def test_names_colours_and_geometry_come_back(segmentation: Segmentation, tmp_path: Path) -> None:
    back = read_segmentation(write_segmentation(segmentation, tmp_path / "ä b.seg.nrrd"))
    assert [(s.value, s.name) for s in back.structures] == [(s.value, s.name) for s in STRUCTURES]
    for found, written in zip(back.structures, STRUCTURES, strict=True):
        assert found.color == pytest.approx(written.color, abs=1e-5)
    assert back.volume.same_geometry(segmentation.volume)
    assert back.labels.dtype == np.uint8
    np.testing.assert_array_equal(back.labels, segmentation.labels)


def test_nifti_is_uint8_on_the_same_grid(segmentation: Segmentation, tmp_path: Path) -> None:
    wide = Segmentation(segmentation.volume.with_voxels(segmentation.labels.astype(np.int64)), STRUCTURES)
    back = Volume.read(write_segmentation(wide, tmp_path / "s.nii.gz"))
    assert back.voxels.dtype == np.uint8 and back.same_geometry(segmentation.volume)
    np.testing.assert_array_equal(back.voxels, segmentation.labels)


def test_header_has_what_slicer_reads(segmentation: Segmentation, tmp_path: Path) -> None:
    image = sitk.ReadImage(str(write_segmentation(segmentation, tmp_path / "s.seg.nrrd")))
    assert image.GetMetaData("Segmentation_MasterRepresentation") == "Binary labelmap"
    assert image.GetMetaData("Segment0_ID") != image.GetMetaData("Segment1_ID")
    assert image.GetMetaData("Segment0_Extent") == "3 7 2 4 1 2"
    assert image.GetMetaData("Segment0_LabelValue") == "2"
    assert "SCT^389080008^White Matter" in image.GetMetaData("Segment0_Tags")
    assert "SCT^85756007^Tissue~SCT^85756007^Tissue" in image.GetMetaData("Segment1_Tags")


def test_slicer_opens_it(segmentation: Segmentation, tmp_path: Path) -> None:
    slicer = pytest.importorskip("slicer", reason="needs slicer-core")
    if not hasattr(slicer, "vtkMRMLSegmentationStorageNode"):
        pytest.skip("this 'slicer' has no segmentations")
    from vtk.util.numpy_support import vtk_to_numpy

    path = write_segmentation(segmentation, tmp_path / "s.seg.nrrd")
    scene = slicer.vtkMRMLScene()
    node = slicer.vtkMRMLSegmentationNode()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    inside = node.GetSegmentation()
    for number, structure in enumerate(STRUCTURES):
        segment = inside.GetNthSegment(number)
        assert segment.GetName() == structure.name
        assert segment.GetColor() == pytest.approx(structure.color, abs=1e-5)
        labels = vtk_to_numpy(segment.GetRepresentation("Binary labelmap").GetPointData().GetScalars())
        voxels = np.count_nonzero(segmentation.labels == structure.value)
        assert np.count_nonzero(labels == segment.GetLabelValue()) == voxels


def test_line_breaks_in_a_name_cannot_forge_a_header(tmp_path: Path) -> None:
    forged = Structure(1, "liver\nSegment0_Color:=1 1 1\r\n\nend", (0.0, 0.5, 0.0))
    segmentation = Segmentation(Volume(np.ones((4, 4, 4), np.uint8)), (forged,))
    (back,) = read_segmentation(write_segmentation(segmentation, tmp_path / "s.seg.nrrd")).structures
    assert back.color == forged.color and "\n" not in back.name and back.name.startswith("liver")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Segment0_Color", "red"),
        ("Segment0_LabelValue", "two"),
        ("Segment0_Name", None),
        ("Segment0_ID", None),
    ],
)
def test_damaged_segment_lists_are_refused_by_name(tmp_path: Path, field: str, value: str | None) -> None:
    image = sitk.GetImageFromArray(np.ones((4, 4, 4), np.uint8))
    fields = {"Segment0_ID": "a", "Segment0_Name": "a", "Segment0_Color": "1 0 0", "Segment0_LabelValue": "2"}
    for key, text in (fields | {field: value}).items():
        if text is not None:
            image.SetMetaData(key, text)
    sitk.WriteImage(image, str(tmp_path / "bad.seg.nrrd"))
    with pytest.raises(InputError, match=r"bad\.seg\.nrrd"):
        read_segmentation(tmp_path / "bad.seg.nrrd")


def test_a_truncated_file_is_refused_by_name(segmentation: Segmentation, tmp_path: Path) -> None:
    path = write_segmentation(segmentation, tmp_path / "cut.seg.nrrd")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cut\.seg\.nrrd"):
        read_segmentation(path)


def test_names_are_coded_in_any_spelling_and_unknown_ones_as_tissue() -> None:
    assert slicer_entry("Grey matter") == slicer_entry("gray_matter") == slicer_entry(" GM ")
    assert "389081007" in slicer_entry("GM") and "65216001" in slicer_entry("csf")
    assert slicer_entry("evil~^|name") == slicer_entry("Tissue of another kind")
