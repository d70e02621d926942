"""Volumes in files: nothing is lost on the way out and back, and every bad file gets its plain sentence."""

from __future__ import annotations

import gzip
import os
import re
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedShieldLib.errors import InputError
from MedShieldLib.volume import Volume

EXTENSIONS = (".nii", ".nii.gz", ".nrrd", ".mha")
DATA_TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")

# NIfTI keeps spacing, rotation and origin as float32: 24 bits, here of numbers up to about 1000 mm.
NIFTI_MM = 1e-4


def _rotation(x: float, y: float, z: float) -> np.ndarray:
    turns = []
    for axis, degrees in enumerate((x, y, z)):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turns.append(np.insert(np.insert([[c, -s], [s, c]], axis, 0, 0), axis, np.eye(3)[axis], 1))
    return turns[2] @ turns[1] @ turns[0]


DIRECTIONS = {
    "identity": np.eye(3),
    "oblique": _rotation(20, -35, 70),
    "half turn": np.diag([-1.0, -1.0, 1.0]),
    "sagittal": np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    "left-handed": np.diag([1.0, 1.0, -1.0]),
    "left-handed, oblique": _rotation(170, 40, -110) @ np.diag([-1.0, 1.0, 1.0]),
}


def _volume(dtype: str = "i2", shape: tuple[int, ...] = (17, 18, 19)) -> Volume:
    voxels = np.random.default_rng(2).integers(0, 120, shape).astype(dtype)
    return Volume(
        voxels, (0.9375, 1.2, 1.7), (-123.456, 78.9, 1034.5678), tuple(DIRECTIONS["oblique"].ravel())
    )


@pytest.fixture(params=EXTENSIONS)
def extension(request) -> str:
    return request.param


@pytest.mark.parametrize("name", DIRECTIONS)
def test_geometry_survives(tmp_path, extension, name):
    volume = Volume(
        _volume().voxels, (0.9375, 1.2, 1.7), (-123.456, 78.9, 1034.5678), tuple(DIRECTIONS[name].ravel())
    )
    volume.write(tmp_path / f"a{extension}")
    back = Volume.read(tmp_path / f"a{extension}")
    tolerance = NIFTI_MM if extension.startswith(".nii") else 1e-9
    assert back.same_geometry(volume, tolerance_mm=tolerance)
    np.testing.assert_array_equal(back.voxels, volume.voxels)


@pytest.mark.parametrize("dtype", DATA_TYPES)
def test_data_type_survives(tmp_path, extension, dtype):
    volume = _volume(dtype)
    volume.write(tmp_path / f"a{extension}")
    back = Volume.read(tmp_path / f"a{extension}")
    assert back.voxels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back.voxels, volume.voxels)


def test_second_round_trip_changes_nothing(tmp_path, extension):
    _volume().write(tmp_path / f"a{extension}")
    once = Volume.read(tmp_path / f"a{extension}")
    once.write(tmp_path / f"b{extension}")
    assert Volume.read(tmp_path / f"b{extension}").same_geometry(once, tolerance_mm=NIFTI_MM)


def test_real_head_survives(tmp_path, extension, mni_4mm):
    mni_4mm.write(tmp_path / f"head{extension}")
    back = Volume.read(tmp_path / f"head{extension}")
    back.require_checkable()
    assert back.same_geometry(mni_4mm) and back.source == tmp_path / f"head{extension}"
    np.testing.assert_array_equal(back.voxels, mni_4mm.voxels)


@pytest.mark.parametrize("folder", ["with spaces", "Schädel β", "脳 MRI"])
def test_any_path_works(tmp_path, extension, folder):
    path = tmp_path / folder / f"tête 1 (ñ) 頭.v2{extension}"
    path.parent.mkdir()
    _volume().write(str(path))
    assert Volume.read(str(path)).voxels.shape == (17, 18, 19)
    assert os.listdir(path.parent) == [path.name]


