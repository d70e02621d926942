"""A volume in memory: geometry, hash, what can be checked, and the way to SimpleITK and back."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedShieldLib.errors import InputError
from MedShieldLib.volume import Volume

LEFT_HANDED = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


@pytest.fixture
def volume() -> Volume:
    voxels = np.random.default_rng(1).integers(-1000, 1000, (16, 18, 20), dtype=np.int16)
    return Volume(voxels, (1.0, 1.5, 2.0), (10.0, -20.0, 30.0), LEFT_HANDED)


def test_to_sitk_and_back_keeps_voxels_type_and_geometry(volume):
    back = Volume.from_sitk(volume.to_sitk())
    assert back.voxels.dtype == np.int16
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    assert (back.spacing, back.origin, back.direction) == (volume.spacing, volume.origin, volume.direction)


@pytest.mark.parametrize("dtype", [">i2", ">u4", ">f4", "<f8"])
def test_bytes_in_any_order_pass_to_sitk(volume, dtype):
    odd = volume.with_voxels(volume.voxels.clip(0).astype(dtype))
    odd.require_checkable()
    np.testing.assert_array_equal(Volume.from_sitk(odd.to_sitk()).voxels, odd.voxels)


def test_affine_agrees_with_simpleitk(volume):
    index = (3, 5, 7)
    expected = volume.to_sitk().TransformIndexToPhysicalPoint(index)
    np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], expected)


def test_from_sitk_refuses_other_than_one_component_in_three_axes():
    for image in (sitk.Image([20, 20], sitk.sitkInt16), sitk.Image([20, 20, 20], sitk.sitkVectorInt16, 2)):
        with pytest.raises(InputError, match="three axes and one component"):
            Volume.from_sitk(image)


def test_voxel_volume_in_ml(volume):
    assert volume.voxel_ml == pytest.approx(0.003)


def test_same_geometry_ignores_voxels_and_rounding(volume):
    other = volume.with_voxels(volume.voxels * 0.5)
    assert volume.same_geometry(replace(other, origin=(10.0004, -20.0, 30.0)))


@pytest.mark.parametrize(
    "change",
    [
        {"origin": (10.01, -20.0, 30.0)},
        {"spacing": (1.0, 1.5, 2.001)},
        {"direction": tuple(-x for x in LEFT_HANDED)},
        {"voxels": np.zeros((20, 18, 16))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_same_geometry_sees_a_difference(volume, change):
    assert not volume.same_geometry(replace(volume, **change))


def test_hash_is_of_voxels_type_and_geometry_not_of_memory_layout_or_source(volume):
    same = replace(
        volume, voxels=np.asfortranarray(volume.voxels.astype(">i2")), source=Path("elsewhere.nii")
    )
    assert same.sha256() == volume.sha256()
    others = [
        volume.with_voxels(volume.voxels.astype(np.int32)),
        volume.with_voxels(volume.voxels.reshape(18, 16, 20)),
        volume.with_voxels(np.where(volume.voxels == volume.voxels.max(), 0, volume.voxels)),
        replace(volume, spacing=(1.0, 1.5, 2.5)),
        replace(volume, origin=(0.0, 0.0, 0.0)),
        replace(volume, direction=tuple(-x for x in LEFT_HANDED)),
    ]
    assert len({volume.sha256(), *(other.sha256() for other in others)}) == 1 + len(others)


def test_real_head_is_checkable(mni_4mm):
    mni_4mm.require_checkable()


def _with_voxel(volume: Volume, value: float) -> Volume:
    voxels = volume.voxels.astype(np.float64)
    voxels[3, 4, 5] = value
    return volume.with_voxels(voxels)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda v: v.with_voxels(np.zeros((0, 18, 20))), "empty"),
        (lambda v: v.with_voxels(np.full((16, 18, 20), 7)), "constant: every voxel is 7"),
        (lambda v: _with_voxel(v, math.nan), "NaN"),
        (lambda v: _with_voxel(v, math.inf), "infinite"),
        (lambda v: _with_voxel(v, -math.inf), "infinite"),
        (lambda v: _with_voxel(v, 1e300), "beyond float32"),
        (lambda v: v.with_voxels(v.voxels > 0), "type bool"),
        (lambda v: v.with_voxels(v.voxels * 1j), "type complex"),
        (lambda v: v.with_voxels(v.voxels.astype(np.float16)), "float16; convert them to float32"),
        (lambda v: v.with_voxels(v.voxels[0]), "2 axes"),
        (lambda v: v.with_voxels(v.voxels[None]), "4 axes"),
        (lambda v: v.with_voxels(v.voxels[:15]), "20 x 18 x 15 voxels; every axis needs at least 16"),
        (lambda v: replace(v, spacing=(1.0, 0.0, 1.0)), "spacing of 1 x 0 x 1 mm"),
        (lambda v: replace(v, spacing=(1.0, 1.0, -2.0)), "spacing of 1 x 1 x -2 mm"),
        (lambda v: replace(v, spacing=(math.nan, 1.0, 1.0)), "spacing of nan"),
        (lambda v: replace(v, direction=(1.0, 0.3, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)), "right angles"),
    ],
)
def test_what_cannot_be_checked_is_refused_by_name(volume, spoil, reason):
    bad = replace(spoil(volume), source=Path("scans/head.nii"))
    with pytest.raises(InputError) as caught:
        bad.require_checkable()
    assert reason in str(caught.value) and "head.nii" in str(caught.value)


def test_without_a_file_the_sentence_speaks_of_the_volume(volume):
    with pytest.raises(InputError, match="^The volume is constant"):
        volume.with_voxels(np.ones((16, 16, 16))).require_checkable()
