"""A target that no choice of the shield was made with, as somebody else would bring it: a test of its own.

Another architecture (a residual encoder with additive skips and group norm, Myronenko 2018), another task
(ventricles, deep grey matter, hippocampus, cerebellum, the rest of the brain) and another grid (3 mm) than
the targets here have. It is trained on six heads of the development data, without a thought of attacks, and
meets the shield as a TorchScript file with its JSON, and with heads that it has not seen, in a field of view
of its own.

    python -m MedShieldLib.evaluation.fresh_target DATA --out FOLDER
    medshield benchmark --data FOLDER --targets FOLDER/fresh.json --trust --out TABLES
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from MedShieldLib.errors import InputError
from MedShieldLib.evaluation.baselines import write_text
from MedShieldLib.evaluation.fitting import fit
from MedShieldLib.evaluation.own_heads import LIST
from MedShieldLib.study import exit_code
from MedShieldLib.targets import window
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.volume import Volume

SPACING_MM = 3.0
# DLMUSE region codes (the MUSE list of regions); every other region is the rest of the brain.
STRUCTURES: dict[str, tuple[int, ...]] = {
    "Ventricles": (4, 11, 49, 50, 51, 52),
    "Deep grey matter": (23, 30, 36, 37, 55, 56, 57, 58, 59, 60),
    "Hippocampus": (47, 48),
    "Cerebellum": (38, 39, 40, 41, 71, 72, 73),
    "Rest of the brain": (),
}
_LEARNED = tuple(f"nichart_Subj{n}" for n in range(1, 7))
# For a hardened copy, which needs clean heads that the shield is not calibrated on.
HARDEN = "harden"
_HARDEN = (*(f"{name}_T1" for name in _LEARNED), "nichart_Subj12_T1", "nv_spm152", "nv_MR_Gd")
# Of the heads that it has not seen: for the shield's calibration, and to test on.
_CALIBRATE = (*(f"nichart_Subj{n}_T1" for n in range(7, 11)), "mricron_ch2")
_TEST = ("nichart_Subj11_T1", "nichart_IXI012-HH-1211_T1", "trio_b17_mprage")
_PATCH = (56, 64, 56)
# A slice of which less is bright lies above the head.
_TOP_SHARE = 0.02
# The first steps find the large structures; three cycles more, which weigh small ones more, the rest.
_STEPS, _CYCLE, _CYCLES, _SEED = 700, 300, 3, 17
_LEARNING_RATE, _WEIGHTED_LEARNING_RATE = 3e-3, 2e-3
_WEIGHTS = (0.5, 4.0, 4.0, 8.0, 1.0, 0.5)

Pair = tuple[torch.Tensor, torch.Tensor]


@exit_code
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with volumes/ and labels/, see docs/training.md")
    parser.add_argument(
        "--out", type=Path, required=True, help="for the model and heads.csv; a rerun goes on"
    )
    arguments = parser.parse_args()

    learned = [_pair(arguments.data, name) for name in _LEARNED]
    network = trained(learned, arguments.out / "fresh-training.pt")
    write(network, arguments.out)
    write_heads(arguments.data, arguments.out)
    for name in (*_LEARNED[:1], "nichart_Subj11", "nichart_Subj12"):
        image, labels = _pair(arguments.data, name)
        figures = ", ".join(
            f"{s} {d:.2f}" for s, d in zip(STRUCTURES, _dice(network, image, labels), strict=True)
        )
        print(f"{name}{' (trained on)' if name in _LEARNED else ''}: {figures}")


def trained(pairs: Sequence[Pair], checkpoint: Path) -> torch.nn.Module:
    """The network, fitted to (1, K, J, I) images and labels by the plainest recipe there is."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import SegResNet

    torch.manual_seed(_SEED)
    network = SegResNet(
        init_filters=8,
        in_channels=1,
        out_channels=1 + len(STRUCTURES),
        blocks_down=(1, 2, 2, 2),
        blocks_up=(1, 1, 1),
    )
    optimizer = torch.optim.AdamW(network.parameters(), _LEARNING_RATE)
    plain = DiceCELoss(softmax=True, to_onehot_y=True)
    weighted = DiceCELoss(softmax=True, to_onehot_y=True, weight=torch.tensor(_WEIGHTS))

    def step(n: int) -> None:
        if n < _STEPS:
            loss, rate, done = plain, _LEARNING_RATE, n / _STEPS
        else:
            loss, rate, done = weighted, _WEIGHTED_LEARNING_RATE, (n - _STEPS) % _CYCLE / _CYCLE
        optimizer.param_groups[0]["lr"] = rate * (1 - done) ** 0.9
        x, y = _patch(*pairs[n % len(pairs)], np.random.default_rng([_SEED, n]))
        value = loss(network(x[None]), y[None])
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    def say(fraction: float, step: str) -> None:
        print(f"\r{fraction:6.1%}  {step}", end="", flush=True)

    steps = _STEPS + _CYCLE * _CYCLES
    fit({"network": network, "optimizer": optimizer}, step, steps, checkpoint, say, lambda: False)
    print()
    return network.eval()


