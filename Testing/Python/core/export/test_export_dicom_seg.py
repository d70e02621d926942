"""DICOM SEG: on the grid of the source series to the last voxel, linked to it, named and coded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from MedShieldLib.errors import InputError
from MedShieldLib.volume import Segmentation, Structure, Volume

pydicom = pytest.importorskip("pydicom", reason="needs pydicom")
hd = pytest.importorskip("highdicom", reason="needs highdicom")
from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.uid import generate_uid  # noqa: E402

from MedShieldLib.export.dicom_seg import write_dicom_seg  # noqa: E402

SHAPE = (18, 24, 20)
SPACING = (1.2, 0.9, 2.5)
STRUCTURES = (
    Structure(2, "Grey matter", (0.35, 0.75, 0.35)),
    Structure(7, "Läsion \\ neu\n" * 12, (1.0, 0.0, 0.0)),
    Structure(9, "CSF", (0.0, 0.0, 1.0)),
)


def _write_series(folder: Path, origin: tuple[float, float, float] = (10.0, -30.0, 5.0)) -> list[Path]:
    """An oblique series after the real MR slice that pydicom ships; names run against the slices."""
    folder.mkdir()
    rotation = np.array([[0.8, -0.36, 0.48], [0.6, 0.48, -0.64], [0.0, 0.8, 0.6]])
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    rng, files = np.random.default_rng(0), []
    for k in range(SHAPE[0]):
        one = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
        one.SpecificCharacterSet, one.PatientName = "ISO_IR 100", "Müller^Jörg"
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.InstanceNumber, one.Rows, one.Columns = k + 1, SHAPE[1], SHAPE[2]
        one.PixelSpacing, one.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
        one.ImageOrientationPatient = [*rotation[:, 0], *rotation[:, 1]]
        one.ImagePositionPatient = list(np.round(origin + rotation[:, 2] * k * SPACING[2], 6))
        one.PixelData = rng.integers(0, 900, SHAPE[1:]).astype("<i2").tobytes()
        files.append(folder / f"{99 - k}.dcm")
        one.save_as(files[-1])
    return files


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return _write_series(tmp_path_factory.mktemp("dicom") / "series")


@pytest.fixture(scope="module")
def segmentation(series: list[Path]) -> Segmentation:
    volume = Volume.read(series[0].parent)
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:9, 2:12, 4:15], labels[8:14, 13:20, 1:9] = 2, 7
    return Segmentation(volume.with_voxels(labels), STRUCTURES)


@pytest.fixture(scope="module")
def written(segmentation: Segmentation, series: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seg") / "Prüfung.dcm"
    return write_dicom_seg(segmentation, series[::-1], path, target="brain-tissue")


def assert_same_voxels(written: Path, segmentation: Segmentation) -> None:
    """Read back, every voxel has its label at its place in the patient."""
    back = hd.seg.segread(written).get_volume(combine_segments=True)
    voxels = np.argwhere(back.array)
    to_index = np.linalg.inv(segmentation.volume.affine[:, [2, 1, 0, 3]]) @ back.affine
    places = np.column_stack([voxels, np.ones(len(voxels))]) @ to_index.T
    np.testing.assert_allclose(places, np.rint(places), atol=1e-4)
    rebuilt = np.zeros(SHAPE, int)
    rebuilt[tuple(np.rint(places[:, :3]).astype(int).T)] = back.array[tuple(voxels.T)]
    expected = np.select([segmentation.labels == s.value for s in STRUCTURES], [1, 2, 3], 0)
    np.testing.assert_array_equal(rebuilt, expected)


def test_every_voxel_comes_back_at_its_place(written: Path, segmentation: Segmentation) -> None:
    assert_same_voxels(written, segmentation)


def test_it_refers_to_the_slices_that_were_segmented(written: Path, series: list[Path]) -> None:
    dataset = pydicom.dcmread(written)
    sources = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, series)}
    first = next(iter(sources.values()))
    assert dataset.StudyInstanceUID == first.StudyInstanceUID
    assert dataset.FrameOfReferenceUID == first.FrameOfReferenceUID
    (reference,) = dataset.ReferencedSeriesSequence
    assert reference.SeriesInstanceUID == first.SeriesInstanceUID != dataset.SeriesInstanceUID
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        source = sources[image.ReferencedSOPInstanceUID]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, source.ImagePositionPatient, atol=1e-4)


def test_segments_are_named_coded_coloured_and_signed(written: Path) -> None:
    seg = hd.seg.segread(written)
    grey, lesion, csf = (seg.get_segment_description(number) for number in (1, 2, 3))
    assert grey.segment_label == "Grey matter" and grey.segmented_property_type.value == "389081007"
    assert csf.segmented_property_category.value == "91720002"
    assert lesion.segment_label.startswith("Läsion") and len(lesion.segment_label.encode()) <= 64
    assert lesion.segmented_property_type.value == "85756007"
    for description in (grey, lesion, csf):
        assert description.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
        (algorithm,) = description.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "MedShield" and "brain-tissue" in algorithm.AlgorithmParameters
    red, green, blue = hd.color.CIELabColor.from_dicom_value(lesion.RecommendedDisplayCIELabValue).to_rgb()
    assert red > 240 and green < 15 and blue < 15


def test_every_value_is_valid_and_the_patient_is_the_same(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pydicom.config.settings, "_reading_validation_mode", pydicom.config.RAISE)
    dataset = pydicom.dcmread(written)
    assert len(list(dataset.iterall())) > 100
    assert str(dataset.PatientName) == "Müller^Jörg"
    assert dataset.SOPClassUID == pydicom.uid.SegmentationStorage and dataset.Modality == "SEG"


def test_an_empty_segmentation_can_be_written(
    segmentation: Segmentation, series: list[Path], tmp_path: Path
) -> None:
    nothing = Segmentation(segmentation.volume.with_voxels(np.zeros(SHAPE, np.uint8)), STRUCTURES)
    seg = hd.seg.segread(write_dicom_seg(nothing, series, tmp_path / "s.dcm"))
    assert seg.number_of_segments == 3 and not seg.pixel_array.any()


def test_slicers_way_of_turning_a_stack_round_is_the_same_grid(
    segmentation: Segmentation, series: list[Path], tmp_path: Path
) -> None:
    volume = segmentation.volume
    across = np.reshape(volume.direction, (3, 3))[:, 2]
    turned = Volume(
        segmentation.labels[::-1],
        volume.spacing,
        tuple(np.array(volume.origin) + across * volume.spacing[2] * (SHAPE[0] - 1)),
        tuple((np.reshape(volume.direction, (3, 3)) * [1, 1, -1]).ravel()),
    )
    path = write_dicom_seg(Segmentation(turned, STRUCTURES), series, tmp_path / "s.dcm")
    frames = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    assert all("DerivationImageSequence" in frame for frame in frames)


def test_another_series_is_refused(segmentation: Segmentation, series: list[Path], tmp_path: Path) -> None:
    other = _write_series(tmp_path / "other", origin=(10.0, -30.0, 17.0))
    for files in (other, [*series[:-1], other[-1]], [], [Path(__file__)], [tmp_path / "missing.dcm"]):
        with pytest.raises(InputError) as caught:
            write_dicom_seg(segmentation, files, tmp_path / "s.dcm")
        assert str(caught.value).endswith(".")
    assert not (tmp_path / "s.dcm").exists()


def test_a_folder_that_is_not_there_is_named(
    segmentation: Segmentation, series: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_dicom_seg(segmentation, series, tmp_path / "nowhere" / "s.dcm")


@pytest.mark.parametrize("shuffled", [False, True])
def test_it_refers_to_the_frames_of_a_multi_frame_source(
    series: list[Path],
    segmentation: Segmentation,
    multi_frame: Callable[..., pydicom.Dataset],
    tmp_path: Path,
    shuffled: bool,
) -> None:
    order = np.random.default_rng(3).permutation(SHAPE[0]) if shuffled else None
    image = multi_frame([pydicom.dcmread(file) for file in series], order)
    file = tmp_path / "frames.dcm"
    image.save_as(file)
    assert Volume.read(file).same_geometry(segmentation.volume)
    path = write_dicom_seg(segmentation, [file], tmp_path / "s.dcm")
    assert_same_voxels(path, segmentation)
    sources = image.PerFrameFunctionalGroupsSequence
    seg = hd.seg.segread(path)
    assert seg.StudyInstanceUID == image.StudyInstanceUID and seg.PatientID == image.PatientID
    assert len(seg.PerFrameFunctionalGroupsSequence) > 10
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == image.SOPInstanceUID
        source = sources[int(reference.ReferencedFrameNumber) - 1].PlanePositionSequence[0]
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(place, source.ImagePositionPatient, atol=1e-4)


def test_multi_frame_source_on_another_grid_or_in_two_files_is_refused(
    series: list[Path],
    segmentation: Segmentation,
    multi_frame: Callable[..., pydicom.Dataset],
    tmp_path: Path,
) -> None:
    slices = [pydicom.dcmread(file) for file in series]
    parts = [multi_frame(slices[:9]), multi_frame(slices[9:])]
    parts[1].SeriesInstanceUID = parts[0].SeriesInstanceUID
    for n, part in enumerate(parts):
        part.save_as(tmp_path / f"{n}.dcm")
    with pytest.raises(InputError, match="1.dcm is a multi-frame file|0.dcm is a multi-frame file"):
        write_dicom_seg(segmentation, [tmp_path / "0.dcm", tmp_path / "1.dcm"], tmp_path / "s.dcm")
    for group in parts[0].PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient[0] += 5
    parts[0].save_as(tmp_path / "moved.dcm")
    with pytest.raises(InputError, match="not on the grid"):
        write_dicom_seg(segmentation, [tmp_path / "moved.dcm"], tmp_path / "s.dcm")
