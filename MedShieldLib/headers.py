"""What the raw header of a NIfTI, NRRD or MHA file claims, and how many voxels the file holds.

ITK repairs senseless NIfTI headers, turns NaN into 0 and fills truncated files with zeros without a word,
hence this look of our own, which comes before ITK allocates anything. Nothing here keeps voxels.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from MedShieldLib.errors import InputError
from MedShieldLib.refusals import cut_short, not_finite, require_spacing, shape_text

_GZIP_MAGIC = b"\x1f\x8b"
_TEXT_HEADER_LIMIT = 4 << 20
# Inflates to 16 MB at the very most.
_PIECE = 1 << 14
_ZLIB_OR_GZIP = 47
# Bytes of a voxel for each NIfTI type that ITK reads.
_NIFTI_BYTES = {
    2: 1,
    4: 2,
    8: 4,
    16: 4,
    32: 8,
    64: 8,
    128: 3,
    256: 1,
    512: 2,
    768: 4,
    1024: 8,
    1280: 8,
    2304: 4,
}
_NIFTI_REAL = (16, 64)


# The names under which an MHA file may hold its directions.
_META_MATRICES = ("TransformMatrix", "Rotation", "Orientation")
# Three unit vectors that span less than this lie in one plane.
_FLAT = 1e-6


@dataclass(frozen=True)
class Storage:
    """Where a file keeps its voxels.

    Attributes:
        offset: first byte of the stored stream in the file.
        compressed: the stream is zlib or gzip.
        skip: bytes of the (inflated) stream before the first voxel.
        claimed: bytes of voxels by the header, where ITK cannot tell because it rescales to another type.
        real: the data type, where the voxels are real numbers that ITK would "correct" to finite ones.
    """

    offset: int
    compressed: bool
    skip: int = 0
    claimed: int | None = None
    real: np.dtype | None = None

    def require_whole(self, path: Path, claimed: int) -> None:
        """Go through the file in small pieces, keeping none, and refuse it unless it holds all its voxels.

        Ends soon after `claimed` bytes, so that a file which expands without end does no harm.

        Raises:
            InputError: for fewer bytes than claimed, a wrong checksum, or (if `real`) NaN or infinity.
        """
        held, rest = -self.skip, b""
        with path.open("rb") as stream, _damage_named(path):
            stream.seek(self.offset)
            for piece in _inflated(stream) if self.compressed else _pieces(stream):
                voxels = piece[max(0, -held) : max(0, claimed - held)]
                held += len(piece)
                if self.real is not None:
                    rest = _require_finite(path, rest + voxels, self.real)
                if held > claimed:
                    break
        if held < claimed:
            raise InputError(
                f"{path} is cut short or damaged: its header claims {claimed:,} bytes of voxels and it holds "
                f"{max(held, 0):,}; copy or download it again."
            )


def storage_of(path: Path) -> Storage:
    """Where the NIfTI, NRRD or MHA file `path` keeps its voxels.

    Raises:
        InputError: if the header is not of the format that the name promises, or makes no sense.
        OSError: if the file cannot be opened.
    """
    with _damage_named(path):
        return next(parse for ending, parse in _PARSERS.items() if path.name.lower().endswith(ending))(path)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns what decompressors and the parsing of numbers raise into one sentence about the file."""
    try:
        yield
    except InputError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile, ValueError):
        raise cut_short(path) from None


def _no_header(path: Path, kind: str) -> InputError:
    return InputError(f"{path} does not begin like {kind} image; it is something else, or cut short.")


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.read(_PIECE), b"")


def _inflated(stream: BinaryIO) -> Iterator[bytes]:
    """The contents of a zlib stream or of a row of gzip members; their checksums are checked on the way."""
    inflater = zlib.decompressobj(_ZLIB_OR_GZIP)
    for piece in _pieces(stream):
        while piece:
            if inflater.eof:
                if not _GZIP_MAGIC.startswith(piece[:2]):
                    return  # padding after the last member
                inflater = zlib.decompressobj(_ZLIB_OR_GZIP)
            yield inflater.decompress(piece)
            piece = inflater.unused_data
    if not inflater.eof:
        raise EOFError


def _require_finite(path: Path, data: bytes, real: np.dtype) -> bytes:
    """The bytes behind the last whole number of `data`, once the others are found finite."""
    count = len(data) // real.itemsize
    if not np.isfinite(np.frombuffer(data, real, count)).all():
        raise not_finite(path)
    return data[count * real.itemsize :]


def _nifti(path: Path) -> Storage:
    with path.open("rb") as stream:
        compressed = stream.read(2) == _GZIP_MAGIC
    with gzip.open(path) if compressed else path.open("rb") as stream:
        header = stream.read(348)
    if header[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)):
        raise InputError(f"{path} is a NIfTI-2 file, which cannot be read; save it as NIfTI-1 or NRRD.")
    if header[344:348] != b"n+1\0":
        raise _no_header(path, "a NIfTI")
    if compressed != path.name.lower().endswith(".gz"):
        found, right = ("compressed", ".nii.gz") if compressed else ("not compressed", ".nii")
        raise InputError(f"{path} is {found}, unlike what its name says; rename it to {right}.")
    return _nifti_storage(path, header, compressed)


