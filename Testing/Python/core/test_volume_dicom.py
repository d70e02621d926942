"""DICOM series: put together in the right place, or refused with the slice named."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from MedShieldLib.errors import InputError
from MedShieldLib.extras import how_to_install
from MedShieldLib.volume import Volume

pydicom = pytest.importorskip("pydicom", reason="needs pydicom to write DICOM files")
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid  # noqa: E402

SERIES = "1.2.826.0.1.3680043.8.498.1"
OTHER_SERIES = "1.2.826.0.1.3680043.8.498.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)
STEP_MM = 1.5
FIRST = np.array([-20.0, 30.0, -40.0])


def _voxels(count: int = 18) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 4000, (count, 20, 22)).astype(np.uint16)


def _normal(orientation: tuple[float, ...]) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def _slice(
    voxels: np.ndarray, number: int, position: np.ndarray, orientation=AXIAL, series=SERIES
) -> FileDataset:
    """One slice of an MR series, with the tags that its storage class requires."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    slice_.SpecificCharacterSet = "ISO_IR 192"
    slice_.SOPClassUID, slice_.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    slice_.PatientName, slice_.PatientID, slice_.PatientBirthDate, slice_.PatientSex = (
        "Phantom^Test",
        "1",
        "",
        "O",
    )
    slice_.StudyInstanceUID, slice_.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498", series
    slice_.FrameOfReferenceUID, slice_.PositionReferenceIndicator = "1.2.826.0.1.3680043.8.498.9", ""
    slice_.StudyDate, slice_.StudyTime, slice_.StudyID, slice_.AccessionNumber = "20200101", "120000", "1", ""
    slice_.ReferringPhysicianName, slice_.Manufacturer, slice_.Modality = "", "", "MR"
    slice_.SeriesNumber, slice_.SeriesDescription, slice_.InstanceNumber = 1, "T1 Schädel", number
    slice_.ImageType, slice_.ScanningSequence, slice_.SequenceVariant = (
        ["ORIGINAL", "PRIMARY", "OTHER"],
        "GR",
        "SP",
    )
    slice_.ScanOptions, slice_.MRAcquisitionType, slice_.EchoTrainLength = "", "3D", 1
    slice_.EchoTime, slice_.RepetitionTime = 3.0, 2000.0
    slice_.ImagePositionPatient = [round(float(mm), 6) for mm in position]
    slice_.ImageOrientationPatient = list(orientation)
    slice_.PixelSpacing, slice_.SliceThickness = [1.2, 0.9], STEP_MM
    slice_.Rows, slice_.Columns, slice_.SamplesPerPixel = *voxels.shape, 1
    slice_.PhotometricInterpretation, slice_.PixelRepresentation = (
        "MONOCHROME2",
        int(voxels.dtype.kind == "i"),
    )
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 16, 15
    slice_.PixelData = voxels.tobytes()
    return slice_


def _stack(voxels: np.ndarray, orientation=AXIAL, series: str = SERIES) -> list[FileDataset]:
    normal = _normal(orientation)
    return [
        _slice(plane, k + 1, FIRST + k * STEP_MM * normal, orientation, series)
        for k, plane in enumerate(voxels)
    ]


def _save(folder: Path, slices: list[FileDataset], name: str = "IM{:03}.dcm") -> Path:
    folder.mkdir(exist_ok=True)
    for k, slice_ in enumerate(slices):
        slice_.save_as(folder / name.format(k), enforce_file_format=True)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "Patient Müller 頭"


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE], ids=("axial", "sagittal", "oblique"))
def test_series_lies_where_its_slices_say(folder, orientation, capfd):
    _save(folder, _stack(_voxels(), orientation))
    volume = Volume.read(folder)
    volume.require_checkable()
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    for i, j, k in ((0, 0, 0), (21, 0, 0), (0, 19, 0), (21, 19, 17)):
        expected = FIRST + i * 0.9 * row + j * 1.2 * column + k * STEP_MM * _normal(orientation)
        np.testing.assert_allclose((volume.affine @ [i, j, k, 1])[:3], expected, atol=1e-4)
    np.testing.assert_array_equal(volume.voxels, _voxels())
    assert volume.voxels.dtype == np.uint16 and volume.source == folder
    assert capfd.readouterr() == ("", "")


def test_geometry_agrees_with_simpleitk_on_a_regular_series(folder):
    import SimpleITK as sitk

    _save(folder, _stack(_voxels(), OBLIQUE))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), SERIES))
    assert Volume.read(folder).same_geometry(Volume.from_sitk(reader.Execute()))


