"""DICOM SEG: a segmentation as an object of its own beside the series that it was made on.

Written by highdicom; other formats are in `segmentation.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from MedShieldLib import __version__
from MedShieldLib.dicom_frames import frames_of
from MedShieldLib.errors import InputError
from MedShieldLib.export.replacing import replacing
from MedShieldLib.export.terminology import Term, terms_of
from MedShieldLib.volume import Segmentation, Structure

NAME = "MedShield"
SERIES_NUMBER = 990
_LONG_STRING = 64  # the most characters of a DICOM LO; some readers count bytes


def write_dicom_seg(
    segmentation: Segmentation,
    source_files: Sequence[str | Path],
    path: str | Path,
    *,
    description: str = "MedShield defended segmentation",
    target: str = "",
) -> Path:
    """Write a binary DICOM SEG that refers to the series that was segmented; no voxel is resampled.

    Args:
        segmentation: label map on the grid of that series, its slices along the first axis.
        source_files: the DICOM files of the series, in any order; of multi-frame ones a single file.
        path: the file to write.
        description: of the new series, as a viewer lists it.
        target: name of the model that segmented.

    Raises:
        InputError: if a file is no DICOM image of one series, the grid is another one, or `path` cannot be
            written.
    """
    path = Path(path)
    sources = _read_headers(source_files)
    dataset = dicom_seg(segmentation, sources, description, target)
    try:
        with replacing(path) as partial:
            dataset.save_as(partial)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another folder.") from error
    return path


def dicom_seg(
    segmentation: Segmentation, sources: Sequence[pydicom.Dataset], description: str, target: str
) -> hd.seg.Segmentation:
    """The data set that `write_dicom_seg` writes, from the headers of the source series."""
    _require_same_grid(segmentation, sources)
    algorithm = hd.AlgorithmIdentificationSequence(
        name=NAME,
        version=__version__,
        family=codes.DCM.ArtificialIntelligence,
        parameters={"target": _text(target)} if target else None,
    )
    numbers = np.zeros(256, np.uint8)
    for number, structure in enumerate(segmentation.structures, 1):
        numbers[structure.value] = number
    volume = segmentation.volume
    dataset = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=hd.Volume(
            numbers[segmentation.labels],
            volume.affine[:, [2, 1, 0, 3]],  # array axes are (k, j, i)
            coordinate_system="PATIENT",
            frame_of_reference_uid=sources[0].FrameOfReferenceUID,
        ),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(number, structure, algorithm)
            for number, structure in enumerate(segmentation.structures, 1)
        ],
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        series_number=SERIES_NUMBER,
        instance_number=1,
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=__version__,
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description=_text(description),
        series_description=_text(description),
    )
    dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: names of structures need not fit the source's set
    return dataset


def _description(
    number: int, structure: Structure, algorithm: hd.AlgorithmIdentificationSequence
) -> hd.seg.SegmentDescription:
    category, kind = terms_of(structure.name)
    red, green, blue = (round(255 * min(max(part, 0), 1)) for part in structure.color)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=_text(structure.name) or f"Structure {structure.value}",
        segmented_property_category=_code(category),
        segmented_property_type=_code(kind),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=hd.color.CIELabColor.from_rgb(red, green, blue),
    )


def _code(term: Term) -> Code:
    return Code(term.code, "SCT", term.meaning)


def _text(text: str) -> str:
    """What fits into a DICOM LO: short, without control characters and backslashes."""
    plain = "".join(letter if letter.isprintable() and letter != "\\" else " " for letter in text)
    return plain.strip().encode("utf-8", "replace")[:_LONG_STRING].decode("utf-8", "ignore").strip()


def _read_headers(files: Sequence[str | Path]) -> list[pydicom.Dataset]:
    headers: list[pydicom.Dataset] = []
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError) as error:
            raise InputError(f"{file} cannot be read as DICOM; give those of the source series.") from error
        if "FrameOfReferenceUID" not in header or not all(frame.is_placed for frame in frames_of(header)):
            raise InputError(f"{file} is no slice with a position in the patient; give those of the series.")
        headers.append(header)
    if not headers:
        raise InputError("DICOM SEG needs the DICOM files of the series that was segmented.")
    for file, one in zip(files, headers, strict=True):
        if one.SeriesInstanceUID != headers[0].SeriesInstanceUID:
            raise InputError(f"{file} belongs to another series than {files[0]}; give the files of one.")
        if len(headers) > 1 and one.get("NumberOfFrames", 1) > 1:
            raise InputError(f"{file} is a multi-frame file, of which DICOM SEG takes one; give it alone.")
    return headers


def _require_same_grid(segmentation: Segmentation, sources: Sequence[pydicom.Dataset]) -> None:
    """Every source slice must be a slice of the segmentation: a mask on another scan would look right.

    The two may run in opposite directions: Slicer turns left-handed stacks round.
    """
    volume = segmentation.volume
    to_index = np.linalg.inv(volume.affine)
    last = np.array(volume.voxels.shape[::-1]) - 1
    frames = [(source, frame) for source in sources for frame in frames_of(source)]
    for source, frame in frames:
        across, (down, right) = np.reshape(frame.orientation, (2, 3)), frame.spacing
        first = np.array(frame.position)
        end = first + across[0] * right * (source.Columns - 1) + across[1] * down * (source.Rows - 1)
        corners = np.array([to_index @ [*corner, 1] for corner in (first, end)])[:, :3]
        spread = np.abs(corners[1] - corners[0])
        inside = (corners > -0.5).all() and (corners < last + 0.5).all()
        if not inside or np.abs(spread - [last[0], last[1], 0]).max() > 0.5:
            raise InputError(
                f"The slice at {list(frame.position)} of the series {source.SeriesInstanceUID} is "
                "not on the grid of the segmentation; give the series that was segmented."
            )