def _nifti_storage(path: Path, header: bytes, compressed: bool) -> Storage:
    """Checks the fields that ITK would silently replace. Offsets are those of the NIfTI-1 standard."""
    order = "<" if header[:4] == struct.pack("<i", 348) else ">"
    axes, *sizes = struct.unpack_from(f"{order}8h", header, 40)
    if not 1 <= axes <= 7:
        raise InputError(f"{path} is damaged: its header claims {axes} axes.")
    if min(sizes[:axes]) < 1:
        raise InputError(f"{path} is empty: its header claims {shape_text(sizes[:axes])} voxels.")
    require_spacing(path, struct.unpack_from(f"{order}3f", header, 80)[:axes])
    (kind,) = struct.unpack_from(f"{order}h", header, 70)
    if kind not in _NIFTI_BYTES:
        raise InputError(
            f"{path} has voxels of NIfTI type {kind}, which cannot be read; save them as float32."
        )
    (start,) = struct.unpack_from(f"{order}f", header, 108)
    skip = max(int(start), len(header)) if math.isfinite(start) else len(header)
    real = np.dtype(f"{order}f{_NIFTI_BYTES[kind]}") if kind in _NIFTI_REAL else None
    return Storage(0, compressed, skip, math.prod(sizes[:axes]) * _NIFTI_BYTES[kind], real)


def _nrrd(path: Path) -> Storage:
    exact, end = _text_header(path, ":", lambda line: not line.strip())
    fields = {key.lower(): value for key, value in exact.items()}
    if not next(iter(fields), "").startswith("nrrd000") or end == 0:
        raise _no_header(path, "an NRRD")
    if {"data file", "datafile"} & fields.keys():
        raise InputError(f"{path} keeps its voxels in another file; save it as a single .nrrd file.")
    encoding = fields.get("encoding", "")
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(f"{path} has the NRRD encoding {encoding!r}; save it as raw or gzip.")
    if fields.get("type", "").lower() == "block":
        raise InputError(f"{path} has voxels of NRRD type block, which are no numbers; save them as float32.")
    _require_sizes(path, fields.get("sizes", ""))
    spacings = fields.get("spacings", "").lower().replace("nan", "").split()  # nan: an axis without a length
    require_spacing(path, [float(mm) for mm in spacings])
    _require_directions(path, fields.get("space directions", ""))
    return Storage(end, encoding != "raw")


def _require_directions(path: Path, field: str) -> None:
    """Refuse NRRD axes without a length, or in one plane: ITK would say neither."""
    vectors = [[float(part) for part in text.split(",")] for text in re.findall(r"\(([^)]*)\)", field)]
    require_spacing(path, [math.hypot(*vector) for vector in vectors])
    _require_solid(path, vectors)


def _require_sizes(path: Path, field: str) -> None:
    sizes = [int(part) for part in field.split()]
    if sizes and min(sizes) < 1:
        raise InputError(f"{path} is empty: its header claims {shape_text(sizes)} voxels.")


def _require_solid(path: Path, axes: list[list[float]]) -> None:
    """Refuse three axes in one plane, or that are NaN; those merely not at right angles are left to ITK."""
    if [len(axis) for axis in axes] != [3, 3, 3]:
        return
    unit = np.array([np.divide(axis, math.hypot(*axis) or 1) for axis in axes])
    if not np.isfinite(unit).all() or abs(np.linalg.det(unit)) < _FLAT:
        raise InputError(f"{path} has axes that do not span a volume; correct the directions in its header.")


def _require_meta_geometry(path: Path, fields: dict[str, str]) -> None:
    """Refuse what MetaIO would complain about on the terminal.

    Raises:
        InputError, ValueError: the latter where there is no number.
    """
    axes = int(fields["NDims"])
    if len(fields["DimSize"].split()) != axes:
        raise InputError(f"{path} is damaged: its header claims {axes} axes and {fields['DimSize']} voxels.")
    _require_sizes(path, fields["DimSize"])
    matrix = next((fields[key] for key in _META_MATRICES if key in fields), "")
    numbers = [float(part) for part in matrix.split()]
    if numbers and len(numbers) != axes * axes:
        raise InputError(f"{path} is damaged: its header has {len(numbers)} numbers for {axes} directions.")
    _require_solid(path, [numbers[n : n + axes] for n in range(0, len(numbers), axes)])


def _meta(path: Path) -> Storage:
    fields, end = _text_header(path, "=", lambda line: line.startswith(b"ElementDataFile"))
    if not {"NDims", "DimSize", "ElementType", "ElementDataFile"} <= fields.keys():
        raise _no_header(path, "an MHA")
    if fields["ElementDataFile"].upper() != "LOCAL":
        raise InputError(f"{path} keeps its voxels in another file; save it as a single .mha file.")
    if fields.get("BinaryData", "true").lower() != "true":
        raise InputError(f"{path} keeps its voxels as text; save it as binary.")
    _require_meta_geometry(path, fields)
    stored = path.stat().st_size - end
    if int(fields.get("CompressedDataSize", stored)) != stored:
        raise EOFError
    return Storage(end, fields.get("CompressedData", "false").lower() == "true")


def _text_header(path: Path, separator: str, last: Callable[[bytes], bool]) -> tuple[dict[str, str], int]:
    """Fields and length of a header of lines, up to the line for which `last` is true.

    The length is 0 if there is no such line.
    """
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while (line := stream.readline(_TEXT_HEADER_LIMIT)) and stream.tell() < _TEXT_HEADER_LIMIT:
            key, _, value = line.decode("utf-8", "replace").partition(separator)
            fields[key.strip()] = value.lstrip("=").strip()
            if last(line):
                return fields, stream.tell()
    return fields, 0


_PARSERS = {".nii": _nifti, ".nii.gz": _nifti, ".nrrd": _nrrd, ".mha": _meta}
