"""Files into SimpleITK images with three axes and one component: NIfTI, NRRD, MHA, and the way to DICOM.

Whatever is wrong with a file is said in one plain sentence before anything is allocated for it. What the
voxels must be like for a check is in `volume.py`, how a DICOM series is put together in `dicom_series.py`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MedShieldLib import dicom_series, itk
from MedShieldLib.errors import InputError
from MedShieldLib.headers import storage_of
from MedShieldLib.refusals import (
    cut_short,
    not_at_right_angles,
    require_component,
    require_memory,
    require_plain_name,
    require_spacing,
    shape_text,
)

# The parser for each extension; others that SimpleITK has are left alone, since files come from anywhere.
_IMAGE_IO = {".nii": "NiftiImageIO", ".nii.gz": "NiftiImageIO", ".nrrd": "NrrdImageIO", ".mha": "MetaImageIO"}

# The most axes that SimpleITK reads.
_ITK_AXES = 5

EXTENSIONS = tuple(_IMAGE_IO)


def extension_of(path: Path) -> str | None:
    """The extension of an image file, in lower case (".nii.gz" is one); None if not one of `EXTENSIONS`."""
    return next((known for known in EXTENSIONS if path.name.lower().endswith(known)), None)


def read_image(path: Path, series: str | None, component: int | None) -> sitk.Image:
    """The scalar 3D image at `path`: a NIfTI, NRRD or MHA file, a DICOM folder, or one of its files.

    Raises:
        InputError: if it cannot be read, or if it is not clear which series or component is meant.
    """
    require_plain_name(path)
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist.")
        if path.is_dir():
            return dicom_series.read_folder(path, series, component)
        if not path.is_file():  # a pipe, for instance, would be waited for
            raise InputError(f"{path} is neither a file nor a folder; give the file itself.")
        if extension_of(path) is None:
            return dicom_series.read_around(path, series, component)
        if series is not None:
            raise InputError(f"{path} has no series to choose, as it is not DICOM; leave --series out.")
        return _read_file(path, component)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None


def _read_file(path: Path, component: int | None) -> sitk.Image:
    storage = storage_of(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(_IMAGE_IO[str(extension_of(path))])
    with itk.quiet():
        try:
            reader.ReadImageInformation()
            _require_volume(path, reader)
            channels = reader.GetNumberOfComponents()
            frames = reader.GetSize()[3:]
            chosen = require_component(path, component, math.prod(frames) * channels)
            storage.require_whole(path, storage.claimed or _claimed_bytes(reader))
            _limit_to_frame(reader, chosen // channels)
            return itk.scalar_image(path, reader.Execute(), chosen % channels)
        except RuntimeError as error:
            raise _plainly(path, error) from None


def _require_volume(path: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse by the header alone what cannot be a volume; ITK would flip a negative spacing later."""
    size = reader.GetSize()
    if 0 in size:
        raise InputError(f"{path} is empty: its header claims {shape_text(size)} voxels.")
    if sum(axis > 1 for axis in size[:3]) < 3:
        raise InputError(f"{path} is a 2D image of {shape_text(size)} pixels; a volume has three axes.")
    if len(size) > _ITK_AXES:
        raise InputError(f"{path} has {len(size)} axes; save the volume that you mean with three.")
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelIDValue()):
        raise InputError(f"{path} has complex voxels; save their magnitude.")
    require_spacing(path, reader.GetSpacing()[:3])
    require_memory(path, size[:3], reader.GetNumberOfComponents())


def _claimed_bytes(reader: sitk.ImageFileReader) -> int:
    item = sitk.Image([1, 1, 1], reader.GetPixelIDValue()).GetSizeOfPixelComponent()
    return math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * item


def _limit_to_frame(reader: sitk.ImageFileReader, frame: int) -> None:
    """Read only one frame of an image with more than three axes; the fourth axis counts fastest."""
    size = reader.GetSize()
    if len(size) > 3:
        reader.SetExtractSize([*size[:3], *(0 for _ in size[3:])])
        reader.SetExtractIndex([0, 0, 0, *(int(i) for i in np.unravel_index(frame, size[3:], order="F"))])


def _plainly(path: Path, error: RuntimeError) -> InputError:
    return not_at_right_angles(path) if "orthonormal" in str(error) else cut_short(path)
