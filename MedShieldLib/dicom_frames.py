"""Where the frames of a DICOM image lie, and how their stored values are scaled.

A classic image has one frame, described by the header itself. A multi-frame ("enhanced") one describes each
in functional groups, which SimpleITK does not show; so the header comes from pydicom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class Frame:
    """What a header says of one frame; empty where it says nothing.

    Attributes:
        position: LPS mm of the first voxel.
        orientation: direction cosines of the rows and of the columns.
        spacing: mm between rows and between columns, in DICOM's order.
        slope, intercept: from stored values to those that are meant.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    slope: float
    intercept: float

    @property
    def is_placed(self) -> bool:
        """Whether it is known where it lies."""
        return (len(self.position), len(self.orientation), len(self.spacing)) == (3, 6, 2)


def frames_of(header: Dataset) -> list[Frame]:
    """All frames of an image, in the order of their pixels."""
    shared = header.get("SharedFunctionalGroupsSequence") or []
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    return [_frame(header, [group, *shared]) for group in own] or [_frame(header, shared)]


def _frame(header: Dataset, groups: Sequence[Dataset]) -> Frame:
    def numbers(keyword: str, group: str) -> tuple[float, ...]:
        """From the frame's own group, the shared one, or the header: the first that has them."""
        macros = [item for place in groups for item in place.get(group) or []]
        found = next((place for place in (*macros, header) if keyword in place), header)
        return _finite(found, keyword)

    return Frame(
        numbers("ImagePositionPatient", "PlanePositionSequence"),
        numbers("ImageOrientationPatient", "PlaneOrientationSequence"),
        numbers("PixelSpacing", "PixelMeasuresSequence"),
        next(iter(numbers("RescaleSlope", "PixelValueTransformationSequence")), 1.0),
        next(iter(numbers("RescaleIntercept", "PixelValueTransformationSequence")), 0.0),
    )


def _finite(place: Dataset, keyword: str) -> tuple[float, ...]:
    try:
        numbers = np.atleast_1d(np.array(place[keyword].value, float))
    except (KeyError, ValueError, TypeError):
        return ()
    return tuple(numbers.tolist()) if np.isfinite(numbers).all() else ()