def test_upper_case_extension_works(tmp_path, extension):
    _volume().write(tmp_path / f"A{extension.upper()}")
    np.testing.assert_array_equal(Volume.read(tmp_path / f"A{extension.upper()}").voxels, _volume().voxels)


def test_nifti_agrees_with_nibabel(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    _volume().write(tmp_path / "a.nii.gz")
    image = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj).T, _volume().voxels)
    np.testing.assert_allclose(image.affine, np.diag([-1, -1, 1, 1]) @ _volume().affine, atol=NIFTI_MM)


def test_rescaled_nifti_holds_real_values(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(_volume().voxels.T.astype(np.float32) * 0.5 - 3, np.eye(4))
    image.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
    nibabel.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(
        Volume.read(tmp_path / "a.nii.gz").voxels, _volume().voxels * 0.5 - 3, atol=1e-3
    )


def test_big_endian_and_many_gzip_members_are_read(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.save(nibabel.Nifti1Image(_volume(">i2").voxels.T, np.eye(4), header), tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(
        b"".join(gzip.compress(data[i : i + 700]) for i in range(0, len(data), 700))
    )
    for name in ("a.nii", "b.nii.gz"):
        np.testing.assert_array_equal(Volume.read(tmp_path / name).voxels, _volume().voxels)


# Writing


def test_unknown_extension_is_not_written(tmp_path):
    for name in ("a.png", "a", "a.nii.zip", "a.hdr"):
        with pytest.raises(InputError, match=r"must end in \.nii, \.nii\.gz, \.nrrd, \.mha"):
            _volume().write(tmp_path / name)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_folder_that_cannot_be_written_is_named(tmp_path, extension, folder):
    (tmp_path / "file").write_text("in the place of a folder")
    with pytest.raises(InputError, match=f"{folder}.* cannot be written"):
        _volume().write(tmp_path / folder / f"a{extension}")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        _volume().write(tmp_path / "a.nii")


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    _volume().write(tmp_path / "a.nrrd")
    before = (tmp_path / "a.nrrd").read_bytes()

    def write_half(image, name, **options):
        Path(name).write_bytes(before[:100])
        raise RuntimeError("disk full")

    monkeypatch.setattr(sitk, "WriteImage", write_half)
    with pytest.raises(InputError, match="cannot be written"):
        _volume("f4").write(tmp_path / "a.nrrd")
    assert os.listdir(tmp_path) == ["a.nrrd"] and (tmp_path / "a.nrrd").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_name_that_is_not_utf_8_is_refused_both_ways(tmp_path, extension):
    path = tmp_path / os.fsdecode(b"bad\xff name" + extension.encode())
    with pytest.raises(InputError, match="rename it"):
        _volume().write(path)
    _volume().write(tmp_path / f"good{extension}")
    (tmp_path / f"good{extension}").rename(path)
    with pytest.raises(InputError, match="rename it") as caught:
        Volume.read(path)
    assert str(caught.value).encode()  # can be printed


# Files that are no images, or no longer


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none")
def test_pipe_is_not_waited_for(tmp_path, refusal, extension):
    os.mkfifo(tmp_path / f"a{extension}")
    assert "neither a file nor a folder" in refusal(tmp_path / f"a{extension}")


def test_missing_path_is_refused(tmp_path, refusal, extension):
    assert "does not exist" in refusal(tmp_path / f"a{extension}")
    assert "does not exist" in refusal(tmp_path / "scan")


@pytest.mark.parametrize(
    "content", [b"", b"x", b"I am no image.\n" * 200, bytes(5000)], ids=("empty", "1", "text", "0")
)
@pytest.mark.parametrize("ending", [*EXTENSIONS, ".dcm", ".png", ""])
def test_not_an_image_is_refused(tmp_path, refusal, ending, content):
    path = tmp_path / f"letter{ending}"
    path.write_bytes(content)
    refusal(path)


def test_picture_is_refused(tmp_path, refusal):
    sitk.WriteImage(sitk.Image([64, 64], sitk.sitkUInt8), str(tmp_path / "photo.png"))
    assert "NIfTI, NRRD, MHA or DICOM" in refusal(tmp_path / "photo.png")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path, refusal, extension, share):
    path = tmp_path / f"a{extension}"
    _volume().write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "cut short" in refusal(path)


@pytest.mark.parametrize("missing", [1, 4, 8, 9, 100])
def test_last_bytes_missing_are_noticed(tmp_path, refusal, extension, missing):
    path = tmp_path / f"a{extension}"
    _volume().write(path)
    path.write_bytes(path.read_bytes()[:-missing])
    assert "cut short" in refusal(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_flipped_bits_in_a_compressed_file_are_noticed(tmp_path, refusal, ending):
    path = tmp_path / f"a{ending}"
    _volume().write(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in refusal(path)


def test_uncompressed_nrrd_and_mha_cut_short_are_refused(tmp_path, refusal):
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(_volume().to_sitk(), str(tmp_path / name), useCompression=False)
        np.testing.assert_array_equal(Volume.read(tmp_path / name).voxels, _volume().voxels)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
        assert "cut short" in refusal(tmp_path / name)


def test_name_that_lies_about_compression_is_refused(tmp_path, refusal):
    _volume().write(tmp_path / "a.nii")
    _volume().write(tmp_path / "b.nii.gz")
    (tmp_path / "a.nii").rename(tmp_path / "c.nii.gz")
    (tmp_path / "b.nii.gz").rename(tmp_path / "d.nii")
    assert "not compressed" in refusal(tmp_path / "c.nii.gz")
    assert "rename it to .nii.gz" in refusal(tmp_path / "d.nii")


def test_voxels_in_another_file_are_not_followed(tmp_path, refusal):
    _volume().write(tmp_path / "secret.nii")
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nsizes: 19 18 17\nencoding: raw\nendian: little\n"
    (tmp_path / "a.nrrd").write_text(f"{nrrd}data file: secret.nii\n\n")
    mha = "ObjectType = Image\nNDims = 3\nDimSize = 19 18 17\nElementType = MET_SHORT\n"
    (tmp_path / "a.mha").write_text(f"{mha}ElementDataFile = secret.nii\n")
    for name in ("a.nrrd", "a.mha"):
        assert "in another file" in refusal(tmp_path / name)


# Headers that claim what cannot be; offsets are those of the NIfTI-1 standard


def _patched(path: Path, offset: int, form: str, *values: float) -> Path:
    _volume().write(path)
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, offset, *values)
    path.write_bytes(data)
    return path


def _edited(path: Path, old: str, new: str) -> Path:
    """An uncompressed text-header file with one field of the header replaced."""
    sitk.WriteImage(Volume(_volume().voxels).to_sitk(), str(path), useCompression=False)
    data, count = re.subn(old.encode(), new.encode(), path.read_bytes(), count=1)
    assert count == 1
    path.write_bytes(data)
    return path


GIANT = "30000 30000 30000"


def test_giant_claim_is_refused_without_allocating(tmp_path, refusal):
    psutil = pytest.importorskip("psutil")
    files = [
        _patched(tmp_path / "a.nii", 42, "<3h", 30000, 30000, 30000),
        _edited(tmp_path / "a.nrrd", "sizes: 19 18 17", f"sizes: {GIANT}"),
        _edited(tmp_path / "a.mha", "DimSize = 19 18 17", f"DimSize = {GIANT}"),
        _edited(tmp_path / "b.mha", "DimSize = 19 18 17", "DimSize = 19 -18 17"),
    ]
    with gzip.open(tmp_path / "b.nii.gz", "wb") as stream:
        stream.write((tmp_path / "a.nii").read_bytes())
    before = psutil.Process().memory_info().vms
    for path in [*files, tmp_path / "b.nii.gz"]:
        refusal(path)
    assert psutil.Process().memory_info().vms - before < 100 << 20


def test_claim_beyond_the_file_is_refused_by_the_numbers(tmp_path, refusal):
    assert "claims 10,000,000 bytes" in refusal(
        _edited(tmp_path / "a.nrrd", "sizes: 19 18 17", "sizes: 50 1000 100")
    )


def test_expanding_file_is_not_inflated_to_its_end(tmp_path, refusal):
    _volume().write(tmp_path / "a.nii")
    head = bytearray((tmp_path / "a.nii").read_bytes()[:352])
    struct.pack_into("<3h", head, 42, 400, 400, 400)
    with gzip.open(tmp_path / "bomb.nii.gz", "wb", compresslevel=1) as stream:
        stream.write(head)
        for _ in range(64):
            stream.write(bytes(1 << 20))
    tracemalloc.start()
    assert "cut short" in refusal(tmp_path / "bomb.nii.gz")
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("sizes", [(3, 19, 0, 17), (3, 19, -18, 17)])
def test_empty_nifti_is_refused(tmp_path, refusal, sizes):
    assert "empty" in refusal(_patched(tmp_path / "a.nii", 40, "<4h", *sizes))


def test_empty_mha_and_nrrd_are_refused(tmp_path, refusal):
    assert "empty" in refusal(_edited(tmp_path / "a.mha", "DimSize = 19 18 17", "DimSize = 19 0 17"))
    refusal(_edited(tmp_path / "a.nrrd", "sizes: 19 18 17", "sizes: 19 0 17"))


@pytest.mark.parametrize("spacing", [0.0, -1.5, float("nan"), float("inf")])
def test_senseless_nifti_spacing_is_refused_not_repaired(tmp_path, refusal, spacing):
    assert "spacing" in refusal(_patched(tmp_path / "a.nii", 84, "<f", spacing))


@pytest.mark.parametrize("spacing", ["0", "-1.5"])
def test_senseless_nrrd_and_mha_spacing_is_refused(tmp_path, refusal, spacing):
    mha = _edited(tmp_path / "a.mha", "ElementSpacing = 1 1 1", f"ElementSpacing = 1 {spacing} 1")
    assert "spacing" in refusal(mha)
    head = f"NRRD0001\ntype: short\ndimension: 3\nsizes: 19 18 17\nspacings: 1 {spacing} 1\n"
    data = head.encode() + b"endian: little\nencoding: raw\n\n" + _volume().voxels.tobytes()
    (tmp_path / "a.nrrd").write_bytes(data)
    assert "spacing" in refusal(tmp_path / "a.nrrd")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("NDims = 3", "NDims = abc", "damaged"),
        ("NDims = 3", "NDims = 4", "4 axes"),
        ("DimSize = 19 18 17", "DimSize = 19 x 17", "damaged"),
        ("DimSize = 19 18 17", "DimSize = 19 18", "3 axes"),
        ("DimSize = 19 18 17", "DimSize = 19 -18 17", "empty"),
        ("TransformMatrix = .*\n", "TransformMatrix = 0 0 0 0 0 0 0 0 0\n", "do not span"),
        ("TransformMatrix = .*\n", "TransformMatrix = 1 0 0 1 0 0 0 0 1\n", "do not span"),
        ("TransformMatrix = .*\n", "TransformMatrix = nan 0 0 0 1 0 0 0 1\n", "do not span"),
        ("TransformMatrix = .*\n", "TransformMatrix = 1 0 0 0 1 0\n", "6 numbers for 3 directions"),
    ],
)
def test_senseless_mha_header_is_refused_quietly(tmp_path, refusal, old, new, reason):
    assert reason in refusal(_edited(tmp_path / "a.mha", old, new))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("sizes: 19 18 17", "sizes: 0 18 17", "empty"),
        ("sizes: 19 18 17", "sizes: 19 -18 17", "empty"),
        ("type: short", "type: block", "type block"),
        ("space directions: .*\n", "space directions: (nan,0,0) (0,1,0) (0,0,1)\n", "spacing"),
        ("space directions: .*\n", "space directions: (1,0,0) (1,0,0) (0,0,1)\n", "do not span"),
    ],
)
def test_senseless_nrrd_header_is_refused_by_its_reason(tmp_path, refusal, old, new, reason):
    assert reason in refusal(_edited(tmp_path / "a.nrrd", old, new))


