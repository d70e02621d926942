"""Volumes and segmentations: voxels with their geometry, and nothing about models.

Arrays are in ITK/Slicer NumPy order (k, j, i) = (slice, row, column); spacing, origin and direction
are in ITK order (i, j, k) and LPS millimetres, as SimpleITK gives them. How files are read is in
`reading.py`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedShieldLib.errors import InputError
from MedShieldLib.refusals import not_at_right_angles, not_finite, require_spacing, shape_text

if TYPE_CHECKING:
    import SimpleITK as sitk

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

# How far the products of the direction vectors may be from a right angle's.
_RIGHT_ANGLE = 1e-4

# The fewest voxels along an axis that have a spectrum worth the name.
MIN_AXIS = 16


@dataclass(frozen=True)
class Structure:
    """One segmented structure of a target: label value, name, display colour (RGB in [0, 1])."""

    value: int
    name: str
    color: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Volume:
    """A scalar volume with its geometry. Two volumes are equal only if they are the same object.

    Attributes:
        voxels: array (K, J, I) in the file's own data type.
        spacing: mm along (i, j, k).
        origin: LPS mm of voxel (0, 0, 0).
        direction: 3x3 direction cosines, row-major, as in SimpleITK.
        source: where it was read from, if from disk.
    """

    voxels: np.ndarray = field(repr=False)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY
    source: Path | None = None

    @classmethod
    def read(cls, path: str | Path, *, series: str | None = None, component: int | None = None) -> Volume:
        """The volume at `path`: NIfTI (.nii, .nii.gz), NRRD, MHA, a DICOM folder, or one of its files.

        Voxels keep the file's data type, unless the file asks for rescaling (NIfTI or DICOM slope).

        Args:
            path: file or folder.
            series: SeriesInstanceUID, for a folder with several DICOM series.
            component: which time point or channel, counted from 0, for a file with several.

        Raises:
            InputError: one plain sentence that names the file.
        """
        from MedShieldLib.reading import read_image

        return replace(cls.from_sitk(read_image(Path(path), series, component)), source=Path(path))

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Volume:
        """A copy of a scalar 3D image.

        Raises:
            InputError: if it has other than three axes or several components.
        """
        import SimpleITK as sitk

        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise InputError(
                f"A volume has three axes and one component; this image has {image.GetDimension()} axes "
                f"and {image.GetNumberOfComponentsPerPixel()} component(s)."
            )
        voxels = sitk.GetArrayFromImage(image)
        return cls(voxels, image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def to_sitk(self) -> sitk.Image:
        """A copy as a SimpleITK image."""
        import SimpleITK as sitk

        native = self.voxels.dtype.newbyteorder("=")  # nibabel gives arrays of the file's byte order
        image = sitk.GetImageFromArray(self.voxels.astype(native, copy=False))
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def write(self, path: str | Path) -> None:
        """Write to a file, whole or not at all, in the format of its extension: .nii, .nii.gz, .nrrd or .mha.

        An existing file is replaced. NIfTI keeps the geometry in 32 bits: positions within a metre of the
        origin stay within 1e-4 mm; NRRD and MHA keep it exactly.

        Raises:
            InputError: if the extension is another one, or the file cannot be written.
        """
        from MedShieldLib.writing import write_image

        write_image(self.to_sitk(), Path(path))

    def with_voxels(self, voxels: np.ndarray) -> Volume:
        """The same geometry around other voxels of the same shape."""
        return replace(self, voxels=voxels)

    @property
    def affine(self) -> np.ndarray:
        """4x4 matrix from voxel indices (i, j, k, 1) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.direction, (3, 3)) * self.spacing
        matrix[:3, 3] = self.origin
        return matrix

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return math.prod(self.spacing) / 1000

    def same_geometry(self, other: Volume, tolerance_mm: float = 1e-3) -> bool:
        """Whether both have the same shape, and every corner voxel lies at the same place."""
        if self.voxels.shape != other.voxels.shape:
            return False
        last = [n - 1 for n in reversed(self.voxels.shape)]
        corners = np.array([(*corner, 1) for corner in product(*((0, n) for n in last))])
        apart = corners @ (self.affine - other.affine).T
        return bool(np.linalg.norm(apart, axis=1).max() <= tolerance_mm)

    def sha256(self) -> str:
        """Hash of voxels, data type and geometry, the same on every computer; makes no copy."""
        digest = hashlib.sha256(f"{self.voxels.dtype.newbyteorder('<').str} {self.voxels.shape}".encode())
        digest.update(np.array([*self.spacing, *self.origin, *self.direction], "<f8").tobytes())
        for plane in self.voxels:
            digest.update(np.ascontiguousarray(plane, plane.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    def require_checkable(self) -> None:
        """Refuse what has no meaningful spectrum or cannot be segmented.

        Raises:
            InputError: for axes other than three, under 16 voxels or not at right angles, a spacing that is
                not positive, and voxels that are not finite numbers or are all the same.
        """
        name = self.source or "The volume"
        require_spacing(name, self.spacing)
        _require_right_angles(name, self.direction)
        _require_extent(name, self.voxels.shape)
        _require_contrast(name, self.voxels)


def _require_right_angles(name: object, direction: tuple[float, ...]) -> None:
    axes = np.reshape(direction, (3, 3))
    if not np.allclose(axes.T @ axes, np.eye(3), atol=_RIGHT_ANGLE):
        raise not_at_right_angles(name)


def _require_extent(name: object, shape: tuple[int, ...]) -> None:
    size = shape_text(shape[::-1])
    if len(shape) != 3:
        raise InputError(f"{name} has {len(shape)} axes ({size}); a volume has three.")
    if 0 in shape:
        raise InputError(f"{name} is empty ({size} voxels).")
    if min(shape) < MIN_AXIS:
        raise InputError(f"{name} has {size} voxels; every axis needs at least {MIN_AXIS}.")


def _require_contrast(name: object, voxels: np.ndarray) -> None:
    if voxels.dtype.kind not in "iuf":
        raise InputError(f"{name} has voxels of type {voxels.dtype}; they must be integers or real numbers.")
    if voxels.dtype.kind == "f" and voxels.dtype.itemsize not in (4, 8):
        raise InputError(f"{name} has voxels of type {voxels.dtype}; convert them to float32.")
    low, high = voxels.min(), voxels.max()  # NaN and infinity show in these, without a mask of all voxels
    with np.errstate(all="ignore"):
        span = np.float32(high) - np.float32(low)
    if not np.isfinite(span):
        raise not_finite(name)
    if low == high:
        raise InputError(f"{name} is constant: every voxel is {low:g}.")


@dataclass(frozen=True)
class Segmentation:
    """A label map in the geometry of the volume that it segments, with the structures' names and colours."""

    volume: Volume
    structures: tuple[Structure, ...]

    @property
    def labels(self) -> np.ndarray:
        """uint8 array (K, J, I); 0 is background."""
        return self.volume.voxels
