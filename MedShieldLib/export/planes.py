"""Slices of a result for the eye: three planes in radiological orientation, as small images and outlines.

Slices follow the scan's own axes, each named after the body axis that it is closest to; nothing is resampled
except for display. How they are laid out on the page is in `report.html`.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import NamedTuple

import contourpy
import matplotlib
import numpy as np
import SimpleITK as sitk
from PIL import Image

from MedShieldLib.result import CheckResult
from MedShieldLib.volume import Structure, Volume

SLICES = 16
IMAGE_PIXELS = 320
HEAT_PIXELS = 160
MOST_EDGES = 12_000
HEAT_COLORS = matplotlib.colormaps["inferno"].resampled(64)


@dataclass(frozen=True)
class Outline:
    """One structure in one slice: its colour as #rrggbb, and an SVG path in half pixels of the image."""

    color: str
    path: str


@dataclass(frozen=True)
class Slice:
    """One slice for display.

    Attributes:
        number: counted from 1 at the lowest, foremost or rightmost slice of the volume.
        position: where it is, as in "S 24 mm".
        differs_ml: volume of the voxels in which the two segmentations differ.
        image, heat: PNG data URIs.
        original, defended: outlines of the structures.
        difference: SVG path around the voxels in which they differ.
    """

    number: int
    position: str
    differs_ml: float
    image: str = field(repr=False)
    heat: str = field(repr=False)
    original: tuple[Outline, ...] = field(repr=False)
    defended: tuple[Outline, ...] = field(repr=False)
    difference: str = field(repr=False)


@dataclass(frozen=True)
class Plane:
    """Evenly spaced parallel slices of a volume.

    Attributes:
        name: "Axial", "Coronal" or "Sagittal".
        edges: the body side at the left, right, top and bottom edge of the image, one letter each.
        size_mm: width and height of the image.
        size_px: its columns and rows.
        count: slices in the volume.
        slices: those that are shown.
        key: which of `slices` to look at first, and `why`, as in "largest disagreement".
        profile_ml: `differs_ml` for all slices of the volume from the first to the last of `slices`.
    """

    name: str
    edges: str
    size_mm: tuple[float, float]
    size_px: tuple[int, int]
    count: int
    slices: tuple[Slice, ...]
    key: int
    why: str
    profile_ml: np.ndarray = field(repr=False)


class _View(NamedTuple):
    name: str
    axis: int  # of an array (S, P, L)
    upside_down: bool  # the first row of such an array is at the bottom of the image
    edges: str


_VIEWS = (
    _View("Axial", 0, False, "RLAP"),
    _View("Coronal", 1, True, "RLSI"),
    _View("Sagittal", 2, True, "APSI"),
)
_BODY_AXES = ("SI", "PA", "LR")


class BodyAxes:
    """Volumes of one geometry seen along the body axes: turned by quarters and mirrored, never resampled.

    Attributes:
        spacing: mm along (S, P, L).
    """

    def __init__(self, volume: Volume) -> None:
        letters = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(volume.direction)
        axes = [next(axis for axis in range(3) if letters[axis] in pair) for pair in _BODY_AXES]
        self._turn = [2 - axis for axis in axes]
        self._mirror = tuple(
            slice(None, None, 1 if letters[axis] == pair[0] else -1)
            for axis, pair in zip(axes, _BODY_AXES, strict=True)
        )
        self.spacing = np.array([volume.spacing[axis] for axis in axes])
        matrix = np.reshape(volume.direction, (3, 3))
        self._cosines = np.abs([matrix[2 - k, axis] for k, axis in enumerate(axes)])
        middle = (np.array(volume.voxels.shape[::-1]) - 1) / 2 * volume.spacing
        self._centre = (np.array(volume.origin) + matrix @ middle)[::-1]

    def view(self, voxels: np.ndarray) -> np.ndarray:
        """A view (S, P, L) of an array (K, J, I)."""
        return voxels.transpose(self._turn)[self._mirror]

    def position(self, axis: int, index: int, count: int) -> str:
        """Where slice `index` of `count` crosses the middle of the volume, as in "S 24 mm"."""
        step = self.spacing[axis] * self._cosines[axis]
        mm = self._centre[axis] + (index - (count - 1) / 2) * step
        return f"{_BODY_AXES[axis][int(mm < 0)]} {abs(mm):.0f} mm"

    @property
    def tilt_degrees(self) -> float:
        """The largest angle between an axis of the volume and the body axis that it is closest to."""
        return float(np.degrees(np.arccos(np.clip(self._cosines, 0, 1))).max())


