"""Small things around SimpleITK that all who read and write with it share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import SimpleITK as sitk

from MedShieldLib.refusals import require_component


@contextmanager
def quiet() -> Iterator[None]:
    """ITK's warnings stay off the terminal; what matters in them is checked and said in plain words."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def scalar_image(name: object, image: sitk.Image, component: int | None) -> sitk.Image:
    """`image` itself, or the chosen component of a vector image.

    Raises:
        InputError: as `require_component`.
    """
    chosen = require_component(name, component, image.GetNumberOfComponentsPerPixel())
    is_vector = "vector" in image.GetPixelIDTypeAsString()
    return sitk.VectorIndexSelectionCast(image, chosen) if is_vector else image
