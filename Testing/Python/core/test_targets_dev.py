"""Third-party targets of the benchmark: they find what they were trained to find on real heads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedShieldLib.errors import InputError
from MedShieldLib.evaluation import dev_targets, meshnet, torchio_unet
from MedShieldLib.targets import DifferentiableTarget, load_target
from MedShieldLib.targets.window import Window
from MedShieldLib.volume import Volume


@pytest.fixture(scope="module")
def models(dev_data: Path) -> Path:
    return dev_data / "models"


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def _head(dev_data: Path, name: str) -> tuple[Volume, np.ndarray]:
    volume = Volume.read(dev_data / "volumes" / f"{name}_T1.nii.gz")
    return volume, Volume.read(dev_data / "labels" / f"{name}_DLMUSE.nii.gz").voxels


@pytest.mark.parametrize("name", ["nichart_Subj5", "nichart_Subj6"])
def test_tutorial_unet_finds_the_brain(dev_data: Path, models: Path, name: str) -> None:
    pytest.importorskip("unet", reason="needs the package unet")
    target = dev_targets.load("torchio-unet", models)
    assert isinstance(target, DifferentiableTarget)
    volume, regions = _head(dev_data, name)
    labels = target.labelmap(target.probabilities(volume), volume)
    assert _dice(labels > 0, regions > 0) > 0.88
    x = target.window(volume).requires_grad_()
    (gradient,) = torch.autograd.grad(target.logits(x)[:, 1].clamp(-1, 1).sum(), x)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


def test_exported_unet_answers_like_the_tutorials(dev_data: Path, models: Path, tmp_path: Path) -> None:
    pytest.importorskip("unet", reason="needs the package unet")
    described = torchio_unet.export(models / "torchio_whole_images_epoch_5.pth", tmp_path / "unet")
    exported, ours = load_target(described), dev_targets.load("torchio-unet", models)
    for name in ("nichart_Subj5", "nichart_Subj6"):
        volume, _ = _head(dev_data, name)
        assert np.array_equal(exported.probabilities(volume), ours.probabilities(volume))


@pytest.mark.parametrize("name", ["meshnet-model5", "meshnet-model11"])
def test_meshnets_find_white_and_grey_matter(dev_data: Path, models: Path, name: str) -> None:
    volume, regions = _head(dev_data, "nichart_Subj1")
    middle = np.s_[40:100, 36:96, 23:83]  # 120 mm: the networks are slow, but need to see around
    low, high = np.percentile(volume.voxels, [0.5, 99.5])
    target = dev_targets.load(name, models)
    target.window_rule = Window(float(low), float(high), fixed=True)
    part = replace(volume, voxels=np.ascontiguousarray(volume.voxels[middle]))
    labels = target.labelmap(target.probabilities(part), part)
    white = np.isin(regions[middle], [*range(81, 96), 40, 41, 61, 62, 69, 35])
    assert _dice(labels == 1, white) > 0.6


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="meshnet-model5, meshnet-model11"):
        dev_targets.load("liver", tmp_path)
    with pytest.raises(InputError, match="model5_gw_ae.npz cannot be read"):
        dev_targets.load("meshnet-model5", tmp_path)
    np.savez(tmp_path / "model5_gw_ae.npz", w00=np.array([object()]), b00=1, dil00=1)
    with pytest.raises(InputError, match="model5_gw_ae.npz cannot be read"):
        dev_targets.load("meshnet-model5", tmp_path)


def test_meshnet_kernels_lie_along_the_axes_that_they_were_trained_on(tmp_path: Path) -> None:
    shift = np.zeros((3, 1, 3, 3, 3), np.float32)
    shift[:, 0, 0, 1, 1] = 1  # looks one voxel back along the first trained axis, which is i
    np.savez(tmp_path / "shift.npz", w00=shift, b00=np.zeros(3, np.float32), dil00=1)
    target = meshnet.load(tmp_path / "shift.npz", "shift", torch.nn.ReLU, Window())
    x = torch.rand(1, 1, 5, 6, 7)
    assert torch.equal(target.logits(x)[0, 0, :, :, 1:], x[0, 0, :, :, :-1])


def test_tutorial_unet_refuses_other_pickles(tmp_path: Path) -> None:
    pytest.importorskip("unet", reason="needs the package unet")
    torch.save({"weights": Path("x")}, tmp_path / "torchio_whole_images_epoch_5.pth")
    with pytest.raises(InputError, match="is not the checkpoint"):
        dev_targets.load("torchio-unet", tmp_path)