def planes_of(result: CheckResult, slices: int = SLICES) -> tuple[Plane, ...]:
    """Axial, coronal and sagittal slices of a result, about `slices` of each."""
    painter = _Painter(result)
    return tuple(painter.plane(view, slices) for view in _VIEWS)


def hex_color(structure: Structure) -> str:
    """A structure's colour as #rrggbb."""
    return "#" + "".join(f"{round(255 * min(max(part, 0), 1)):02x}" for part in structure.color)


class _Painter:
    def __init__(self, result: CheckResult) -> None:
        self.axes = BodyAxes(result.volume)
        self.grey = self.axes.view(result.volume.voxels)
        self.heat = self.axes.view(result.heatmap.voxels)
        self.original = self.axes.view(result.original.labels)
        self.defended = self.axes.view(result.defended.labels)
        self.structures = {s.value: s for s in (*result.original.structures, *result.defended.structures)}
        self.differs = self.original != self.defended
        self.segmented = (self.original > 0) | (self.defended > 0)
        self.voxel_ml = result.volume.voxel_ml
        self.window = _grey_window(self.grey, self.segmented)

    def plane(self, view: _View, wanted: int) -> Plane:
        count = self.grey.shape[view.axis]
        across = tuple(axis for axis in range(3) if axis != view.axis)
        differs = np.count_nonzero(self.differs, axis=across) * self.voxel_ml
        segmented = np.count_nonzero(self.segmented, axis=across)
        first, why = _first_look(differs, self.heat.max(axis=across), segmented)
        shown = _evenly(first, segmented, wanted)
        height, width = (self.grey.shape[axis] for axis in across)
        step = _step(height, IMAGE_PIXELS), _step(width, IMAGE_PIXELS)
        rows, columns = -(-height // step[0]), -(-width // step[1])
        spacing = self.axes.spacing[list(across)]
        return Plane(
            name=view.name,
            edges=view.edges,
            size_mm=(float(columns * step[1] * spacing[1]), float(rows * step[0] * spacing[0])),
            size_px=(columns, rows),
            count=count,
            slices=tuple(self._slice(view, index, float(differs[index])) for index in shown),
            key=shown.index(first),
            why=why,
            profile_ml=differs[shown[0] : shown[-1] + 1],
        )

    def _slice(self, view: _View, index: int, differs_ml: float) -> Slice:
        def cut(array: np.ndarray) -> np.ndarray:
            section = array[(slice(None),) * view.axis + (index,)]
            return section[::-1] if view.upside_down else section

        return Slice(
            number=index + 1,
            position=self.axes.position(view.axis, index, self.grey.shape[view.axis]),
            differs_ml=differs_ml,
            image=_grey_png(_blocks(cut(self.grey), IMAGE_PIXELS).mean(axis=(1, 3)), self.window),
            heat=_heat_png(_blocks(cut(self.heat), HEAT_PIXELS).mean(axis=(1, 3))),
            original=self._outlines(cut(self.original)),
            defended=self._outlines(cut(self.defended)),
            difference=outline_path(*_drawable(cut(self.differs))),
        )

    def _outlines(self, labels: np.ndarray) -> tuple[Outline, ...]:
        cells, scale = _drawable(labels)
        present = [self.structures[v] for v in np.unique(cells).tolist() if v in self.structures]
        return tuple(Outline(hex_color(s), outline_path(cells == s.value, scale)) for s in present)


def outline_path(mask: np.ndarray, scale: int = 1) -> str:
    """The outline of a mask (rows, columns) of `scale` pixels a cell as an SVG path.

    Its x and y are in half pixels from the corner.
    """
    points, ends = _contours(mask)
    return _path(points * scale, ends)


def _drawable(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels as cells of so many pixels that their outlines stay small; more than one for noise only."""
    cells, scale = _thinned(labels), 1
    while np.count_nonzero(np.diff(cells, axis=0)) + np.count_nonzero(np.diff(cells, axis=1)) > MOST_EDGES:
        cells, scale = cells[::2, ::2], 2 * scale
    return cells, scale


def _contours(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All closed lines around a mask, one after the other, each with its first point repeated at its end.

    Returns:
        Points (N, 2), x and y in half cells, and where each line begins, with N as the last.
    """
    generator = contourpy.contour_generator(
        z=np.pad(mask, 1).astype(np.float32), line_type=contourpy.LineType.ChunkCombinedOffset
    )
    (points,), (ends,) = generator.lines(0.5)  # type: ignore[misc]
    if points is None or ends is None:
        return np.empty((0, 2), int), np.zeros(1, int)
    return np.rint(2 * points).astype(int) - 1, ends.astype(int)


def _path(points: np.ndarray, ends: np.ndarray) -> str:
    """Closed lines as an SVG path of relative moves, straight runs as one move."""
    steps = np.diff(points, axis=0, append=0)
    corner = np.any(steps != np.roll(steps, 1, axis=0), axis=1)
    corner[ends[:-1]] = True
    corner[ends[1:] - 1] = False
    corners = points[corner]
    begins = np.searchsorted(np.flatnonzero(corner), ends)
    moves = [f"{x} {y}" for x, y in np.diff(corners, axis=0).tolist()]
    lines = zip(begins[:-1], begins[1:], strict=True)
    return "".join(f"M{corners[a][0]} {corners[a][1]}l{' '.join(moves[a : b - 1])}z" for a, b in lines)


def _first_look(differs: np.ndarray, heat: np.ndarray, segmented: np.ndarray) -> tuple[int, str]:
    """The slice to look at first, and why."""
    if differs.any():
        return int(differs.argmax()), "largest disagreement"
    if heat.any():
        return int(heat.argmax()), "highest suspicion"
    return int(segmented.argmax()) if segmented.any() else len(segmented) // 2, "middle"


def _evenly(first: int, segmented: np.ndarray, wanted: int) -> list[int]:
    """About `wanted` slice numbers at one distance, through `first`, over what is segmented and `first`."""
    inside = np.flatnonzero(segmented)
    low, high = (int(inside[0]), int(inside[-1])) if inside.size else (0, len(segmented) - 1)
    low, high = min(low, first), max(high, first)
    step = max(1, -(-(high - low) // max(wanted - 1, 1)))
    return list(range(first - (first - low) // step * step, high + 1, step))


def _grey_window(grey: np.ndarray, segmented: np.ndarray) -> tuple[float, float]:
    """Intensities for black and white: those in the structures, and half their range on either side."""
    low, high = np.percentile(grey[::2, ::2, ::2], (0.5, 99.5))
    inside = grey[segmented]
    if inside.size:
        dark, bright = np.percentile(inside[:: max(1, inside.size // 100_000)], (1, 99))
        margin = max((bright - dark) / 2, 0.05 * (high - low))
        low, high = max(low, dark - margin), min(high, bright + margin)
    return float(low), float(high if high > low else low + 1)


def _step(length: int, most: int) -> int:
    return -(-length // most)


def _blocks(section: np.ndarray, most: int) -> np.ndarray:
    """A section as blocks (rows, r, columns, c), so that there are at most `most` rows and columns."""
    steps = [_step(length, most) for length in section.shape]
    margins = [(0, -length % step) for length, step in zip(section.shape, steps, strict=True)]
    filled = np.pad(section, margins, "edge")
    return filled.reshape(filled.shape[0] // steps[0], steps[0], filled.shape[1] // steps[1], steps[1])


def _thinned(labels: np.ndarray) -> np.ndarray:
    """The middle of every block: labels have no mean."""
    blocks = _blocks(labels, IMAGE_PIXELS)
    return blocks[:, blocks.shape[1] // 2, :, blocks.shape[3] // 2]


def _grey_png(section: np.ndarray, window: tuple[float, float]) -> str:
    shade = np.clip((section - window[0]) / (window[1] - window[0]), 0, 1)
    return _png(Image.fromarray((255 * shade).astype(np.uint8)))


def _heat_png(section: np.ndarray) -> str:
    """Heat from 0 (clear) to 1 (opaque)."""
    last = HEAT_COLORS.N - 1
    image = Image.fromarray(np.rint(last * np.clip(section, 0, 1)).astype(np.uint8))
    image.putpalette((255 * HEAT_COLORS(np.arange(last + 1))[:, :3]).astype(np.uint8).tobytes())
    return _png(image, transparency=bytes(heat_opacity(n / last) for n in range(last + 1)))


def heat_opacity(heat: float) -> int:
    """Opacity (0 to 255) of the overlay, so that anatomy shows through where nothing is suspicious."""
    return round(225 * min(1.0, 2 * heat))


def _png(image: Image.Image, **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, **options)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
