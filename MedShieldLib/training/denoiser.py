"""Training the learned reformer: clean patches, synthetic noise, one network; seeded, resumable, on the CPU.

Run as `python -m MedShieldLib.training.denoiser DATA --work WORK`. What the noise is made of is in
`noise.py`; how good the result is, `evaluation/denoising.py` measures.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from MedShieldLib import converter
from MedShieldLib.denoiser import WEIGHTS, Network, gates
from MedShieldLib.errors import InputError
from MedShieldLib.evaluation.fitting import Parts, fit
from MedShieldLib.observation import IsCancelled, Progress
from MedShieldLib.study import exit_code
from MedShieldLib.training import command, precision
from MedShieldLib.training.data import from_nibabel
from MedShieldLib.training.noise import Spectrum, enveloped, noise
from MedShieldLib.volume import Volume

# Volumes whose licence lets weights that were computed from them be shipped, less the heads that the
# benchmark attacks. Two with a skull at 1 mm (contrast agent, FLAIR) are benign shifts there.
HEADS = (*(f"nichart_Subj{n}_T1" for n in range(5, 13)), "nv_MR_Gd", "nv_FLAIR")

PATCH = 48
# Root mean square of the noise, as a share of the intensity range. An attack has 2 to 8, but the detail of a
# head at 1 to 2 mm has more: the level is how much may be taken for noise, and so how strong the filter is.
WEAKEST, STRONGEST = 1 / 255, 32 / 255
_AIR = 0.1
_LEAST_TISSUE = 0.15
_MOST_LESIONS = 3
_RISE = 0.03
_SPECTRA = tuple(Spectrum)


@dataclass(frozen=True)
class Head:
    """A clean volume, (1, 1, K, J, I), intensity range [0, 1]; how often it is shown; whether it is fine."""

    voxels: torch.Tensor
    weight: float
    fine: bool


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, apart from the data.

    Attributes:
        steps: updates of the weights.
        batch: patches an update.
        learning_rate: at its peak; it rises at first and then falls along a cosine.
        averaging: decay of the running average of the weights, which is what ships.
        seed: of everything.
    """

    steps: int = 6000
    batch: int = 4
    learning_rate: float = 2e-3
    averaging: float = 0.998
    seed: int = 11


def load_heads(folder: Path) -> list[Head]:
    """The training heads in `folder`, and MNI152 at 1 mm, which is the only one without a skull.

    Raises:
        InputError: if the folder has none of them.
    """
    from nilearn.datasets import load_mni152_template

    paths = [folder / "volumes" / f"{name}.nii.gz" for name in HEADS]
    volumes = [Volume.read(path) for path in paths if path.exists()]
    if not volumes:
        raise InputError(f"{folder} has none of the training heads, such as volumes/{HEADS[0]}.nii.gz.")
    return [head_of(volume) for volume in (*volumes, from_nibabel(load_mni152_template(resolution=1)))]


