"""Small things around SimpleITK that reading files and reading DICOM share: silence, memory, components."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk

from MedShieldLib.errors import InputError

# A check keeps about this many float32 copies of the volume at its peak.
_WORKING_COPIES = 4


@contextmanager
def quiet() -> Iterator[None]:
    """ITK's warnings stay off the terminal; what matters in them is checked and said in plain words."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def require_memory(name: object, size: Sequence[int], channels: int = 1) -> None:
    """Raise InputError if a volume of this size could not be worked with on this computer."""
    needed = math.prod(size) * channels * np.dtype(np.float32).itemsize * _WORKING_COPIES
    if needed > _memory_bytes():
        raise InputError(
            f"{name} has {shape_text(size)} voxels by its header; checking them takes "
            f"{needed / 2**30:,.0f} GB of memory, more than this computer has, so crop or resample it."
        )


def require_component(name: object, component: int | None, count: int) -> int:
    """The component to read out of `count` (channels, time points): the chosen one, or the only one.

    Raises:
        InputError: if there are several and none is chosen, or if the chosen one does not exist.
    """
    if component is None and count == 1:
        return 0
    if component is None:
        raise InputError(
            f"{name} holds {count} components (time points or channels); choose one from 0 to {count - 1} "
            f"with --component (in Python: component=)."
        )
    if not 0 <= component < count:
        raise InputError(f"{name} has no component {component}; it has {count}, counted from 0.")
    return component


def scalar_image(name: object, image: sitk.Image, component: int | None = None) -> sitk.Image:
    """`image` itself, or the chosen component of a vector image.

    Raises:
        InputError: as `require_component`.
    """
    chosen = require_component(name, component, image.GetNumberOfComponentsPerPixel())
    is_vector = "vector" in image.GetPixelIDTypeAsString()
    return sitk.VectorIndexSelectionCast(image, chosen) if is_vector else image


def shape_text(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def _memory_bytes() -> float:
    """The computer's memory; infinite where the system does not tell (Windows)."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return math.inf
