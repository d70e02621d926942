"""A DICOM series as one image: which series, which slices, and whether they make a regular stack.

GDCM reads the files; the geometry is computed here from the position and orientation of every slice, because
GDCM itself closes gaps silently. The frames of a multi-frame file are slices as any others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MedShieldLib import itk
from MedShieldLib.dicom_frames import frames_of
from MedShieldLib.errors import InputError
from MedShieldLib.refusals import (
    cut_short,
    require_component,
    require_memory,
    require_plain_name,
    require_spacing,
)

# Two slices closer than this lie at the same position (mm).
_SAME_POSITION = 1e-2
# How far a step between slices may be from the usual one, as a share of it.
_STEP_TOLERANCE = 0.05
# How many gaps are named in one sentence.
_GAPS_NAMED = 3
# How far the pixel spacings of slices may differ, as a share.
_SAME_SPACING = 1e-3
# How far the orientations (unit vectors) of slices may differ.
_SAME_ORIENTATION = 1e-3
# CT, MR and PET image storage: single-frame, and enhanced or converted to it.
_CLASSIC = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("2", "4", "128"))
_ENHANCED = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("2.1", "2.2", "4.1", "4.4", "128.1", "130"))


@dataclass(frozen=True)
class Slice:
    """What one DICOM file says about itself, or about one of its frames.

    Attributes:
        path: the file.
        series: SeriesInstanceUID.
        description: SeriesDescription, empty if there is none.
        kind: SOPClassUID.
        instance: SOPInstanceUID; copies of one slice share it.
        number: InstanceNumber, 0 if there is none.
        size: columns, rows, frames in the file.
        spacing: mm between rows and between columns, in DICOM's order; empty if missing.
        position: LPS mm of the first voxel; empty if missing.
        orientation: direction cosines of the rows and of the columns; empty if missing.
        pixel_type: the SimpleITK pixel type that it is read as.
        frame: which one of the file.
        slope, intercept: from the values that GDCM reads to those that are meant.
    """

    path: Path
    series: str
    description: str
    kind: str
    instance: str
    number: int
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_type: int
    frame: int = 0
    slope: float = 1.0
    intercept: float = 0.0

    def __str__(self) -> str:
        return f"Frame {self.frame + 1} of {self.path}" if self.size[2] > 1 else str(self.path)

    @property
    def name(self) -> str:
        """For the middle of a sentence that has named the folder."""
        return f"frame {self.frame + 1} of {self.path.name}" if self.size[2] > 1 else self.path.name

    @property
    def across(self) -> np.ndarray:
        """The direction across the slice, a unit vector but for the rounding of the file's numbers."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice."""
        return self.across / np.linalg.norm(self.across)

    @property
    def depth(self) -> float:
        """Mm along the normal."""
        return float(np.dot(self.normal, self.position))