def test_nrrd_axis_without_length_is_refused(tmp_path, refusal):
    nrrd = _edited(
        tmp_path / "a.nrrd", r"space directions: .*\n", "space directions: (1,0,0) (0,0,0) (0,0,1)\n"
    )
    assert "spacing" in refusal(nrrd)


def test_sheared_axes_are_refused(tmp_path, refusal):
    nibabel = pytest.importorskip("nibabel")
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    image = nibabel.Nifti1Image(_volume().voxels.T, sheared)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "a.nii")
    assert "right angles" in refusal(tmp_path / "a.nii")
    directions = "space directions: (1,0,0) (0.3,1,0) (0,0,1)\n"
    assert "right angles" in refusal(_edited(tmp_path / "a.nrrd", r"space directions: .*\n", directions))


@pytest.mark.parametrize(("offset", "value"), [(40, 9), (40, 0), (40, -1), (70, 9999), (70, 1)])
def test_senseless_nifti_fields_are_refused(tmp_path, refusal, offset, value):
    refusal(_patched(tmp_path / "a.nii", offset, "<h", value))


@pytest.mark.parametrize("start", [1e9, float("nan"), -5000.0])
def test_senseless_start_of_voxels_never_reads_past_the_file(tmp_path, start):
    """ITK takes nonsense as "right behind the header"; a start beyond the end is refused."""
    path = _patched(tmp_path / "a.nii", 108, "<f", start)
    if start > 0:
        with pytest.raises(InputError, match="cut short"):
            Volume.read(path)
    else:
        assert Volume.read(path).voxels.shape == (17, 18, 19)


