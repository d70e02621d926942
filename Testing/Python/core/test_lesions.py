"""Simulated lesions: where they lie, how large they are, and that the measure tells who keeps them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from MedShieldLib.converter import intensity_range
from MedShieldLib.evaluation import lesions
from MedShieldLib.evaluation.lesions import Finding, kept_contrasts, mean_of, recall, simulate, with_lesions
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import Denoiser, LowPass
from MedShieldLib.volume import Volume


@pytest.fixture(scope="module")
def white(mni_2mm: Volume) -> np.ndarray:
    return mni_2mm.voxels > 0.75


@pytest.fixture(scope="module")
def target(small_target: NetworkTarget) -> NetworkTarget:
    """Sees the 2 mm of the head."""
    return NetworkTarget("fine", small_target.network, small_target.structures, "00", (2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def many(mni_2mm: Volume, white: np.ndarray) -> list[lesions.Lesion]:
    return [x for seed in range(3) for x in simulate(mni_2mm, white, seed)]


def test_lesions_come_from_their_seed(mni_2mm, white):
    first, again, other = (with_lesions(mni_2mm, simulate(mni_2mm, white, s)).voxels for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.05


def test_lesions_are_small_bright_or_dark_and_in_white_matter(many, mni_2mm, white):
    assert len(many) >= 30
    sizes = np.array([x.diameter_mm for x in many])
    assert sizes.min() >= 3 and sizes.max() <= 8 and np.ptp(sizes) > 3
    assert {np.sign(x.contrast) for x in many} == {-1.0, 1.0}
    assert all(0.08 <= abs(x.contrast) <= 0.30 for x in many)
    assert np.mean([white[x.box][x.core].mean() for x in many]) > 0.9
    made = np.array([x.cover.sum() * mni_2mm.voxel_ml * 1000 for x in many])
    sphere = np.pi / 6 * sizes**3
    assert 0.6 < np.median(made / sphere) < 1.6 and np.corrcoef(made, sphere)[0, 1] > 0.8


def test_lesions_do_not_touch(mni_2mm, white):
    found = simulate(mni_2mm, white, seed=4)
    covered = np.zeros(white.shape, int)
    for lesion in found:
        covered[lesion.box] += lesion.cover > 0
    assert covered.max() == 1
    assert ndimage.label(covered, np.ones((3, 3, 3)))[1] >= len(found)


def test_the_contrast_drawn_is_the_contrast_seen(many, mni_2mm):
    low, high = intensity_range(mni_2mm.voxels)
    flat = mni_2mm.with_voxels(np.zeros(mni_2mm.voxels.shape, np.float32))
    for lesion in many:
        voxels = flat.voxels.copy()
        voxels[lesion.box] += lesion.cover * np.float32(lesion.contrast)
        assert 0.4 < lesion.seen_in(voxels) / lesion.contrast <= 1.001


def test_no_white_matter_no_lesions(mni_2mm):
    assert simulate(mni_2mm, np.zeros(mni_2mm.voxels.shape, bool), seed=0) == []


def test_what_changes_nothing_keeps_all_and_what_flattens_keeps_nothing(mni_2mm, white, target):
    found = simulate(mni_2mm, white, seed=1)
    same = kept_contrasts(mni_2mm, found, lambda source, seed: source.volume.voxels, target, seed=0)
    flat = kept_contrasts(mni_2mm, found, lambda source, seed: 0 * source.volume.voxels, target, seed=0)
    half = kept_contrasts(mni_2mm, found, lambda source, seed: 0.4 * source.volume.voxels + 9, target, seed=0)
    np.testing.assert_allclose(same, 1, atol=1e-6)
    np.testing.assert_allclose(flat, 0, atol=1e-6)
    np.testing.assert_allclose(half, 0.4, atol=1e-3)


def test_a_strong_low_pass_loses_small_lesions_first(mni_2mm, white, target):
    found, kept = [], []
    for seed in range(2):
        some = simulate(mni_2mm, white, seed)
        found += some
        kept += kept_contrasts(mni_2mm, some, mean_of(LowPass(0.5)), target, seed)
    small = [k for x, k in zip(found, kept, strict=True) if x.diameter_mm < 4.5]
    large = [k for x, k in zip(found, kept, strict=True) if x.diameter_mm > 6.5]
    assert np.mean(small) < 0.5 < np.mean(large)


def test_a_capped_change_keeps_what_the_filter_alone_loses(mni_2mm, white, target):
    found, strong = simulate(mni_2mm, white, seed=1), mean_of(LowPass(0.5))
    alone, shown = (
        kept_contrasts(mni_2mm, found, reform, target, seed=0) for reform in (strong, lesions.capped(strong))
    )
    assert recall_of(alone) < 0.8 and recall_of(shown) > recall_of(alone) + 0.1


def recall_of(kept: list[float]) -> float:
    return float(np.mean(np.array(kept) >= lesions.KEPT))


def test_the_denoiser_keeps_them(mni_2mm, white, target):
    found = simulate(mni_2mm, white, seed=3)
    kept = kept_contrasts(mni_2mm, found, mean_of(Denoiser(16 / 255)), target, seed=0)
    assert np.mean(np.array(kept) >= lesions.KEPT) == 1 and np.mean(kept) > 0.7


def test_the_table_counts_what_is_there():
    findings = [
        Finding("blur", "a", 3.5, 0.2, 0.2),
        Finding("blur", "a", 7.0, -0.2, 0.9),
        Finding("blur", "b", 5.0, 0.1, 0.7),
        Finding("none", "a", 3.5, 0.2, 1.0),
    ]
    assert recall(findings[:3]) == pytest.approx(2 / 3)
    blur = lesions.table(findings).splitlines()[1].split()
    assert blur[:3] == ["blur", "3", "0.667"] and "0.600" in blur and blur[-1] == "0.20"
    assert blur[-5:-2] == ["0.000", "1.000", "1.000"]
