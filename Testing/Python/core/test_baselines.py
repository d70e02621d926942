"""Baseline defences, benign shifts and figures of merit: each does what its paper or formula says."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from MedShieldLib import cosine, shifts
from MedShieldLib.converter import Spectrum
from MedShieldLib.errors import Cancelled
from MedShieldLib.evaluation import filters, fitting, magnet
from MedShieldLib.evaluation.baselines import FILTERS, Filter, Filtered
from MedShieldLib.evaluation.benign import SHIFTS
from MedShieldLib.evaluation.defence import Asked, Setting
from MedShieldLib.evaluation.magnet import MagNet
from MedShieldLib.evaluation.metrics import auroc, over_subjects, roc
from MedShieldLib.evaluation.published import Published
from MedShieldLib.evaluation.spectrum import SpectrumDetector
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import Source
from MedShieldLib.volume import Structure, Volume


def bright_above_half(mm: float = 4.0) -> NetworkTarget:
    layer = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.0, 40.0]).reshape(2, 1, 1, 1, 1))
        layer.bias.copy_(torch.tensor([0.0, -20.0]))
    return NetworkTarget("toy", layer, (Structure(1, "Bright", (1.0, 1.0, 0.0)),), "0" * 64, (mm,) * 3)


def source(volume: Volume, mm: float = 4.0) -> Source:
    target = bright_above_half(mm)
    return Source(volume, target.grid(volume), target.finest_mm)


def noisy(volume: Volume, seed: int = 0, sigma: float = 0.05) -> Volume:
    noise = np.random.default_rng(seed).standard_normal(volume.voxels.shape).astype(np.float32)
    return volume.with_voxels(volume.voxels + sigma * noise)


# --- filters


@pytest.mark.parametrize("family", FILTERS, ids=lambda f: f.name)
def test_filters_keep_the_anatomy_and_do_something(family: Filter, mni_4mm: Volume):
    for strength in family.strengths:
        out = family.apply(source(mni_4mm), strength)
        assert out.shape == mni_4mm.voxels.shape and out.dtype == np.float32 and np.isfinite(out).all()
        assert np.abs(out - mni_4mm.voxels).mean() > 1e-4
        assert np.corrcoef(out.ravel(), mni_4mm.voxels.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("name", ["gaussian", "median", "low-pass", "visu-shrink"])
def test_smoothing_filters_bring_a_noisy_volume_nearer_to_the_clean_one(name: str, mni_4mm: Volume):
    family = next(f for f in FILTERS if f.name == name)
    volume = noisy(mni_4mm, sigma=0.15)
    out = family.apply(source(volume), family.strengths[-1])
    assert np.square(out - mni_4mm.voxels).mean() < 0.8 * np.square(volume.voxels - mni_4mm.voxels).mean()


@pytest.mark.parametrize("family", FILTERS, ids=lambda f: f.name)
def test_strengths_go_from_strong_to_weak(family: Filter, mni_4mm: Volume):
    changes = [np.abs(family.apply(source(mni_4mm), s) - mni_4mm.voxels).mean() for s in family.strengths]
    assert changes == sorted(changes, reverse=True)


def test_filters_act_on_what_the_target_sees_not_on_single_voxels(mni_2mm: Volume):
    lattices = []
    filters.interleaved(source(mni_2mm, mm=4.0), lambda x: lattices.append(x) or x)
    assert len(lattices) == 8
    assert sum(x.size for x in lattices) == mni_2mm.voxels.size
    np.testing.assert_array_equal(lattices[-1], mni_2mm.voxels[1::2, 1::2, 1::2])


def test_bit_depth_leaves_as_many_grey_levels(mni_4mm: Volume):
    assert len(np.unique(filters.bit_depth(source(mni_4mm), 3).round(4))) == 8


def test_strength_is_the_strongest_that_clean_volumes_bear_and_is_remembered(mni_4mm: Volume, tmp_path):
    asked = []

    def behead(seen: Source, strength: float) -> np.ndarray:
        asked.append(strength)
        kept = np.arange(len(seen.volume.voxels)) < (1 - strength) * len(seen.volume.voxels)
        return seen.volume.voxels * kept[:, None, None].astype(np.float32)

    family = Filter("behead", behead, (0.7, 0.5, 0.05, 0.0))
    setting = Setting(bright_above_half(), [("a", mni_4mm)], tmp_path)
    assert Filtered.fit(family, setting).strength == 0.05
    assert asked == [0.7, 0.5, 0.05]
    assert Filtered.fit(family, setting).strength == 0.05
    assert len(asked) == 3


# --- block cosine spectra


def test_jpeg_is_what_a_jpeg_file_holds(mni_2mm: Volume):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow to write a JPEG file")
    unit = np.clip(mni_2mm.voxels[40:41], 0, 1)
    for quality in (30, 75, 95):
        file = io.BytesIO()
        image.fromarray(np.round(unit[0] * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
        theirs = np.asarray(image.open(file)).astype(float)
        ours = cosine.jpeg(unit, quality)[0] * 255
        # A coefficient half-way between two multiples may be rounded either way: whole blocks differ then.
        assert np.mean(np.abs(ours - theirs) <= 2) > 0.97
        assert np.abs(ours - theirs).mean() < 0.2 * np.abs(unit[0] * 255 - theirs).mean() + 0.2


def test_rounding_to_nothing_changes_nothing():
    x = np.random.default_rng(0).random((5, 17, 30), np.float32)
    np.testing.assert_allclose(cosine.rounded(x, np.full((8, 8), 1e-6)), x, atol=1e-5)
    np.testing.assert_allclose(cosine.rounded(x, np.full((8, 8, 8), 1e-6)), x, atol=1e-5)


def test_rounding_everything_away_leaves_nothing_but_block_means_that_are_kept():
    x = np.random.default_rng(0).random((8, 16, 16), np.float32)
    steps = np.full((8, 8), 1e6)
    steps[0, 0] = 1e-6
    means = x.reshape(8, 2, 8, 2, 8).mean((2, 4))
    np.testing.assert_allclose(cosine.rounded(x, steps), means.repeat(8, 1).repeat(8, 2), atol=1e-5)


# --- learned baselines


@pytest.fixture(scope="module")
def heads(mni_4mm: Volume) -> list[tuple[str, Volume]]:
    return [(name, noisy(mni_4mm, seed, 0.01)) for seed, name in enumerate("ab")]


def test_magnet_goes_on_after_a_stop_and_reforms(heads, mni_4mm, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY", 4)
    monkeypatch.setattr(magnet, "_EDGE", 24)
    target = bright_above_half()
    whole = MagNet.fit(Setting(target, heads, tmp_path / "whole"), steps=12)
    calls = iter(range(1000))
    halting = Setting(target, heads, tmp_path / "halted", cancelled=lambda: next(calls) == 10)
    with pytest.raises(Cancelled):
        MagNet.fit(halting, steps=12)
    resumed = MagNet.fit(Setting(target, heads, tmp_path / "halted"), steps=12)
    for ours, theirs in zip(whole.autoencoder.parameters(), resumed.autoencoder.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    asked = Asked(target)
    asked.about(mni_4mm)
    opinion = whole.judge(asked, mni_4mm, 0)
    assert 0 < opinion.score < 1
    assert asked.extra == 1 and opinion.defended().labels.shape == mni_4mm.voxels.shape


def test_published_recipe_trains_and_scores_in_the_unit_interval(heads, mni_4mm, tmp_path, monkeypatch):
    monkeypatch.setattr(magnet, "_EDGE", 24)
    setting = Setting(bright_above_half(), heads, tmp_path)
    defence = Published.fit(setting, steps=10, reformer_steps=5)
    assert Published.fit(setting, steps=10, reformer_steps=5).identity == defence.identity
    asked = Asked(setting.target)
    asked.about(mni_4mm)
    opinion = defence.judge(asked, mni_4mm, 0)
    assert 0 < opinion.score < 1 and opinion.defended is not None


def test_spectrum_detector_finds_unlike_spectra_and_never_asks_the_target(heads, mni_4mm, tmp_path):
    setting = Setting(bright_above_half(), heads, tmp_path)
    defence, asked = SpectrumDetector.fit(setting), Asked(setting.target)
    rough = noisy(mni_4mm, 5, 0.3)
    asked.about(mni_4mm)
    ordinary = defence.judge(asked, mni_4mm, 0).score
    asked.about(rough)
    assert defence.judge(asked, rough, 0).score > 2 * ordinary
    assert asked.extra == 0


# --- shifts


@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_change_the_volume_repeatably_and_leave_it_checkable(name: str, mni_4mm: Volume):
    pytest.importorskip("torchio", reason="needs torchio")
    shifted = shifts.apply(SHIFTS[name], mni_4mm, 3)
    shifted.require_checkable()
    again = shifts.apply(SHIFTS[name], mni_4mm, 3)
    np.testing.assert_array_equal(shifted.voxels, again.voxels)
    if shifted.voxels.shape == mni_4mm.voxels.shape:
        assert np.abs(shifted.voxels - mni_4mm.voxels).mean() > 1e-4


def test_another_matrix_covers_the_same_field_of_view(mni_4mm: Volume):
    other = shifts.apply(shifts.matrix_size, mni_4mm, 1)
    assert other.voxels.shape != mni_4mm.voxels.shape
    for volume in (other, mni_4mm):
        corners = np.array([[-0.5, -0.5, -0.5, 1], [*(n - 0.5 for n in reversed(volume.voxels.shape)), 1]])
        np.testing.assert_allclose(corners @ volume.affine.T, corners_of(mni_4mm), atol=1e-3)
    assert abs(other.voxels.mean() - mni_4mm.voxels.mean()) < 0.01


def corners_of(volume: Volume) -> np.ndarray:
    ends = np.array([[-0.5, -0.5, -0.5, 1], [*(n - 0.5 for n in reversed(volume.voxels.shape)), 1]])
    return ends @ volume.affine.T


def test_sharpening_raises_the_fine_detail_and_blur_lowers_it(mni_4mm: Volume):
    def detail(volume: Volume) -> float:
        spectrum = Spectrum.of(volume)
        return float(spectrum.power()[spectrum.radius() > 0.08].sum())

    plain = detail(mni_4mm)
    assert detail(shifts.apply(shifts.sharpening, mni_4mm, 0)) > 1.1 * plain
    assert detail(shifts.apply(SHIFTS["resampling"], mni_4mm, 0)) < 0.9 * plain


def test_contrast_agent_lights_up_few_voxels_and_none_in_air(mni_4mm: Volume):
    change = shifts.apply(shifts.contrast_agent, mni_4mm, 0).voxels - mni_4mm.voxels
    assert change.min() >= 0 and (change > 0.1).mean() < 0.1 and change.max() > 0.1
    assert change[mni_4mm.voxels == 0].max() == 0


# --- figures of merit


def test_auroc_counts_pairs():
    assert auroc([2, 3], [0, 1]) == 1 and auroc([0, 1], [2, 3]) == 0 and auroc([1], [1]) == 0.5
    assert auroc([1, 3], [2]) == 0.5
    assert np.isnan(auroc([], [1]))


def test_roc_runs_from_nothing_to_everything_and_its_area_is_the_auroc():
    rng = np.random.default_rng(0)
    attacked, clean = rng.normal(1, 1, 50), rng.normal(0, 1, 40)
    false, true = roc(attacked, clean)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(auroc(attacked, clean))


def test_intervals_are_over_subjects_not_over_volumes():
    rng = np.random.default_rng(1)
    few = {str(n): [float(value)] * 200 for n, value in enumerate(rng.normal(0, 1, 6))}
    found = over_subjects(few, lambda items: float(np.mean(items)))
    assert found.low < found.value < found.high
    assert found.high - found.low > 0.5  # 1200 independent items would give about 0.1
    alone = over_subjects({"a": [1.0, 2.0]}, lambda items: float(np.mean(items)))
    assert alone.value == 1.5 and np.isnan(alone.low)