def test_nifti_2_is_refused_by_name(tmp_path, refusal):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti2Image(_volume().voxels.T, np.eye(4)), tmp_path / "a.nii.gz")
    assert "NIfTI-2" in refusal(tmp_path / "a.nii.gz")


# Other than one component in three axes


def test_2d_is_refused(tmp_path, refusal, extension):
    path = tmp_path / f"a{extension}"
    sitk.WriteImage(sitk.GetImageFromArray(_volume().voxels[0]), str(path))
    assert "2D" in refusal(path)


def test_single_slice_is_refused(tmp_path, refusal, extension):
    path = tmp_path / f"a{extension}"
    _volume(shape=(1, 18, 19)).write(path)
    assert "2D" in refusal(path)


def test_thin_volume_is_read_but_not_checked(tmp_path, refusal, extension):
    path = tmp_path / f"a{extension}"
    _volume(shape=(15, 18, 19)).write(path)
    assert Volume.read(path).voxels.shape == (15, 18, 19)
    assert "at least 16" in refusal(path)


def _frames(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 99, (count, 17, 18, 19)).astype(np.int16)


def _write_4d(path: Path, frames: np.ndarray) -> None:
    """Frames one after the other; SimpleITK joins them to an image with four axes."""
    images = [Volume(frame, (1.0, 1.5, 2.0), (3.0, 4.0, 5.0)).to_sitk() for frame in frames]
    sitk.WriteImage(sitk.JoinSeries(images), str(path))