def test_file_names_and_order_do_not_matter(folder):
    slices = _stack(_voxels())
    _save(folder, slices[::-1], name="{:02}")  # no extension, upside down
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "DICOMDIR.json").write_bytes(gzip.compress(b"{}"))
    (folder / "more").mkdir()
    np.testing.assert_array_equal(Volume.read(folder).voxels, _voxels())


def test_nifti_written_from_a_series_has_its_geometry(folder, tmp_path):
    volume = Volume.read(_save(folder, _stack(_voxels(), OBLIQUE)))
    volume.write(tmp_path / "a.nii.gz")
    assert Volume.read(tmp_path / "a.nii.gz").same_geometry(volume)


def test_one_file_of_a_series_stands_for_the_series(folder):
    _save(folder, _stack(_voxels(), OBLIQUE))
    _save(folder, _stack(_voxels()[:4], series=OTHER_SERIES), name="other{}")
    volume = Volume.read(folder / "IM004.dcm")
    assert volume.same_geometry(Volume.read(folder, series=SERIES))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_name_that_is_not_utf_8_is_refused(folder, refusal):
    odd = folder / os.fsdecode(b"IM\xff.dcm")
    next(iter(_save(folder, _stack(_voxels())).iterdir())).rename(odd)
    assert "rename it" in refusal(folder)
    with pytest.raises(InputError, match="rename it"):
        Volume.read(odd)


def test_several_series_are_listed_and_one_can_be_chosen(folder, refusal):
    _save(folder, _stack(_voxels()))
    _save(folder, _stack(_voxels()[:17, :18], series=OTHER_SERIES), name="other{}")
    message = refusal(folder)
    for part in (SERIES, OTHER_SERIES, "T1 Schädel", "18 images", "17 images", "--series", "series="):
        assert part in message
    assert Volume.read(folder, series=OTHER_SERIES).voxels.shape == (17, 18, 22)
    assert "no DICOM series 1.2.3" in refusal(folder, series="1.2.3")


def test_description_in_another_alphabet_is_listed(folder, refusal):
    slices = _stack(_voxels())
    for slice_ in slices:
        slice_.SpecificCharacterSet = "ISO_IR 100"
    _save(folder, slices)
    _save(folder, _stack(_voxels()[:2], series=OTHER_SERIES), name="other{}")
    assert "T1 Sch" in refusal(folder)


def test_rescale_slope_and_intercept_are_applied(folder):
    slices = _stack(_voxels())
    for slice_ in slices:
        slice_.RescaleSlope, slice_.RescaleIntercept, slice_.RescaleType = 1, -1024, "HU"
    np.testing.assert_array_equal(Volume.read(_save(folder, slices)).voxels, _voxels().astype(int) - 1024)


def test_slices_with_different_slopes_lose_nothing(folder):
    slices = _stack(_voxels())
    for k, slice_ in enumerate(slices):
        slice_.RescaleSlope, slice_.RescaleIntercept = (1 if k < 5 else 0.5), 0
    slopes = np.where(np.arange(18) < 5, 1, 0.5)[:, None, None]
    np.testing.assert_array_equal(Volume.read(_save(folder, slices)).voxels, _voxels() * slopes)


def test_copies_of_a_slice_count_once(folder):
    slices = _stack(_voxels())
    _save(folder, slices)
    slices[3].save_as(folder / "copy of IM003.dcm", enforce_file_format=True)
    assert Volume.read(folder).voxels.shape == _voxels().shape


def test_time_points_ask_for_a_component(folder, refusal):
    early, late = _stack(_voxels()), _stack(_voxels()[::-1])
    for k, slice_ in enumerate(late):
        slice_.InstanceNumber = 100 + k
    _save(folder, late, name="a{}")
    _save(folder, early, name="b{}")
    message = refusal(folder)
    assert "2 components" in message and "--component" in message
    np.testing.assert_array_equal(Volume.read(folder, component=0).voxels, _voxels())
    np.testing.assert_array_equal(Volume.read(folder, component=1).voxels, _voxels()[::-1])
    (folder / "a7").unlink()
    assert "2 images of some slices and 1 of others" in refusal(folder)


