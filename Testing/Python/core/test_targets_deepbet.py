"""deepbet as a target: voxel by voxel what the package gives, and what the package cannot do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedShieldLib import second_opinion
from MedShieldLib.attacks import load_attack
from MedShieldLib.calibration import Calibration
from MedShieldLib.errors import InputError
from MedShieldLib.result import Verdict
from MedShieldLib.shield import Shield
from MedShieldLib.targets import DifferentiableTarget, deepbet, load_target
from MedShieldLib.volume import Volume

needs_package = pytest.mark.skipif(
    deepbet.find_spec("deepbet") is None, reason="needs the package deepbet (extra 'deepbet')"
)
pytestmark = needs_package


@pytest.fixture(scope="module")
def fine() -> deepbet.Deepbet:
    return load_target("deepbet")


@pytest.fixture(scope="module")
def coarse() -> deepbet.CoarseDeepbet:
    return load_target("deepbet-coarse")


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip("deepbet").BrainExtraction(no_gpu=True)


def _by_the_package(package, volume: Volume) -> np.ndarray:
    """The package's own mask, (K, J, I)."""
    nibabel = pytest.importorskip("nibabel")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(volume.direction, (3, 3)) * volume.spacing
    affine[:3, 3] = volume.origin
    image = nibabel.Nifti1Image(volume.voxels.T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    _, mask, _ = package.run(image)
    return np.asarray(mask.dataobj).T > 0


def _reordered(volume: Volume) -> Volume:
    """The same head stored otherwise: left-handed, other order of the axes, tilted by some degrees."""
    voxels = np.ascontiguousarray(volume.voxels.transpose(1, 2, 0)[:, ::-1])
    i, j, k = np.reshape(volume.direction, (3, 3)).T
    angle = np.deg2rad(12)
    tilt = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    direction = tilt @ np.stack([k, -i, j], axis=1)
    return replace(volume, voxels=voxels, direction=tuple(direction.ravel()))


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_mask_is_the_packages_own_on_mni152(fine, package, mni_2mm: Volume) -> None:
    labels = fine.labelmap(fine.probabilities(mni_2mm), mni_2mm)
    assert labels.shape == mni_2mm.voxels.shape and labels.dtype == np.uint8
    assert labels.any() and np.array_equal(labels > 0, _by_the_package(package, mni_2mm))


def test_mask_is_the_packages_own_in_every_orientation(fine, package, mni_2mm: Volume) -> None:
    turned = _reordered(mni_2mm)
    labels = fine.labelmap(fine.probabilities(turned), turned)
    assert labels.any() and np.array_equal(labels > 0, _by_the_package(package, turned))


def test_mask_is_the_packages_own_on_a_real_head(fine, package, dev_data: Path) -> None:
    head = Volume.read(dev_data / "volumes" / "nichart_Subj1_T1.nii.gz")
    labels = fine.labelmap(fine.probabilities(head), head)
    assert np.array_equal(labels > 0, _by_the_package(package, head))
    regions = Volume.read(dev_data / "labels" / "nichart_Subj1_DLMUSE.nii.gz")
    assert _dice(labels > 0, regions.voxels > 0) > 0.95


def test_both_are_differentiable_targets_with_hashes_of_their_own(fine, coarse) -> None:
    for target in (fine, coarse):
        assert isinstance(target, DifferentiableTarget)
        assert len(target.sha256) == 64
    assert fine.sha256 != coarse.sha256


def test_coarse_network_alone_answers_alike_in_every_orientation(coarse, mni_2mm: Volume) -> None:
    labels = coarse.labelmap(coarse.probabilities(mni_2mm), mni_2mm)
    assert labels.any() and labels.shape == mni_2mm.voxels.shape
    turned = _reordered(mni_2mm)
    again = coarse.labelmap(coarse.probabilities(turned), turned)
    assert np.array_equal(again, labels.transpose(1, 2, 0)[:, ::-1])


def test_coarse_network_alone_finds_the_brain_of_a_real_head(coarse, dev_data: Path) -> None:
    head = Volume.read(dev_data / "volumes" / "nichart_Subj1_T1.nii.gz")
    regions = Volume.read(dev_data / "labels" / "nichart_Subj1_DLMUSE.nii.gz")
    assert _dice(coarse.labelmap(coarse.probabilities(head), head) > 0, regions.voxels > 0) > 0.93


def test_probabilities_and_logits_agree_and_gradients_reach_the_input(coarse, mni_4mm: Volume) -> None:
    x = coarse.window(mni_4mm)
    assert x.shape == (1, 1, 128, 128, 128) and float(x.min()) == 0 and float(x.max()) == 1
    answer = coarse.probabilities(mni_4mm)
    logits = coarse.logits(x.requires_grad_())
    assert np.allclose(torch.softmax(logits, 1)[0].detach(), answer, atol=1e-5)
    (gradient,) = torch.autograd.grad(logits[:, 1].mean(), x)
    assert torch.isfinite(gradient).all() and float(gradient.abs().max()) > 0
    assert np.array_equal(coarse.probabilities(mni_4mm), answer)


def test_gradients_run_through_the_network_that_draws_the_box_too(fine, mni_4mm: Volume) -> None:
    x = fine.window(mni_4mm).requires_grad_()
    (gradient,) = torch.autograd.grad(fine.logits(x)[:, 1].mean(), x)
    box = fine._brain_box(x.detach())
    inside = torch.zeros_like(gradient, dtype=torch.bool)
    inside[(..., *box)] = True
    # The fine network sees nothing of what lies outside.
    assert float(gradient[inside].abs().max()) > 0 and float(gradient[~inside].abs().max()) > 0


def test_points_are_the_nearest_voxels_and_so_are_gradients(coarse, mni_2mm: Volume) -> None:
    turned = _reordered(mni_2mm)
    voxels = torch.from_numpy(np.asarray(turned.voxels, dtype=np.float32)).requires_grad_()
    sampled = coarse.sampled(voxels, turned)
    low, high = deepbet._bounds(deepbet._ordered(turned))
    seen = ((sampled.detach() - low) / (high - low)).clamp(0, 1)
    assert torch.allclose(seen, coarse.window(turned)[0, 0], atol=1e-5)
    (gradient,) = torch.autograd.grad(sampled.sum(), voxels)
    assert float(gradient.sum()) == pytest.approx(sampled.numel())
    assert torch.equal(gradient, gradient.round())  # how many points each voxel serves


def test_gradients_run_through_the_fine_network(fine, mni_4mm: Volume) -> None:
    x = fine.window(mni_4mm)
    assert x.shape[2:] == fine.grid(mni_4mm).shape == (48, 59, 50)
    answer = fine.probabilities(mni_4mm)
    logits = fine.logits(x.requires_grad_())
    assert np.allclose(torch.softmax(logits, 1)[0].detach(), answer, atol=1e-5)
    loss = torch.softmax(logits, 1)[0, 1].mean()
    (gradient,) = torch.autograd.grad(loss, x)
    assert torch.isfinite(gradient).all() and float(gradient.abs().max()) > 0
    step = x.detach() - 0.1 * gradient.sign()
    with torch.no_grad():
        assert torch.softmax(fine.logits(step.clamp(0, 1)), 1)[0, 1].mean() < loss


def test_unwindow_keeps_the_bound_and_is_exact_inside_the_window(coarse, mni_2mm: Volume) -> None:
    turned = _reordered(mni_2mm)
    volume = turned.with_voxels((turned.voxels * 4000).astype(np.int16))
    x = coarse.window(volume)
    eps = 8 / 255
    wanted = (x + eps * (1 - 1e-5) * torch.randn(x.shape).sign()).clamp(0, 1)
    changed = coarse.unwindow(wanted, volume)
    low, high = np.quantile(volume.voxels, 0.005), np.quantile(volume.voxels, 0.995)
    moved = np.abs(changed.voxels.astype(float) - volume.voxels)
    assert changed.voxels.dtype == np.int16 and 0 < moved.max() <= 1.05 * eps * (high - low)


def test_fine_unwindow_is_exact_but_for_what_the_window_clips(fine, mni_4mm: Volume) -> None:
    turned = _reordered(mni_4mm)
    x = fine.window(turned)
    wanted = (x + 0.03 * torch.randn(x.shape).sign()).clamp(0, 1)
    got = fine.unwindow(wanted, turned)
    change = np.abs(got.voxels - turned.voxels)
    low, high = deepbet._bounds(deepbet._ordered(turned))
    assert change.max() <= 0.03 * (high - low) * (1 + 1e-6)
    seen = fine.grid(got).to_grid(got.voxels)[None, None]
    inside = (x > 0) & (x < 1)
    assert torch.allclose(((seen - low) / (high - low))[inside], wanted[inside], atol=1e-5)


class Blind(torch.nn.Module):
    """A coarse network that an attacker has made to see no brain, or next to none."""

    def __init__(self, seen: int) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        brain = torch.zeros_like(x)
        brain[..., : self.seen, : self.seen, : self.seen] = 1
        return torch.cat([1 - brain, brain], dim=1)


@pytest.mark.parametrize("seen", [0, 3])
def test_a_brain_made_invisible_is_an_empty_mask_not_a_failure(fine, mni_4mm: Volume, seen: int) -> None:
    blind = deepbet.Deepbet(Blind(seen), fine.network, "0" * 64)
    answer = blind.probabilities(mni_4mm)
    assert answer.shape == (2, *blind.grid(mni_4mm).shape)
    assert (answer[0] == 1).all() and (answer[1] == 0).all()
    assert not blind.labelmap(answer, mni_4mm).any()
    x = blind.window(mni_4mm).requires_grad_()
    (gradient,) = torch.autograd.grad(blind.logits(x).sum(), x)
    assert not gradient.any()


def test_flat_volumes_get_finite_answers(coarse) -> None:
    volume = Volume(np.full((20, 24, 28), 7, np.int16))
    answer = coarse.probabilities(volume)
    assert np.isfinite(answer).all()
    assert coarse.labelmap(answer, volume).shape == volume.voxels.shape


def test_empty_answers_make_empty_label_maps(fine, mni_4mm: Volume) -> None:
    empty = np.stack([np.ones(fine.grid(mni_4mm).shape), np.zeros(fine.grid(mni_4mm).shape)])
    assert not fine.labelmap(empty.astype(np.float32), mni_4mm).any()


def test_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepbet, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'medshield\[deepbet\]'"):
        deepbet.load()


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "deepbet").mkdir()
    found = deepbet.find_spec("deepbet")
    monkeypatch.setattr(found, "origin", str(tmp_path / "deepbet" / "__init__.py"))
    monkeypatch.setattr(deepbet, "find_spec", lambda name: found)
    with pytest.raises(InputError, match=r"bbox_model.pt is missing"):
        deepbet.load_coarse()


