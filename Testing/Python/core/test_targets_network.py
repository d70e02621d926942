"""Targets made of a network: the reference architecture, its window and grid, and the bound of a change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedShieldLib.errors import InputError
from MedShieldLib.targets import DifferentiableTarget, brain_tissue, load_target
from MedShieldLib.targets.base import answered_logits
from MedShieldLib.targets.network import NetworkTarget, add_within
from MedShieldLib.targets.window import Window
from MedShieldLib.volume import Structure, Volume

BRIGHT = (Structure(7, "Bright", (1.0, 0.5, 0.0)),)
TILTED = (0.0, -0.6, 0.8, 1.0, 0.0, 0.0, 0.0, -0.8, -0.6)  # left-handed and oblique


class BrighterThanHalf(torch.nn.Module):
    """Logits of being brighter than the middle of the window."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 - x, x - 0.5], dim=1) * 20


def _bright(spacing: float = 1.0, **choices) -> NetworkTarget:
    return NetworkTarget("bright", BrighterThanHalf(), BRIGHT, "0" * 64, (spacing,) * 3, **choices)


def _random_tissue() -> NetworkTarget:
    torch.manual_seed(0)
    return brain_tissue.target_of(brain_tissue.build_network(), "0" * 64)


def _head(dtype: str = "int16", seed: int = 0, **geometry) -> Volume:
    """A bright ball of noise in (32, 40, 36) voxels."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices((32, 40, 36), dtype=float)
    ball = (k - 15) ** 2 + (j - 20) ** 2 + (i - 18) ** 2 < 12**2
    voxels = np.where(ball, 150, 20) + rng.normal(0, 8, ball.shape)
    return Volume(np.clip(voxels, 0, 255).astype(dtype), **geometry)


def test_reference_target_is_small_and_differentiable() -> None:
    target = _random_tissue()
    assert isinstance(target, DifferentiableTarget)
    assert sum(p.numel() for p in target.network.parameters()) <= 1_000_000
    volume = _head(spacing=(2.0, 2.0, 2.0))
    x = target.window(volume).requires_grad_()
    (gradient,) = torch.autograd.grad(target.logits(x).square().mean(), x)
    assert gradient.shape == x.shape and float(gradient.abs().max()) > 0
    assert not any(p.requires_grad for p in target.network.parameters())


def test_probabilities_are_the_softmax_of_the_logits_and_sum_to_one() -> None:
    target, volume = _random_tissue(), _head(spacing=(1.5, 1.5, 2.0), direction=TILTED)
    target.one_piece = False  # or islands are dropped, and a random network draws many
    answer = target.probabilities(volume)
    x = target.window(volume)
    assert answer.shape == (4, *x.shape[2:]) == (4, *target.grid(volume).shape)
    assert float(x.min()) == 0 and float(x.max()) == 1
    with torch.no_grad():
        assert np.allclose(answer, torch.softmax(target.logits(x), 1)[0], atol=1e-6)
    assert np.allclose(answer.sum(0), 1, atol=1e-5)


def test_grid_depends_on_geometry_alone() -> None:
    target = _bright(1.7)
    volume = _head(spacing=(1.1, 0.9, 2.0), direction=TILTED)
    other = volume.with_voxels(_head(seed=1).voxels // 3 + 40)
    assert target.grid(volume) == target.grid(other)
    assert target.probabilities(volume).shape == target.probabilities(other).shape


@pytest.mark.parametrize("spacing", [1.0, 2.0, 0.7])
def test_label_map_comes_back_in_the_geometry_of_the_input(spacing: float) -> None:
    target = _bright(spacing)
    volume = _head(direction=TILTED)
    labels = target.labelmap(target.probabilities(volume), volume)
    assert labels.dtype == np.uint8 and labels.shape == volume.voxels.shape
    assert set(np.unique(labels)) == {0, 7}
    low, high = np.percentile(volume.voxels, [0.5, 99.5])
    truth = volume.voxels > (low + high) / 2
    dice = 2 * (truth & (labels == 7)).sum() / (truth.sum() + (labels == 7).sum())
    assert dice == 1 if spacing == 1 else dice > 0.93


def test_label_maps_longer_than_a_slab_have_no_seams() -> None:
    target = _bright(1.3)
    voxels = np.random.default_rng(0).integers(0, 100, (150, 17, 18)).astype(np.uint8)
    volume = Volume(voxels)
    answer = target.probabilities(volume)
    grid = target.grid(volume)
    whole = torch.stack([grid.from_grid(torch.from_numpy(channel)) for channel in answer])
    assert np.array_equal(target.labelmap(answer, volume), whole.argmax(0).numpy() * 7)


def test_islands_go_and_the_border_of_the_largest_piece_stays() -> None:
    volume = _head()
    with_island = volume.with_voxels(volume.voxels.copy())
    with_island.voxels[1:4, 1:4, 1:4] = 150
    plain, pieces = _bright(2.0), _bright(2.0, one_piece=True)
    expected = plain.labelmap(plain.probabilities(volume), volume)
    assert plain.labelmap(plain.probabilities(with_island), with_island)[:6, :6, :6].any()
    assert np.array_equal(pieces.labelmap(pieces.probabilities(with_island), with_island), expected)


@pytest.mark.parametrize("one_piece", [False, True])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_softmax_of_the_postprocessed_logits_is_the_answer(one_piece: bool, scale: float) -> None:
    volume = _head()
    volume.voxels[1:4, 1:4, 1:4] = 150
    target = _bright(2.0, one_piece=one_piece)
    target.network.register_forward_hook(lambda module, x, answer: scale * answer)
    x = target.window(volume).requires_grad_()
    logits = answered_logits(target, x)
    np.testing.assert_allclose(
        torch.softmax(logits, 1)[0].detach(), target.probabilities(volume), rtol=0, atol=1e-6
    )
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), x)
    island = x.detach()[..., :3, :3, :3] > 0.5
    assert island.any() and bool((gradient[..., :3, :3, :3][island] == 0).all()) == one_piece
    assert gradient[..., 10, 10, 10].all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("spacing", [1.0, 2.0, 1.4, 0.8])
def test_unwindow_keeps_the_bound_in_the_files_own_data_type(dtype: str, spacing: float) -> None:
    target, eps = _bright(spacing), 8 / 255
    volume = _head(dtype, direction=TILTED)
    x = target.window(volume)
    signs = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    changed = target.unwindow((x + eps * (1 - 1e-5) * signs).clamp(0, 1), volume)
    assert changed.voxels.dtype == volume.voxels.dtype
    assert (changed.spacing, changed.direction) == (volume.spacing, volume.direction)
    low, high = target.window_rule.bounds(target.grid(volume).to_grid(volume.voxels))
    moved = np.abs(changed.voxels.astype(np.float64) - volume.voxels.astype(np.float64)).max()
    assert 0 < moved <= eps * (high - low)


@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_unwindow_is_exact_where_the_grids_fit(spacing: float) -> None:
    target = _bright(spacing, window=Window(-50, 300, fixed=True))
    volume = _head("float32", direction=TILTED)
    x = target.window(volume)
    wanted = (x + torch.empty_like(x).uniform_(-0.03, 0.03)).clamp(0, 1)
    assert torch.allclose(target.window(target.unwindow(wanted, volume)), wanted, atol=1e-5)


@pytest.mark.parametrize(("spacing", "left_over"), [(2.3, 0.02), (1.4, 0.05), (0.8, 0.4)])
def test_unwindow_comes_close_where_they_do_not(spacing: float, left_over: float) -> None:
    target = _bright(spacing, window=Window(-50, 300, fixed=True))
    volume = _head("float32")
    x = target.window(volume)
    signs = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    wanted = x + 0.03 * torch.nn.functional.avg_pool3d(signs, 3, 1, 1)
    got = target.window(target.unwindow(wanted, volume))
    assert float((got - wanted).abs().mean()) < left_over * float((wanted - x).abs().mean())


def test_unwindow_of_the_window_itself_changes_nothing() -> None:
    for dtype in ("int16", "float32"):
        target, volume = _bright(1.4), _head(dtype)
        assert np.array_equal(target.unwindow(target.window(volume), volume).voxels, volume.voxels)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "float16", "float32"])
def test_added_changes_neither_overflow_nor_exceed(dtype: str) -> None:
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 60000
    voxels = rng.uniform(top * 0.3, top * 0.7, (8, 8, 8)).astype(dtype)
    voxels[0], voxels[1] = top, 0
    volume = Volume(voxels)
    change = rng.uniform(-7.3, 7.3, voxels.shape).astype(np.float32)
    moved = add_within(volume, change).voxels.astype(np.float64) - voxels.astype(np.float64)
    assert np.abs(moved).max() <= np.abs(change).max()
    assert (moved[2:] * change[2:] >= 0).all()
    if np.issubdtype(dtype, np.integer):
        assert np.array_equal(moved[2:4], np.rint(change[2:4])) and moved[0].max() <= 0


def test_a_whole_number_bound_survives_rounding() -> None:
    volume = Volume(np.full((16, 16, 16), 100, np.int16))
    change = np.full(volume.voxels.shape, 1.99998, np.float32)
    assert (add_within(volume, change).voxels == 102).all()


def test_window_is_by_percentile_or_fixed_and_never_empty() -> None:
    x = torch.arange(1001.0)
    assert Window().bounds(x) == pytest.approx((5.0, 995.0))
    assert Window(-160, 240, fixed=True).bounds(x) == (-160, 240)
    assert Window().bounds(torch.full((10,), 3.0)) == (3, 4)


def test_a_flat_volume_gets_a_finite_answer() -> None:
    answer = _bright().probabilities(Volume(np.full((16, 16, 16), 5, np.int16)))
    assert np.isfinite(answer).all()


@pytest.mark.parametrize("patch", [(16, 16, 16), (48, 48, 48)])
def test_sliding_window_answers_like_the_whole_volume(patch: tuple[int, int, int]) -> None:
    volume = _head()
    whole, sliding = _bright(), _bright(patch_size=patch)
    assert np.allclose(whole.probabilities(volume), sliding.probabilities(volume), atol=1e-4)
    x = sliding.window(volume).requires_grad_()
    (gradient,) = torch.autograd.grad(sliding.logits(x)[:, 1].sum(), x)
    assert torch.allclose(gradient, torch.full_like(gradient, 20.0), atol=1e-2)


def test_missing_weights_are_named(tmp_path) -> None:
    with pytest.raises(InputError, match="nothing.safetensors does not hold the weights of 'brain-tissue'"):
        brain_tissue.load(tmp_path / "nothing.safetensors")


def test_unknown_targets_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no target 'liver'; use brain-tissue, brain-tissue-robust, deepbet"):
        load_target("liver")


class TwoLayers(torch.nn.Module):
    """Something with a layer in between, which gradients need."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.narrow = torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.Conv3d(8, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.narrow(torch.relu(self.wide(x)))


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_through_a_sliding_window_hold_the_layers_of_one_patch(compiled: bool) -> None:
    network: torch.nn.Module = TwoLayers()
    if compiled:
        network = torch.jit.trace(network.eval(), torch.zeros(1, 1, 16, 16, 16))
    target = NetworkTarget("two", network, BRIGHT, "0" * 64, (1.0,) * 3, patch_size=(16, 16, 16))
    x = torch.rand(1, 1, 32, 32, 32)
    weights = torch.rand(1, 2, 32, 32, 32)

    def kept_and_gradient() -> tuple[int, torch.Tensor]:
        kept = []
        moved = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
            loss = (target.logits(moved) * weights).sum()
        return sum(kept), torch.autograd.grad(loss, moved)[0]

    few, gradient = kept_and_gradient()
    target.network.requires_grad_(True)  # as in training: nothing is computed anew
    many, expected = kept_and_gradient()
    assert torch.allclose(gradient, expected, atol=1e-6)
    assert float(gradient.abs().min()) > 0
    assert few < many / 4