def head_of(volume: Volume) -> Head:
    """A volume to train on. Fine ones are rare and hold more patches, so they are shown more often."""
    low, high = converter.intensity_range(volume.voxels)
    unit = (volume.voxels.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    fine = max(volume.spacing) < 1.5
    return Head(torch.from_numpy(unit)[None, None], 2.5 if fine else 1.0, fine)


def train(
    heads: Sequence[Head],
    work: Path,
    recipe: Recipe,
    progress: Progress = lambda fraction, step: None,
    cancelled: IsCancelled = lambda: False,
) -> Network:
    """Fit a network, with a checkpoint in `work`; picks up where it stopped.

    Raises:
        Cancelled: when `cancelled()` says so; the last checkpoint stays.
    """
    torch.manual_seed(recipe.seed)
    network = Network()
    averaged = torch.optim.swa_utils.AveragedModel(network, avg_fn=_running_average(recipe.averaging))
    optimizer = torch.optim.Adam(network.parameters())
    recent: list[float] = []

    def step(n: int) -> None:
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * _share_of_rate(n / recipe.steps)
        batch = [sample(heads, recipe.seed * 1_000_003 + n * recipe.batch + m) for m in range(recipe.batch)]
        clean, added, level, open_gates = (torch.cat(column) for column in zip(*batch, strict=True))
        with precision.mixed():
            found = network(clean + added, level, open_gates).float()
        # In units of the level, so that weak noise counts as much as strong.
        loss = ((found - added) / level.reshape(-1, 1, 1, 1, 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        averaged.update_parameters(network)
        recent[:] = [*recent[-199:], loss.item()]

    parts: Parts = {"network": network, "averaged": averaged, "optimizer": optimizer}
    fit(
        parts,
        step,
        recipe.steps,
        work / "denoiser.pt",
        lambda fraction, _: progress(fraction, f"loss {np.mean(recent):.4f}"),
        cancelled,
    )
    shipped = Network()
    shipped.load_state_dict(averaged.module.state_dict())
    return shipped.eval()


def sample(heads: Sequence[Head], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A clean patch, the noise to add (both (1, 1, K, J, I)), its level (1,), and gates (1, channels)."""
    rng = np.random.default_rng(seed)
    weights = np.array([head.weight for head in heads])
    clean = _patch(heads[rng.choice(len(heads), p=weights / weights.sum())], rng)
    level = rng.uniform(WEAKEST, STRONGEST)
    spectrum = _SPECTRA[rng.integers(len(_SPECTRA))]
    added = enveloped(noise(spectrum, clean.shape, rng), clean, rng) * np.float32(level)
    return (
        torch.from_numpy(clean)[None, None],
        torch.from_numpy(added)[None, None],
        torch.tensor([level], dtype=torch.float32),
        gates(Network.DEEP, rng),
    )


def _patch(head: Head, rng: np.random.Generator) -> np.ndarray:
    """float32 (48, 48, 48): somewhere in a head, as it is or coarser, turned, at another brightness."""
    scale = rng.choice([1, 1.5, 2], p=[0.6, 0.2, 0.2] if head.fine else [0.8, 0.15, 0.05])
    scales = np.full(3, scale)
    if rng.random() < 0.15:
        scales[rng.integers(3)] *= 2  # slices thicker than pixels
    crop = _with_tissue(head.voxels, [round(PATCH * s) for s in scales], rng)
    x = F.interpolate(crop, (PATCH,) * 3, mode="area")[0, 0].numpy()
    flips = tuple(np.flatnonzero(rng.random(3) < 0.5).tolist())
    x = np.ascontiguousarray(np.flip(x.transpose(rng.permutation(3)), flips))
    power, gain = np.exp(rng.uniform(-0.3, 0.3)), rng.uniform(0.75, 1.15)
    x = np.sign(x) * np.abs(x) ** np.float32(power) * np.float32(gain)
    for _ in range(rng.integers(_MOST_LESIONS + 1)):
        _add_lesion(x, rng)
    return x


def _with_tissue(x: torch.Tensor, size: Sequence[int], rng: np.random.Generator) -> torch.Tensor:
    """A crop of (1, 1, K, J, I) that is not mostly air, if a few tries find one."""
    pads = [max(0, wanted - n) for wanted, n in zip(size, x.shape[2:], strict=True)]
    if any(pads):
        x = F.pad(x, [n for pad in reversed(pads) for n in (0, pad)], mode="replicate")
    for _ in range(6):
        first = [int(rng.integers(n - wanted + 1)) for wanted, n in zip(size, x.shape[2:], strict=True)]
        k, j, i = (slice(f, f + wanted) for f, wanted in zip(first, size, strict=True))
        crop = x[:, :, k, j, i]
        if (crop > _AIR).float().mean() > _LEAST_TISSUE:
            break
    return crop


def _add_lesion(x: np.ndarray, rng: np.random.Generator) -> None:
    """A bright or dark ellipsoid of 2 to 10 voxels, soft at its border: anatomy that is to stay. In place."""
    size, contrast = rng.uniform(1, 5), rng.choice((-1, 1)) * rng.uniform(0.05, 0.35)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    centre = rng.integers(0, PATCH, 3)
    reach = math.ceil(1.5 * size) + 1
    box = tuple(slice(max(0, c - reach), c + reach + 1) for c in centre)
    along = (np.arange(PATCH)[sides] - c for sides, c in zip(box, centre, strict=True))
    away = np.stack(np.meshgrid(*along, indexing="ij"))
    radii = size * rng.uniform(0.7, 1.3, 3)
    depth = size * (1 - np.linalg.norm(np.tensordot(turn / radii[:, None], away, 1), axis=0))
    inside = np.clip(depth / rng.uniform(0.5, 1.5) + 0.5, 0, 1)
    x[box] += inside.astype(np.float32) * np.float32(contrast) * (x[box] > _AIR)


def _running_average(decay: float) -> Callable:
    """Exponential, but over a tenth of the steps so far at first: how the weights began is soon forgotten."""

    def average(old: torch.Tensor, new: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        return old.lerp(new, 1 - min(decay, int(count) / (int(count) + 10)))

    return average


def _share_of_rate(done: float) -> float:
    return min(done / _RISE, 0.5 + 0.5 * math.cos(math.pi * max(0.0, done - _RISE) / (1 - _RISE)))


@exit_code
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with volumes/")
    parser.add_argument("--work", type=Path, required=True, help="keeps the checkpoint")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    arguments = parser.parse_args()

    def say(fraction: float, step: str) -> None:
        if round(fraction * arguments.steps) % 100 == 0:
            print(f"{fraction:6.1%}  {step}", flush=True)

    network = train(load_heads(arguments.data), arguments.work, Recipe(steps=arguments.steps), say)
    command.save(network, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
