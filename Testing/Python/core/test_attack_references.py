"""Attacks against known-good answers: other people's code in 2D, and formulae."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import fft
from scipy.spatial.distance import jensenshannon

from MedShieldLib.attacks import blocks, losses
from MedShieldLib.attacks.asma import ASMA
from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.bim import BIM
from MedShieldLib.attacks.cospgd import cosine_weighted
from MedShieldLib.attacks.dag import DAG
from MedShieldLib.attacks.fgsm import FGSM
from MedShieldLib.attacks.losses import Reference
from MedShieldLib.attacks.segpgd import SegPGD
from MedShieldLib.attacks.ssim import ssim
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.targets.window import Window
from MedShieldLib.volume import Structure, Volume

REFERENCES = np.load(Path(__file__).with_name("attack_references") / "references.npz")
EPS, STEPS, ALPHA = 0.03, 5, 0.01  # as in make_references.py


class FlatNetwork(torch.nn.Module):
    """The references' 2D network for volumes of one slice; remembers what it saw."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weights = [torch.from_numpy(REFERENCES[f"weight{n}_{classes}"]) for n in (0, 2)]
        self.biases = [torch.from_numpy(REFERENCES[f"bias{n}_{classes}"]) for n in (0, 2)]
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach()[:, :, 0])
        hidden = torch.nn.functional.conv2d(x[:, :, 0], self.weights[0], self.biases[0], padding=1)
        hidden = torch.nn.functional.elu(hidden)
        return torch.nn.functional.conv2d(hidden, self.weights[1], self.biases[1], padding=1)[:, :, None]


def case_of(classes: int, eps: float) -> tuple[FlatNetwork, Case]:
    network = FlatNetwork(classes)
    structures = tuple(Structure(n, f"class {n}", (1.0, 0.0, 0.0)) for n in range(1, classes))
    target = NetworkTarget("flat", network, structures, "0", (1.0,) * 3, window=Window(0, 1, fixed=True))
    volume = Volume(REFERENCES["image"][0])
    return network, Case.of(target, volume, eps, torch.Generator().manual_seed(0))


def random_answer(classes: int = 3) -> tuple[torch.Tensor, Reference]:
    generator = torch.Generator().manual_seed(0)
    logits, clean = (torch.randn(1, classes, 5, 6, 7, generator=generator) * 3 for _ in range(2))
    return logits, Reference(clean)