def read_folder(folder: Path, series: str | None, component: int | None) -> sitk.Image:
    """The series in `folder` (sub-folders are not searched) as a scalar 3D image.

    Args:
        folder: where the files are; files that are not DICOM images are passed over.
        series: SeriesInstanceUID, needed if there are several.
        component: which time point, echo or colour channel, needed if there are several.

    Raises:
        InputError: if there is no such series, or if its slices do not make one regular stack.
        ModuleNotFoundError: if it is a multi-frame one and pydicom is not installed.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    slices = [found for path in files if (found := _inspect(path)) is not None]
    if not slices:
        raise InputError(f"{folder} holds no DICOM images (its sub-folders are not searched).")
    return _read(folder, _choose_series(folder, slices, series), component)


def read_around(path: Path, series: str | None, component: int | None) -> sitk.Image:
    """The series that the DICOM file `path` belongs to, from its folder.

    Raises:
        InputError: if it is not a DICOM image, else as `read_folder`.
    """
    found = _inspect(path)
    if found is None:
        raise InputError(f"{path} is not an image that can be read here: NIfTI, NRRD, MHA or DICOM.")
    return read_folder(path.parent, series or found.series, component)


def _inspect(path: Path) -> Slice | None:
    """What the file says; None if it is not a DICOM image.

    Raises:
        InputError: if it is a damaged one or its name cannot be passed on, since a stack without it would
            be silently shorter.
    """
    require_plain_name(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        with itk.quiet():
            reader.ReadImageInformation()
    except RuntimeError:
        if _claims_image(path):
            raise cut_short(path) from None
        return None
    return Slice(
        path=path,
        series=_text(reader, "0020|000e"),
        description=_text(reader, "0008|103e"),
        kind=_text(reader, "0008|0016"),
        instance=_text(reader, "0008|0018"),
        number=int(next(iter(_numbers(reader, "0020|0013")), 0)),
        size=reader.GetSize(),
        spacing=_numbers(reader, "0028|0030"),
        position=_numbers(reader, "0020|0032"),
        orientation=_numbers(reader, "0020|0037"),
        pixel_type=reader.GetPixelIDValue(),
    )


def _claims_image(path: Path) -> bool:
    """Whether an unreadable file was meant as an image, by its SOP class (in the first bytes) or name."""
    with path.open("rb") as stream:
        head = stream.read(1024)
    _, tag, rest = head.partition(b"\x02\x00\x02\x00UI")
    if head[128:132] != b"DICM" or not tag:
        return path.suffix.lower() == ".dcm"
    uid = rest[2 : 2 + int.from_bytes(rest[:2], "little")]
    return uid.rstrip(b"\0 ").decode("ascii", "replace") in _CLASSIC + _ENHANCED


def _text(reader: sitk.ImageFileReader, tag: str) -> str:
    text = reader.GetMetaData(tag) if reader.HasMetaDataKey(tag) else ""
    return text.strip("\0 ").encode("utf-8", "replace").decode("utf-8")


def _numbers(reader: sitk.ImageFileReader, tag: str) -> tuple[float, ...]:
    """The numbers of a tag; empty if it is missing or is not numbers."""
    try:
        numbers = tuple(float(part) for part in _text(reader, tag).split("\\"))
    except ValueError:
        return ()
    return numbers if np.isfinite(numbers).all() else ()


def _choose_series(folder: Path, slices: list[Slice], series: str | None) -> list[Slice]:
    """The slices of one series, each once."""
    by_uid: dict[str, list[Slice]] = {}
    for slice_ in slices:
        by_uid.setdefault(slice_.series, []).append(slice_)
    listing = ", ".join(
        f"{uid} ({group[0].description or 'no description'}, {len(group)} images)"
        for uid, group in by_uid.items()
    )
    if series is None and len(by_uid) > 1:
        raise InputError(
            f"{folder} holds {len(by_uid)} DICOM series: {listing}; choose one by its UID with --series "
            f"(in Python: series=)."
        )
    if series is not None and series not in by_uid:
        raise InputError(f"{folder} has no DICOM series {series}; it holds {listing}.")
    chosen = by_uid[series or slices[0].series]
    return list({slice_.instance or str(slice_.path): slice_ for slice_ in chosen}.values())


def _frames(file: Slice) -> list[Slice]:
    """The frames of a file; a classic one has just itself."""
    if file.kind not in _ENHANCED:
        if file.size[2] > 1:
            raise InputError(
                f"{file.path} is a multi-frame DICOM file of another kind than enhanced CT, MR and PET; "
                "convert it to NIfTI, as dcm2niix does."
            )
        return [file]
    import pydicom

    frames = frames_of(pydicom.dcmread(file.path, stop_before_pixels=True, force=True))
    first = frames[0]
    if len(frames) != file.size[2] or first.slope == 0:
        raise cut_short(file.path)
    return [
        replace(
            file,
            position=frame.position,
            orientation=frame.orientation,
            spacing=frame.spacing,
            frame=n,
            slope=frame.slope / first.slope,  # GDCM scales all frames as the first one
            intercept=frame.intercept - first.intercept * frame.slope / first.slope,
        )
        for n, frame in enumerate(frames)
    ]


def _read(folder: Path, files: list[Slice], component: int | None) -> sitk.Image:
    slices = [frame for file in files for frame in _frames(file)]
    _require_alike(folder, slices)
    stacks = _stacks(folder, slices)
    stack = stacks[require_component(folder, component, len(stacks))] if len(stacks) > 1 else stacks[0]
    step = _regular_step(folder, stack)
    _require_straight(folder, stack)
    columns, rows, _ = stack[0].size
    require_memory(folder, (columns, rows, sum({one.path: one.size[2] for one in stack}.values())))
    image = _voxels(stack)
    image.SetOrigin(stack[0].position)
    image.SetSpacing((stack[0].spacing[1], stack[0].spacing[0], step))
    image.SetDirection(_direction(stack[0]))
    return itk.scalar_image(folder, image, None if len(stacks) > 1 else component)


def _require_alike(folder: Path, slices: Sequence[Slice]) -> None:
    """Every file must be one slice with a place in space, and all must be cut alike."""
    first = slices[0]
    for one in slices:
        if (len(one.position), len(one.orientation), len(one.spacing)) != (3, 6, 2):
            raise InputError(f"{one} lacks the position, orientation or pixel spacing of its slice.")
        require_spacing(one, one.spacing)
        if not np.isclose(np.linalg.norm(one.across), 1, atol=_SAME_ORIENTATION):
            raise InputError(f"{one} has an orientation that is not two directions at right angles.")
        for what, same in (
            ("matrix size", one.size[:2] == first.size[:2]),
            ("pixel spacing", np.allclose(one.spacing, first.spacing, rtol=_SAME_SPACING)),
            ("orientation", np.allclose(one.orientation, first.orientation, atol=_SAME_ORIENTATION)),
        ):
            if not same:
                raise InputError(f"{one} has another {what} than {first.name}; keep one volume only.")
    if len(slices) < 2:
        raise InputError(f"{folder} holds a single slice of the series, {first.name}; a volume needs more.")


def _stacks(folder: Path, slices: list[Slice]) -> list[list[Slice]]:
    """The slices from below to above; several stacks if every position was imaged several times."""
    positions: list[list[Slice]] = []
    for slice_ in sorted(slices, key=lambda one: one.depth):
        if not positions or slice_.depth - positions[-1][0].depth > _SAME_POSITION:
            positions.append([])
        positions[-1].append(slice_)
    counts = [len(group) for group in positions]
    if min(counts) != max(counts):
        odd = min(positions, key=len)[0]
        raise InputError(
            f"{folder} holds {max(counts)} images of some slices and {min(counts)} of others "
            f"(such as {odd.name}); keep the images of one volume only."
        )
    for group in positions:
        group.sort(key=lambda one: (one.number, one.path, one.frame))
    return [list(stack) for stack in zip(*positions, strict=True)]


def _regular_step(folder: Path, stack: Sequence[Slice]) -> float:
    """Mm from slice to slice.

    Raises:
        InputError: naming the slices that are missing, or those with an irregular step between them.
    """
    if len(stack) < 2:
        raise InputError(f"{folder} holds images of a single slice, as {stack[0].name}; a volume needs more.")
    depths = [slice_.depth for slice_ in stack]
    steps = np.diff(depths)
    usual = float(np.median(steps))
    gaps = [
        f"{_gap(depth, step, usual)} between {below.name} and {above.name}"
        for below, above, depth, step in zip(stack[:-1], stack[1:], depths[:-1], steps, strict=True)
        if abs(step - usual) > max(_STEP_TOLERANCE * usual, _SAME_POSITION)
    ]
    if gaps:
        more = f", and {len(gaps) - _GAPS_NAMED} more" if len(gaps) > _GAPS_NAMED else ""
        raise InputError(f"{folder} {', '.join(gaps[:_GAPS_NAMED])}{more}.")
    return (depths[-1] - depths[0]) / (len(stack) - 1)


def _gap(depth: float, step: float, usual: float) -> str:
    """In words: what is wrong with a step (mm) that begins at `depth`."""
    missing = round(step / usual) - 1
    if missing < 1 or abs(step / usual - missing - 1) > 2 * _STEP_TOLERANCE:
        return f"has irregular slices ({step:.2f} mm apart, usually {usual:.2f} mm)"
    where = ", ".join(f"{depth + n * usual:.2f}" for n in range(1, missing + 1))
    return f"lacks {missing} slice{'s' if missing > 1 else ''} (at {where} mm across the slices)"


def _require_straight(folder: Path, stack: Sequence[Slice]) -> None:
    """The stack must rise along its normal; a tilted CT gantry shears it by more than half a pixel."""
    rise = np.subtract(stack[-1].position, stack[0].position)
    drift = rise - np.dot(rise, stack[0].normal) * stack[0].normal
    if np.linalg.norm(drift) > 0.5 * min(stack[0].spacing):
        raise InputError(
            f"{folder} has slices that drift sideways (tilted gantry); resample it, as dcm2niix does."
        )


def _voxels(stack: Sequence[Slice]) -> sitk.Image:
    read = _voxels_of_files if all(one.size[2] == 1 for one in stack) else _voxels_of_frames
    try:
        with itk.quiet():
            return read(stack)
    except RuntimeError:
        raise InputError(
            f"{stack[0].path} or another file of its series cannot be decoded; export it again."
        ) from None


def _voxels_of_frames(stack: Sequence[Slice]) -> sitk.Image:
    paths = {one.path for one in stack}
    files = {path: sitk.ReadImage(str(path), imageIO="GDCMImageIO") for path in paths}
    planes = [_scaled(one, sitk.GetArrayViewFromImage(files[one.path])[one.frame]) for one in stack]
    return sitk.GetImageFromArray(np.stack(planes), isVector=planes[0].ndim > 2)


def _scaled(one: Slice, plane: np.ndarray) -> np.ndarray:
    return plane if (one.slope, one.intercept) == (1, 0) else plane * one.slope + one.intercept


def _voxels_of_files(stack: Sequence[Slice]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(slice_.path) for slice_ in stack])
    if len({slice_.pixel_type for slice_ in stack}) > 1:
        reader.SetOutputPixelType(sitk.sitkFloat32)  # ITK would squeeze all into the type of the first
    return reader.Execute()


def _direction(slice_: Slice) -> list[float]:
    """Row-major 3x3 with the axes as columns, at right angles to the last digit."""
    row = np.array(slice_.orientation[:3]) / np.linalg.norm(slice_.orientation[:3])
    normal = slice_.normal
    return np.column_stack([row, np.cross(normal, row), normal]).ravel().tolist()