# Multi-frame files


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE], ids=("axial", "sagittal", "oblique"))
def test_multi_frame_file_is_the_volume_of_its_series(folder, tmp_path, multi_frame, orientation, capfd):
    slices = _stack(_voxels(), orientation)
    order = np.random.default_rng(1).permutation(18)
    _save(folder, [multi_frame(slices, order)])
    expected = Volume.read(_save(tmp_path / "classic", slices))
    for path in (folder, folder / "IM000.dcm"):
        volume = Volume.read(path)
        assert volume.same_geometry(expected) and volume.voxels.dtype == expected.voxels.dtype
        np.testing.assert_array_equal(volume.voxels, expected.voxels)
    assert capfd.readouterr() == ("", "")


def test_multi_frame_file_without_pydicom_says_what_to_install(folder, multi_frame, monkeypatch):
    _save(folder, [multi_frame(_stack(_voxels()))])
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        Volume.read(folder)
    assert "pip install 'medshield[dicom]'" in how_to_install(caught.value)


def test_frames_of_several_files_make_one_volume(folder, multi_frame):
    slices = _stack(_voxels(), OBLIQUE)
    parts = [multi_frame(slices[:7]), multi_frame(slices[7:])]
    parts[1].SeriesInstanceUID = parts[0].SeriesInstanceUID
    np.testing.assert_array_equal(Volume.read(_save(folder, parts)).voxels, _voxels())


@pytest.mark.parametrize("varies", [False, True], ids=("shared", "per frame"))
def test_values_of_frames_are_rescaled(folder, multi_frame, varies):
    slices = _stack(_voxels())
    slopes, intercepts = 0.5 + varies * np.arange(18) / 4, -3 + varies * np.arange(18)
    for slice_, slope, intercept in zip(slices, slopes, intercepts, strict=True):
        slice_.RescaleSlope, slice_.RescaleIntercept, slice_.RescaleType = slope, intercept, "US"
    expected = _voxels() * slopes[:, None, None] + intercepts[:, None, None]
    np.testing.assert_allclose(Volume.read(_save(folder, [multi_frame(slices)])).voxels, expected)


def test_time_points_in_one_file_ask_for_a_component(folder, multi_frame, refusal):
    points = [_voxels(), _voxels() + 8000]
    slices = [slice_ for point in points for slice_ in _stack(point)]
    brightness = multi_frame(slices).pixel_array.max((1, 2))
    _save(folder, [multi_frame(slices, np.argsort(brightness > 8000, kind="stable"))])
    assert "2 components" in refusal(folder)
    for n, point in enumerate(points):
        np.testing.assert_array_equal(Volume.read(folder, component=n).voxels, point)


def test_missing_frame_is_named_by_place_and_neighbours(folder, multi_frame, refusal):
    slices = _stack(_voxels())
    message = refusal(_save(folder, [multi_frame(slices[:7] + slices[8:])]))
    assert "lacks 1 slice (at -29.50 mm" in message
    assert "between frame 7 of IM000.dcm and frame 8 of IM000.dcm" in message


def test_frame_without_a_position_is_named(folder, multi_frame, refusal):
    image = multi_frame(_stack(_voxels()))
    del image.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence
    assert f"Frame 5 of {folder / 'IM000.dcm'} lacks the position" in refusal(_save(folder, [image]))


def test_more_frames_than_are_described_are_refused(folder, multi_frame):
    image = multi_frame(_stack(_voxels()))
    del image.PerFrameFunctionalGroupsSequence[17]
    _assert_refused(_save(folder, [image]), "IM000.dcm", "damaged")


@pytest.mark.parametrize("kept", [140, 700, 0.5, 0.99])
def test_truncated_multi_frame_file_is_named(folder, multi_frame, kept):
    path = _save(folder, [multi_frame(_stack(_voxels()))]) / "IM000.dcm"
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    _assert_refused(folder, path.name, "cut short")


# What makes no volume


