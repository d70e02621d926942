"""The learned reformer: what it removes, what it leaves, its bounds, its draws, its tiles, its training."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from MedShieldLib import denoiser
from MedShieldLib.denoiser import Network, estimate, gates, load
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.evaluation.denoising import in_place, quality
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.training import denoiser as training
from MedShieldLib.training.noise import Spectrum, enveloped, noise
from MedShieldLib.versions import Denoiser, Source
from MedShieldLib.volume import Volume

SIGMA = 6 / 255
LEVEL = 16 / 255


@pytest.fixture(scope="module")
def crop(mni_2mm: Volume) -> Volume:
    """The middle of the brain, 48^3 voxels of 2 mm."""
    return Volume(mni_2mm.voxels[24:72, 34:82, 24:72], mni_2mm.spacing)


@pytest.fixture(scope="module")
def small() -> Volume:
    """Odd sizes, integers, thick slices."""
    voxels = np.random.default_rng(0).integers(0, 900, (17, 30, 21)).astype(np.int16)
    return Volume(voxels, (1.0, 1.5, 4.0), (3.0, -4.0, 5.0))


def drawn(volume: Volume, version: Denoiser, seed: int = 0) -> np.ndarray:
    return version.draw(in_place(volume), np.random.default_rng(seed)).volume.voxels


def test_a_noisy_head_comes_nearer_to_the_clean_one(crop):
    found = quality(Denoiser(8 / 255), crop, SIGMA, seed=3)
    assert found.gain[Spectrum.WHITE] > 0.4 and found.gain[Spectrum.BLUE] > 0.5


def test_noise_of_every_spectrum_is_reduced_and_a_clean_head_kept(crop):
    found = quality(Denoiser(LEVEL), crop, SIGMA, seed=3)
    assert min(found.removed.values()) > 0.1 and found.removed[Spectrum.WHITE] > 0.35
    assert found.psnr > 34 and found.ssim > 0.985


def test_no_voxel_changes_by_more_than_the_cap(crop):
    noisy = crop.voxels + np.random.default_rng(0).normal(0, 0.1, crop.voxels.shape).astype(np.float32)
    width = in_place(crop.with_voxels(noisy)).width
    change = np.abs(drawn(crop.with_voxels(noisy), Denoiser(0.06, cap=0.03)) - noisy)
    assert change.max() == pytest.approx(0.03 * width, rel=1e-4)
    wider = np.abs(drawn(crop.with_voxels(noisy), Denoiser(0.06, cap=0.2)) - noisy)
    assert wider.max() > 0.06 * width


def test_level_zero_changes_nothing(crop):
    np.testing.assert_array_equal(drawn(crop, Denoiser(0.0)), crop.voxels)


def test_the_seed_decides_the_draw(crop):
    first, again, other = (drawn(crop, Denoiser(LEVEL), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 1e-4


def test_units_and_offset_of_the_intensities_do_not_matter(crop):
    scaled = drawn(crop.with_voxels(crop.voxels * 700 - 90), Denoiser(LEVEL))
    np.testing.assert_allclose((scaled + 90) / 700, drawn(crop, Denoiser(LEVEL)), atol=1e-5)


def test_a_bright_spot_far_outside_the_range_is_left_alone(crop):
    voxels = crop.voxels.copy()
    voxels[20:23, 20:23, 20:23] = 50.0
    assert np.abs(drawn(crop.with_voxels(voxels), Denoiser(LEVEL)) - voxels).max() <= 0.06


def test_any_shape_spacing_and_type_keeps_its_geometry(small):
    draw = Denoiser(LEVEL).draw(in_place(small), np.random.default_rng(0))
    assert draw.restore is None and draw.volume.same_geometry(small)
    assert draw.volume.voxels.dtype == np.float32 and np.isfinite(draw.volume.voxels).all()


def test_noise_is_looked_for_on_the_grid_that_the_target_sees(crop):
    """Voxels of 1 mm before a target of 2 mm: its cells change as a whole, as if the voxels were of 2 mm."""
    fine = Volume(np.kron(crop.voxels, np.ones((2, 2, 2), np.float32)), (1.0, 1.0, 1.0))
    source = Source(fine, WorkingGrid.of(fine, "LPS", (2.0, 2.0, 2.0)), 2.0)
    seen = Denoiser(LEVEL).draw(source, np.random.default_rng(4)).volume.voxels
    np.testing.assert_allclose(seen[::2, ::2, ::2], seen[1::2, 1::2, 1::2], atol=1e-6)
    np.testing.assert_allclose(seen[::2, ::2, ::2], drawn(crop, Denoiser(LEVEL), 4), atol=1e-4)


def test_tiles_leave_no_seams(monkeypatch):
    x = torch.rand(120, 16, 16, generator=torch.Generator().manual_seed(0))
    answers = []
    for halo, most in ((24, 10**9), (24, 30_000), (4, 9_000)):
        monkeypatch.setattr(denoiser, "_HALO", halo)
        monkeypatch.setattr(denoiser, "_TILE", most)
        answers.append(estimate(load(), x, LEVEL, np.random.default_rng(1)).numpy())
    whole, tiled, torn = answers
    assert len(list(denoiser._tiles((120, 16, 16)))) > 4
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    assert np.abs(torn - whole).max() > 1e-4  # with a halo too narrow the seams show


@pytest.mark.parametrize("shape", [(16, 20, 24), (256, 256, 256), (512, 512, 300), (40, 1024, 1024)])
def test_tiles_cover_every_voxel_once_and_stay_small(shape):
    covered = [set() for _ in shape]
    voxels = 0
    for tile in denoiser._tiles(shape):
        grown = [(max(0, s.start - 24), min(n, s.stop + 24)) for s, n in zip(tile, shape, strict=True)]
        assert np.prod([stop - start for start, stop in grown]) <= denoiser._TILE
        assert all(s.start % 4 == 0 for s in tile)
        voxels += np.prod([s.stop - s.start for s in tile])
        for axis, s in enumerate(tile):
            covered[axis].add((s.start, s.stop))
    assert voxels == np.prod(shape)
    for axis, size in zip(covered, shape, strict=True):
        ordered = sorted(axis)
        assert ordered[0][0] == 0 and ordered[-1][1] == size
        assert all(before[1] == after[0] for before, after in pairwise(ordered))


def test_the_halo_is_as_wide_as_what_the_network_sees():
    torch.manual_seed(0)
    x = torch.rand(1, 1, 64, 64, 64, requires_grad=True)
    answer = Network()(x, torch.tensor([0.02]), torch.ones(1, Network.DEEP))
    answer[0, 0, 32:36, 32:36, 32:36].sum().backward()
    seen = x.grad[0, 0].abs().amax((1, 2)).nonzero()
    assert 16 < 32 - int(seen.min()) <= denoiser._HALO and int(seen.max()) - 35 <= denoiser._HALO


def test_the_network_is_small_and_its_weights_ship():
    assert sum(p.numel() for p in load().parameters()) < 300_000


def test_weights_of_another_network_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"head.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    for name in ("other", "broken", "missing"):
        with pytest.raises(InputError, match=name):
            load(tmp_path / f"{name}.safetensors")


def test_gates_leave_out_some_channels_and_keep_the_mean():
    many = torch.cat([gates(Network.DEEP, np.random.default_rng(n)) for n in range(200)])
    assert 0.05 < float((many == 0).float().mean()) < 0.15
    assert float(many.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("spectrum", list(Spectrum))
def test_noise_has_unit_strength_and_comes_from_its_seed(spectrum):
    first, again, other = (noise(spectrum, (32, 40, 36), np.random.default_rng(s)) for s in (5, 5, 6))
    assert first.dtype == np.float32 and np.sqrt(np.mean(first**2)) == pytest.approx(1, rel=1e-4)
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.2


def test_spectra_are_what_their_names_say():
    def roughness(spectrum: Spectrum) -> float:
        made = (noise(spectrum, (32, 32, 32), np.random.default_rng(s)) for s in range(4))
        return float(np.mean([np.mean(np.diff(x, axis=0) ** 2) for x in made]))

    assert roughness(Spectrum.PINK) < 0.8 * roughness(Spectrum.WHITE) < 0.8 * roughness(Spectrum.BLUE)


def test_envelopes_follow_edges_and_keep_the_strength():
    clean = np.zeros((32, 32, 32), np.float32)
    clean[:, :, 16:] = 1
    white = noise(Spectrum.WHITE, clean.shape, np.random.default_rng(0))
    made = [enveloped(white, clean, np.random.default_rng(s)) for s in range(12)]
    assert all(np.sqrt(np.mean(x**2)) == pytest.approx(1, rel=1e-4) for x in made)
    assert max(np.std(x[:, :, 15:17]) / np.std(x[:, :, :8]) for x in made) > 2


@pytest.fixture(scope="module")
def heads(mni_4mm: Volume) -> list[training.Head]:
    return [training.head_of(mni_4mm)]


def test_a_sample_comes_from_its_seed_and_is_clean_plus_noise(heads):
    first, again, other = (training.sample(heads, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    clean, added, level, _ = first
    assert clean.shape == added.shape == (1, 1, 48, 48, 48)
    assert float(added.square().mean().sqrt()) == pytest.approx(float(level), rel=1e-4)


def test_training_goes_on_where_it_stopped_and_learns(heads, tmp_path):
    recipe = training.Recipe(steps=12, batch=1)
    losses: list[float] = []

    def note(fraction: float, text: str) -> None:
        losses.append(float(text.removeprefix("loss ")))

    whole = training.train(heads, tmp_path / "whole", recipe, note)
    assert losses[-1] < losses[0]
    count = iter(range(100))
    with pytest.raises(Cancelled):
        training.train(heads, tmp_path / "parts", recipe, cancelled=lambda: next(count) == 5)
    resumed = training.train(heads, tmp_path / "parts", recipe)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_training_without_heads_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="training heads"):
        training.load_heads(tmp_path)
