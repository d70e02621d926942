"""Benign shifts: repeatable by seed, in place, finite, and each doing what it is named after."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from MedShieldLib import shifts
from MedShieldLib.converter import Spectrum, intensity_range, radial_profile
from MedShieldLib.volume import Volume

Heads = list[tuple[str, Volume]]

BY_TORCHIO = (
    shifts.blur, shifts.anisotropy, shifts.motion, shifts.ghosting, shifts.spike, shifts.rotation
)  # fmt: skip
OWN = (
    shifts.rician_noise, shifts.bias_field, shifts.gamma, shifts.eight_bit, shifts.jpeg, shifts.resampling,
    shifts.sharpening, shifts.contrast, shifts.contrast_agent, shifts.scanner, shifts.matrix_size,
)  # fmt: skip
ALL = (*BY_TORCHIO, *OWN)


@pytest.fixture
def head(small_heads: Heads) -> Volume:
    return small_heads[0][1]


def name_of(shift: Callable) -> str:
    return shift.__name__


@pytest.mark.parametrize("shift", ALL, ids=name_of)
def test_a_shift_changes_the_voxels_and_is_a_matter_of_its_seed(shift: shifts.Shift, head: Volume) -> None:
    if shift in BY_TORCHIO or shift is shifts.scanner:
        pytest.importorskip("torchio")
    before, state = head.voxels.copy(), torch.random.get_rng_state()
    one, same, other = (shifts.apply(shift, head, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.voxels, same.voxels)
    assert np.isfinite(one.voxels).all() and one.voxels.dtype == np.float32
    if shift is not shifts.eight_bit:  # which draws nothing
        assert not np.array_equal(one.voxels, other.voxels)
    if shift is not shifts.matrix_size:
        assert one.same_geometry(head)
        assert np.abs(one.voxels - before).max() > 0.5
    one.require_checkable()
    np.testing.assert_array_equal(head.voxels, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_none_is_the_volume_itself(head: Volume) -> None:
    assert shifts.apply(shifts.none, head, 3) is head
    assert shifts.CALIBRATION[0] is shifts.none


@pytest.mark.parametrize("shift", shifts.CALIBRATION, ids=name_of)
def test_what_calibration_draws_leaves_the_anatomy_in_place(shift: shifts.Shift, head: Volume) -> None:
    if shift in BY_TORCHIO:
        pytest.importorskip("torchio")
    for seed in range(3):
        shifted = shifts.apply(shift, head, seed).voxels
        assert np.corrcoef(shifted.ravel(), head.voxels.ravel())[0, 1] > (
            0.75 if shift is shifts.rotation else 0.95
        )


def test_rician_noise_in_air_is_rayleigh_and_as_strong_as_asked() -> None:
    voxels = np.zeros((40, 40, 40), np.float32)
    voxels[:20] = 1000
    noisy = shifts.rician_noise(Volume(voxels), np.random.default_rng(0), (2.0, 2.0)).voxels
    air, tissue = noisy[20:], noisy[:20]
    assert air.mean() == pytest.approx(20 * np.sqrt(np.pi / 2), rel=0.02)
    assert tissue.std() == pytest.approx(20, rel=0.02)


def test_noise_does_not_fold_negative_intensities_over() -> None:
    hounsfield = np.full((32, 32, 32), -1000, np.int16)
    hounsfield[:16] = 40
    noisy = shifts.rician_noise(Volume(hounsfield), np.random.default_rng(0), (1.0, 1.0)).voxels
    assert noisy[16:].mean() == pytest.approx(-1000, abs=15)
    assert noisy[:16].mean() == pytest.approx(40, abs=2)


def test_a_bias_field_is_a_smooth_gain(head: Volume) -> None:
    flat = head.with_voxels(np.full(head.voxels.shape, 100, np.int16))
    gain = shifts.apply(shifts.bias_field, flat, 0).voxels / 100
    assert gain.min() > 0.5 and gain.max() < 2 and np.ptp(gain) > 0.1
    assert np.abs(np.diff(gain, 2, axis=0)).max() < 0.1 * np.ptp(gain)


def test_gamma_keeps_the_order_and_the_range(head: Volume) -> None:
    order = np.argsort(head.voxels, axis=None, kind="stable")
    low, high = intensity_range(head.voxels)
    for seed in range(4):
        shifted = shifts.apply(shifts.gamma, head, seed).voxels
        assert (np.diff(shifted.ravel()[order]) >= -1e-3).all()
        assert intensity_range(shifted) == pytest.approx((low, high), abs=2)


def test_eight_bit_has_256_grey_levels_and_rounds_to_the_nearest(head: Volume) -> None:
    low, high = intensity_range(head.voxels)
    shifted = shifts.apply(shifts.eight_bit, head, 0).voxels
    assert 100 < len(np.unique(shifted)) <= 256
    clipped = np.clip(head.voxels, low, high)
    assert np.abs(shifted - clipped).max() <= (high - low) / 255 / 2 * 1.001


@pytest.mark.parametrize(
    ("shift", "weaker"),
    [(shifts.blur, True), (shifts.anisotropy, True), (shifts.resampling, True), (shifts.sharpening, False)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_blur_weakens_fine_detail_and_sharpening_strengthens_it(
    shift: shifts.Shift, weaker: bool, head: Volume
) -> None:
    if shift in BY_TORCHIO:
        pytest.importorskip("torchio")
    bands = np.array([0.01, 0.04, 0.2, 0.33])
    before = radial_profile(Spectrum.of(head), bands)
    after = radial_profile(Spectrum.of(shifts.apply(shift, head, 0)), bands)
    change = (after - before)[2] - (after - before)[0]
    assert change < -0.05 if weaker else change > 0.05


def test_another_matrix_covers_the_same_field_of_view(head: Volume) -> None:
    resampled = shifts.apply(shifts.matrix_size, head, 0)
    assert resampled.voxels.shape != head.voxels.shape
    for volume in (head, resampled):  # the outer corner of the first voxel, and the extent
        corner = volume.affine @ [-0.5, -0.5, -0.5, 1]
        extent = np.multiply(volume.spacing, volume.voxels.shape[::-1])
        np.testing.assert_allclose(corner[:3], (head.affine @ [-0.5, -0.5, -0.5, 1])[:3], atol=1e-6)
        np.testing.assert_allclose(extent, np.multiply(head.spacing, head.voxels.shape[::-1]))
    assert resampled.voxels.mean() == pytest.approx(head.voxels.mean(), rel=0.02)


def test_a_contrast_agent_only_brightens_and_only_tissue(head: Volume) -> None:
    rise = shifts.apply(shifts.contrast_agent, head, 0).voxels - head.voxels
    assert rise.min() > -1e-3
    assert 0.001 < (rise > 50).mean() < 0.2
    low, high = intensity_range(head.voxels)
    assert np.abs(rise[head.voxels < low + 0.05 * (high - low)]).max() < 1e-3