def test_its_calibration_ships_and_fits_the_weights_of_the_package(fine, coarse):
    shipped = Calibration.shipped(fine)
    shipped.require_target(fine)
    assert shipped.n_subjects == 15 and Shield.for_target(fine).calibration.sha256 == shipped.sha256
    with pytest.raises(InputError, match="other weights"):
        shipped.require_target(coarse)


def test_the_hardened_copy_agrees_and_is_harder_to_mislead(coarse, mni_2mm: Volume) -> None:
    """Its opinion is worth as much as these two are true; see `second_opinion.py`."""
    copy = load_target("deepbet-coarse-hardened")
    assert copy.name == "deepbet-coarse-hardened" and copy.sha256 != coarse.sha256
    apart = second_opinion.contradictions(coarse, coarse.probabilities(mni_2mm), copy, mni_2mm, seed=1)
    assert apart.shape == (1, 2) and apart.max() < 0.05
    moved = [
        load_attack("pgd", steps=3)(model, mni_2mm, 8 / 255, seed=1).dice_drop for model in (coarse, copy)
    ]
    assert moved[1] < 0.5 * moved[0]


def test_the_calibration_that_ships_knows_the_hardened_copy(fine, mni_2mm: Volume) -> None:
    copy = load_target("deepbet-coarse-hardened")
    result = Shield.for_target(fine, seed=1, second=copy).check_and_segment(mni_2mm)
    assert result.second is not None and result.second.sha256 == copy.sha256
    assert result.verdict is Verdict.CLEAN