def test_4d_asks_for_a_component_and_reads_it(tmp_path, refusal, extension):
    path, frames = tmp_path / f"a{extension}", _frames(3)
    _write_4d(path, frames)
    message = refusal(path)
    assert "0 to 2" in message and "--component" in message and "component=" in message
    for component in range(3):
        volume = Volume.read(path, component=component)
        np.testing.assert_array_equal(volume.voxels, frames[component])
        assert (volume.spacing, volume.origin) == ((1.0, 1.5, 2.0), (3.0, 4.0, 5.0))
    assert "no component 3" in refusal(path, component=3)
    assert "no component -1" in refusal(path, component=-1)


def test_4d_with_one_frame_is_read_silently(tmp_path, extension, capfd):
    path, frames = tmp_path / f"a{extension}", _frames(1)
    _write_4d(path, frames)
    np.testing.assert_array_equal(Volume.read(path).voxels, frames[0])
    assert capfd.readouterr() == ("", "")


def test_vector_image_asks_for_a_component_and_reads_it(tmp_path, refusal, extension):
    path, frames = tmp_path / f"a{extension}", _frames(3)
    sitk.WriteImage(sitk.Compose([Volume(frame).to_sitk() for frame in frames]), str(path))
    assert "3 components" in refusal(path)
    np.testing.assert_array_equal(Volume.read(path, component=2).voxels, frames[2])