def write(network: torch.nn.Module, folder: Path) -> Path:
    """fresh.pt and the fresh.json that describes it; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    traced = torch.jit.trace(network, torch.zeros(1, 1, *_PATCH))
    temporary = folder / ".fresh.pt.part"
    torch.jit.save(traced, str(temporary))
    os.replace(temporary, folder / "fresh.pt")
    colours = np.linspace(0.2, 0.9, len(STRUCTURES)).round(2).tolist()
    description = {
        "model": "fresh.pt",
        "spacing_mm": [SPACING_MM] * 3,
        "patch_size": _PATCH,
        "structures": [
            {"value": n, "name": name, "color": [c, 0.6, 1 - c]}
            for n, (name, c) in enumerate(zip(STRUCTURES, colours, strict=True), 1)
        ],
    }
    path = folder / "fresh.json"
    write_text(path, json.dumps(description, indent=2) + "\n")
    return path


def write_heads(data: Path, folder: Path) -> None:
    """The heads of `data` that are there and that the network has not learned from, in one field of view.

    Each lies within one patch, so that an answer takes one pass. heads.csv lists them. Those that a hardened
    copy may learn from are in the folder `HARDEN`.

    Raises:
        InputError: if none is there to test on.
    """
    _write_seen(data, _HARDEN, folder / HARDEN)
    lines = [
        (name, f"{name}.nii.gz", role)
        for role, names in (("calibrate", _CALIBRATE), ("test", _TEST))
        for name in _write_seen(data, names, folder)
    ]
    if not any(role == "test" for _, _, role in lines):
        raise InputError(f"{data} holds none of the heads to test on; give the folder of development data.")
    with (folder / LIST).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("subject", "file", "role"), *lines])


def _write_seen(data: Path, names: Sequence[str], folder: Path) -> list[str]:
    """Those of the heads that are there, each in its field of view; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    there = [name for name in names if (data / "volumes" / f"{name}.nii.gz").exists()]
    for name in there:
        head = Volume.read(data / "volumes" / f"{name}.nii.gz").to_sitk()
        Volume.from_sitk(_field_of_view(head)).write(folder / f"{name}.nii.gz")
    return there


def _field_of_view(head: sitk.Image) -> sitk.Image:
    """What of a head fits into one patch: from its top downwards, and around its middle."""
    head = sitk.DICOMOrient(head, "LPS")
    voxels = sitk.GetArrayViewFromImage(head)
    sizes = [round(n * SPACING_MM / mm) for n, mm in zip(_PATCH, head.GetSpacing()[::-1], strict=True)]
    inside = voxels > voxels.mean()
    top = int(np.flatnonzero(inside.mean((1, 2)) > _TOP_SHARE).max()) + 1
    slab = inside[max(0, top - sizes[0]) : top]
    middles = [top - sizes[0] / 2, *(float(np.median(where)) for where in np.nonzero(slab)[1:])]
    starts = [
        int(np.clip(middle - size / 2, 0, max(0, n - size)))
        for middle, size, n in zip(middles, sizes, voxels.shape, strict=True)
    ]
    sizes = [min(size, n) for size, n in zip(sizes, voxels.shape, strict=True)]
    return sitk.RegionOfInterest(head, sizes[::-1], starts[::-1])


def _pair(data: Path, name: str) -> Pair:
    """Image in [0, 1] and int64 labels of one head on the network's grid, (1, K, J, I)."""
    volume = Volume.read(data / "volumes" / f"{name}_T1.nii.gz")
    regions = sitk.GetArrayFromImage(sitk.ReadImage(str(data / "labels" / f"{name}_DLMUSE.nii.gz")))
    labels = np.where(regions > 0, len(STRUCTURES), 0)
    for n, codes in enumerate(STRUCTURES.values(), 1):
        labels[np.isin(regions, codes)] = n
    grid = WorkingGrid.of(volume, "LPS", (SPACING_MM,) * 3)
    image = grid.to_grid(volume.voxels)
    shares = torch.stack([grid.to_grid((labels == n).astype(np.float32)) for n in range(1 + len(STRUCTURES))])
    return window.apply(image, window.Window().bounds(image))[None], shares.argmax(0)[None]


def _patch(image: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator) -> Pair:
    """A random patch, mirrored half of the time, with another gain, gamma, smooth bias and noise."""
    pads = [
        n for p, size in zip(_PATCH[::-1], image.shape[:0:-1], strict=True) for n in (0, max(0, p - size))
    ]
    image, labels = (torch.nn.functional.pad(t, pads) for t in (image, labels))
    corner = [int(rng.integers(0, size - p + 1)) for p, size in zip(_PATCH, image.shape[1:], strict=True)]
    box = (slice(None), *(slice(c, c + p) for c, p in zip(corner, _PATCH, strict=True)))
    x, y = image[box], labels[box]
    if rng.random() < 0.5:
        x, y = x.flip(3), y.flip(3)
    knots = torch.from_numpy(rng.normal(0, 0.12, (1, 1, 3, 3, 3)).astype(np.float32))
    bias = torch.nn.functional.interpolate(knots, _PATCH, mode="trilinear", align_corners=True)[0].exp()
    noise = torch.from_numpy(rng.normal(0, 0.03 * rng.random(), x.shape).astype(np.float32))
    return (x ** rng.uniform(0.7, 1.4) * bias * rng.uniform(0.8, 1.25) + noise).clamp(0, 1).float(), y


def _dice(network: torch.nn.Module, image: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Of every structure against the labels.

    By patches, as in training: group norm measures what it sees, and whole heads hold more air.
    """
    from monai.inferers import sliding_window_inference

    infer: Any = sliding_window_inference
    with torch.inference_mode():
        found = infer(image[None], _PATCH, 1, network, overlap=0.5, mode="gaussian").argmax(1)
    pairs = [(found == n, labels == n) for n in range(1, 1 + len(STRUCTURES))]
    return [float(2 * (a & b).sum() / max(1, int(a.sum() + b.sum()))) for a, b in pairs]


if __name__ == "__main__":
    sys.exit(main())