@pytest.mark.parametrize("classes", [2, 3])
def test_fgsm_as_torchattacks(classes):
    _, case = case_of(classes, EPS)
    ours = FGSM().perturb(case)[:, :, 0]
    np.testing.assert_allclose(ours, REFERENCES[f"fgsm_{classes}"], atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("theirs", ["bim", "pgd"])
def test_bim_walks_as_torchattacks(classes, theirs):
    target, case = case_of(classes, EPS)
    BIM(steps=STEPS, step_size=ALPHA / EPS).perturb(case)
    last = target.seen[-1]
    np.testing.assert_allclose(last, REFERENCES[f"{theirs}_{classes}"], atol=1e-6)


def test_dag_walks_as_adv_lib():
    gamma = 0.01
    target, case = case_of(2, eps=1.0)
    DAG(steps=200, step_size=gamma).perturb(case)
    wanted = torch.from_numpy(REFERENCES["dag_2"])
    nearest = min(float((seen - wanted).abs().max()) for seen in target.seen)
    assert np.abs(REFERENCES["dag_2"] - REFERENCES["image"]).max() > gamma  # theirs went somewhere
    assert nearest < 1e-5


@pytest.mark.parametrize("classes", [2, 3])
def test_asma_starts_in_the_direction_of_adv_lib(classes):
    target, case = case_of(classes, eps=1.0)
    ASMA(steps=1, goal="permuted").perturb(case)
    ours = (target.seen[-1] - torch.from_numpy(REFERENCES["image"])).flatten()
    theirs = torch.from_numpy(REFERENCES[f"asma_{classes}"] - REFERENCES["image"]).flatten()
    assert float(torch.cosine_similarity(ours, theirs, dim=0)) > 0.9999


@pytest.mark.parametrize("classes", [2, 3])
def test_segpgd_and_cospgd_weigh_voxels_as_their_authors(classes):
    target = FlatNetwork(classes)
    reference = Reference(target(torch.from_numpy(REFERENCES["image"])[:, :, None]))
    answer = target(torch.from_numpy(REFERENCES[f"other_{classes}"])[:, :, None])
    ours = SegPGD(steps=10).loss_at(3)(answer, reference)
    np.testing.assert_allclose(ours, REFERENCES[f"segpgd_{classes}"], rtol=1e-5)
    np.testing.assert_allclose(cosine_weighted(answer, reference), REFERENCES[f"cospgd_{classes}"], rtol=1e-5)


def test_jensen_shannon_as_scipy():
    logits, reference = random_answer()
    p = torch.softmax(logits, 1)[0].flatten(1).T.double().numpy()
    one_hot = np.eye(3)[reference.labels.flatten().numpy()]
    wanted = np.mean([jensenshannon(a, b) ** 2 for a, b in zip(p, one_hot, strict=True)])
    np.testing.assert_allclose(losses.jensen_shannon(logits, reference), wanted, rtol=1e-5)


def test_jensen_shannon_has_a_finite_gradient_where_the_reference_has_no_chance():
    logits = torch.tensor([200.0, 0.0]).reshape(1, 2, 1, 1, 1).requires_grad_()
    value = losses.jensen_shannon(logits, Reference(-logits.detach()))
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(gradient).all() and value.item() == pytest.approx(np.log(2))


def test_masked_losses_count_only_voxels_still_right():
    logits, reference = random_answer()
    right = (logits.argmax(1) == reference.labels).numpy()
    p = torch.softmax(logits, 1).gather(1, reference.labels[:, None])[:, 0].double().numpy()
    wanted = -np.where(right, np.log(p), 0).mean()
    np.testing.assert_allclose(losses.masked_cross_entropy(logits, reference), wanted, rtol=1e-5)
    direction = (logits / logits.norm(dim=1, keepdim=True)).gather(1, reference.labels[:, None])[:, 0].numpy()
    wanted = np.where(right, 1 - direction, 0).mean()
    np.testing.assert_allclose(losses.masked_spherical(logits, reference), wanted, rtol=1e-5)


def test_balanced_cross_entropy_is_the_mean_over_classes():
    logits, reference = random_answer()
    voxelwise = losses.voxelwise_cross_entropy(logits, reference) * losses.still_right(logits, reference)
    wanted = np.mean([float(voxelwise[reference.labels == label].mean()) for label in range(3)])
    np.testing.assert_allclose(losses.balanced_cross_entropy(logits, reference), wanted, rtol=1e-5)


def test_margin_is_negative_exactly_where_the_answer_is_right():
    logits, reference = random_answer()
    assert torch.equal(losses.margins(logits, reference.labels) < 0, logits.argmax(1) == reference.labels)


def test_soft_dice_does_not_depend_on_the_scale_of_the_logits():
    logits, reference = random_answer()
    values = [losses.soft_dice(k * logits, Reference(k * reference.logits)) for k in (1, 10, 1000)]
    np.testing.assert_allclose(values, values[0], rtol=1e-4)


def test_soft_dice_counts_the_structures_of_the_reference():
    clean = torch.zeros(1, 3, 2, 2, 2)
    clean[:, 1, 0], clean[:, 0, 1] = 1, 1  # class 2 is nowhere
    turned = clean.clone()
    turned[:, 2, 0], turned[:, 1, 0] = 100, 0
    assert float(losses.soft_dice(turned, Reference(clean))) > 0.9  # and would be about 1/2 with class 2


def test_block_spectrum_as_scipy_and_back():
    x = torch.rand(1, 1, 16, 8, 24, generator=torch.Generator().manual_seed(0))
    spectrum = blocks.to_spectrum(x)
    wanted = fft.dctn(x[0, 0, 8:16, :, 16:24].numpy(), norm="ortho")
    np.testing.assert_allclose(spectrum[1, 0, 2], wanted, atol=1e-5)
    np.testing.assert_allclose(blocks.from_spectrum(spectrum, x.shape), x, atol=1e-6)


def test_block_spectrum_of_sizes_that_do_not_fit():
    x = torch.rand(1, 1, 11, 8, 5, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(blocks.from_spectrum(blocks.to_spectrum(x), x.shape), x, atol=1e-6)


def test_ssim_as_the_formula_in_one_window():
    rng = np.random.default_rng(0)
    x = rng.random((7, 7, 7))
    y = np.clip(x + 0.1 * rng.standard_normal(x.shape), 0, 1)
    central = ssim_of_window(np.pad(x, 3, mode="symmetric")[3:10, 3:10, 3:10], y)
    tiled = [np.tile(a, (3, 3, 3)) for a in (x, y)]  # every 7-cube of a tiling holds the same voxels
    assert ssim(*tiled) == pytest.approx(central, abs=0.02)
    assert ssim(x, x) == pytest.approx(1)


def ssim_of_window(x: np.ndarray, y: np.ndarray) -> float:
    c1, c2 = 1e-4, 9e-4
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    brightness = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
    return float(brightness * (2 * covariance + c2) / (x.var() + y.var() + c2))