def _assert_refused(path: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        Volume.read(path)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_missing_slice_is_named_by_place_and_neighbours(folder, refusal):
    slices = _stack(_voxels())
    del slices[7]
    message = refusal(_save(folder, slices))
    assert "lacks 1 slice (at -29.50 mm" in message and "between IM006.dcm and IM007.dcm" in message


def test_several_missing_slices_are_all_named(folder, refusal):
    slices = _stack(_voxels())
    del slices[7:9]
    del slices[3]
    message = refusal(_save(folder, slices))
    assert "lacks 1 slice (at -35.50 mm" in message and "lacks 2 slices (at -29.50, -28.00 mm" in message


def test_irregular_slices_are_named(folder, refusal):
    slices = _stack(_voxels())
    for slice_ in slices[10:]:
        slice_.ImagePositionPatient[2] += 0.6
    message = refusal(_save(folder, slices))
    assert "irregular slices (2.10 mm apart, usually 1.50 mm) between IM009.dcm and IM010.dcm" in message


def test_rounded_positions_are_regular(folder):
    slices = _stack(_voxels())
    for k, slice_ in enumerate(slices):
        slice_.ImagePositionPatient[2] += 0.01 * (-1) ** k
    assert Volume.read(_save(folder, slices)).spacing[2] == pytest.approx(STEP_MM, abs=2e-3)


def test_tilted_gantry_is_refused(folder, refusal):
    slices = _stack(_voxels())
    for k, slice_ in enumerate(slices):
        slice_.ImagePositionPatient[1] += 0.3 * k
    assert "drift sideways" in refusal(_save(folder, slices))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda s: setattr(s, "ImageOrientationPatient", list(SAGITTAL)), "orientation"),
        (lambda s: setattr(s, "PixelSpacing", [2.0, 2.0]), "pixel spacing"),
        (lambda s: setattr(s, "PixelSpacing", [0.0, 1.0]), "spacing of 0 x 1 mm"),
        (lambda s: setattr(s, "PixelSpacing", [-1.0, 1.0]), "spacing of -1 x 1 mm"),
        (lambda s: setattr(s, "ImageOrientationPatient", [0.0] * 6), "right angles"),
        (lambda s: delattr(s, "PixelSpacing"), "pixel spacing"),
        (lambda s: delattr(s, "ImagePositionPatient"), "position"),
        (lambda s: delattr(s, "ImageOrientationPatient"), "orientation"),
    ],
)
def test_slice_that_does_not_belong_is_named(folder, spoil, reason):
    slices = _stack(_voxels())
    spoil(slices[5])
    _save(folder, slices)
    _assert_refused(folder, "IM005.dcm", reason)


def test_slice_with_another_matrix_is_named(folder):
    slices = _stack(_voxels())
    slices[5] = _slice(_voxels()[5][:18], 6, FIRST + 5 * STEP_MM * _normal(AXIAL))
    _assert_refused(_save(folder, slices), "IM005.dcm", "matrix size")


def test_single_slice_is_refused(folder, refusal):
    assert "single slice" in refusal(_save(folder, [_slice(_voxels()[0], 1, FIRST)]))
    assert "single slice" in refusal(folder / "IM000.dcm")


def test_one_position_imaged_many_times_is_refused(folder, refusal):
    _save(folder, [_slice(plane, k, FIRST) for k, plane in enumerate(_voxels())])
    assert "images of a single slice" in refusal(folder, component=0)


def test_few_slices_are_too_thin_to_check(folder, refusal):
    assert "at least 16" in refusal(_save(folder, _stack(_voxels(15))))


@pytest.mark.parametrize("kept", [0, 100, 140, 700, 0.5, 0.99])
@pytest.mark.parametrize("k", [5, 17], ids=("inner", "last"))
def test_truncated_slice_is_named_not_left_out(folder, kept, k):
    _save(folder, _stack(_voxels()))
    path = folder / f"IM{k:03}.dcm"
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    _assert_refused(folder, path.name, "cut short")


def test_other_dicom_objects_in_the_folder_are_passed_over(folder):
    _save(folder, _stack(_voxels()))
    report = _slice(_voxels()[0], 1, FIRST)
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.Modality = "SR"
    for tag in ("PixelData", "Rows", "Columns", "BitsAllocated", "PixelSpacing", "SamplesPerPixel"):
        delattr(report, tag)
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    assert Volume.read(folder).voxels.shape == _voxels().shape


def test_multi_frame_file_that_is_not_enhanced_is_refused(folder, refusal):
    slice_ = _slice(_voxels()[0], 1, FIRST)
    slice_.NumberOfFrames = 18
    slice_.PixelData = _voxels().tobytes()
    path = _save(folder, [slice_]) / "IM000.dcm"
    assert "multi-frame" in refusal(path)


def test_folder_without_dicom_is_refused(folder, refusal):
    folder.mkdir()
    assert "no DICOM images" in refusal(folder)
    (folder / "notes.txt").write_text("nothing here")
    _save(folder / "below", _stack(_voxels()))
    assert "sub-folders are not searched" in refusal(folder)


def test_constant_series_is_refused(folder, refusal):
    assert "constant" in refusal(_save(folder, _stack(np.full((18, 20, 22), 9, np.uint16))))
