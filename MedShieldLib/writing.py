"""SimpleITK images into files: whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import SimpleITK as sitk

from MedShieldLib import itk
from MedShieldLib.errors import InputError
from MedShieldLib.reading import EXTENSIONS, extension_of
from MedShieldLib.refusals import require_plain_name


def write_image(image: sitk.Image, path: Path) -> None:
    """Write `image` in the format that the extension of `path` names, compressed unless that is ".nii".

    Raises:
        InputError: if the extension is not one of `EXTENSIONS`, or the file cannot be written.
    """
    require_plain_name(path)
    extension = extension_of(path)
    if extension is None:
        raise InputError(f"{path} cannot be written; its name must end in {', '.join(EXTENSIONS)}.")
    partial = path.with_name(f".{uuid.uuid4().hex}{extension}")
    try:
        try:
            with itk.quiet():
                sitk.WriteImage(image, str(partial), useCompression=extension != ".nii")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, RuntimeError):
        raise InputError(
            f"{path} cannot be written; its folder must exist, be writable and have room."
        ) from None