def test_nrrd_list_of_components_is_read_wherever_the_list_axis_is(tmp_path, refusal):
    frames = _frames(2)
    head = "NRRD0004\ntype: short\ndimension: 4\nspace: left-posterior-superior\nsizes: {}\nkinds: {}\n"
    head += "space directions: {}\nendian: little\nencoding: raw\nspace origin: (0,0,0)\n\n"
    axes, vectors = "domain domain domain", "(1,0,0) (0,1,0) (0,0,1)"
    first = (
        head.format("2 19 18 17", f"list {axes}", f"none {vectors}").encode() + np.stack(frames, -1).tobytes()
    )
    last = head.format("19 18 17 2", f"{axes} list", f"{vectors} none").encode() + frames.tobytes()
    for name, data in (("first.nrrd", first), ("last.nrrd", last)):
        (tmp_path / name).write_bytes(data)
        assert "2 components" in refusal(tmp_path / name)
        np.testing.assert_array_equal(Volume.read(tmp_path / name, component=1).voxels, frames[1])


def test_fifth_nifti_axis_counts_slower_than_the_fourth(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    frames = _frames(6).reshape(3, 2, 17, 18, 19)
    nibabel.save(nibabel.Nifti1Image(frames.T, np.eye(4)), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(Volume.read(tmp_path / "a.nii.gz", component=3).voxels, frames[1, 1])


def test_component_0_of_a_plain_volume_is_the_volume(tmp_path, refusal, extension):
    path = tmp_path / f"a{extension}"
    _volume().write(path)
    np.testing.assert_array_equal(Volume.read(path, component=0).voxels, _volume().voxels)
    assert "no component 1" in refusal(path, component=1)


def test_complex_voxels_are_refused(tmp_path, refusal):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(_volume().voxels.T.astype(np.complex64), np.eye(4)), tmp_path / "a.nii")
    assert "complex" in refusal(tmp_path / "a.nii")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_voxels_that_are_no_numbers_are_refused(tmp_path, refusal, extension, value, word):
    voxels = _volume("f4").voxels.copy()
    voxels[8, 8, 8] = value
    Volume(voxels).write(tmp_path / f"a{extension}")
    assert word in refusal(tmp_path / f"a{extension}")


def test_constant_voxels_are_refused(tmp_path, refusal, extension):
    Volume(np.full((17, 18, 19), 4, np.uint8)).write(tmp_path / f"a{extension}")
    assert "constant" in refusal(tmp_path / f"a{extension}")


def test_series_makes_no_sense_for_a_file(tmp_path, refusal):
    _volume().write(tmp_path / "a.nii")
    assert "not DICOM" in refusal(tmp_path / "a.nii", series="1.2.3")


def test_itk_warnings_stay_off_the_terminal_and_come_back_on(tmp_path, capfd):
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    path = _patched(tmp_path / "a.nii", 84, "<f", 1.21)  # disagrees with the sform, which ITK warns about
    Volume.read(path)
    assert capfd.readouterr() == ("", "")
    assert sitk.ProcessObject.GetGlobalWarningDisplay() == before


def test_development_volumes_are_all_checkable(dev_data, capfd):
    for path in sorted((dev_data / "volumes").glob("*.nii.gz")):
        Volume.read(path).require_checkable()
    assert capfd.readouterr() == ("", "")
