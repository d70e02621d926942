"""What several readers refuse in the same words. A sentence names the file or the volume and what to do."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from MedShieldLib.errors import InputError

# A check keeps about this many float32 copies of the volume at its peak.
_WORKING_COPIES = 4
_FLOAT32_BYTES = 4


def cut_short(path: object) -> InputError:
    return InputError(f"{path} is cut short or damaged; copy or download it again.")


def require_plain_name(path: object) -> None:
    """Raise InputError for a file name that is not valid text: SimpleITK would end the whole process."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(str(path)).decode("utf-8", "backslashreplace")
        raise InputError(f"{shown} has a name that is not valid UTF-8; rename it.") from None


def not_finite(name: object) -> InputError:
    return InputError(f"{name} has voxels that are NaN, infinite or beyond float32; mask them.")


def not_at_right_angles(name: object) -> InputError:
    return InputError(
        f"{name} has axes that are not at right angles; resample it, for instance in 3D Slicer."
    )


def shape_text(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def require_spacing(name: object, spacing: Sequence[float]) -> None:
    """Raise InputError unless every spacing (mm) is a positive number."""
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        found = " x ".join(f"{mm:g}" for mm in spacing)
        raise InputError(f"{name} has a voxel spacing of {found} mm; correct it to numbers above 0.")


def require_memory(name: object, size: Sequence[int], channels: int = 1) -> None:
    """Raise InputError if a volume of this size could not be worked with on this computer."""
    needed = math.prod(size) * channels * _FLOAT32_BYTES * _WORKING_COPIES
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
    if component is None and count > 1:
        raise InputError(
            f"{name} holds {count} components (time points or channels); choose one from 0 to {count - 1} "
            f"with --component (in Python: component=)."
        )
    if not 0 <= (component or 0) < count:
        raise InputError(f"{name} has no component {component}; it has {count}, counted from 0.")
    return component or 0


def _memory_bytes() -> float:
    """The computer's memory; infinite where the system does not tell (Windows)."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return math.inf
