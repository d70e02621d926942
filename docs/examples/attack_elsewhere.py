"""An attack that knows nothing of MedShield, and how its volumes come into the benchmark.

PGD with momentum on Carlini and Wagner's margin, by PyTorch and SimpleITK alone, on the model and the heads
of `MedShieldLib.evaluation.fresh_target`. The attacked volumes are written beside the heads and added to
heads.csv:

    python docs/examples/attack_elsewhere.py FOLDER
    medshield benchmark --data FOLDER --targets FOLDER/fresh.json --trust --attacks "" --out TABLES
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

NAME = "margin-elsewhere"
HEADS = ("nichart_IXI012-HH-1211_T1", "trio_b17_mprage")
BOUNDS = (4, 8)  # in 255ths of the model's intensity window
PATCH = (56, 64, 56)
STEPS = 30


def main(folder: Path) -> None:
    """Attack the heads and list what came of them."""
    torch.manual_seed(0)
    network = torch.jit.load(str(folder / "fresh.pt")).eval()
    lines = []
    for name in HEADS:
        image = sitk.ReadImage(str(folder / f"{name}.nii.gz"))
        for eps in BOUNDS:
            voxels = torch.from_numpy(sitk.GetArrayFromImage(image).astype(np.float32))
            attacked = sitk.GetImageFromArray(attack(network, voxels, eps / 255).numpy())
            attacked.CopyInformation(image)
            path = folder / f"{name}_margin{eps}.nii.gz"
            sitk.WriteImage(attacked, str(path))
            lines.append({"subject": name, "file": path.name, "role": "test", "attack": NAME, "eps": eps})
    add_to(folder / "heads.csv", lines)


def attack(network: torch.nn.Module, voxels: torch.Tensor, eps: float) -> torch.Tensor:
    """The voxels (K, J, I), none moved by more than `eps` of the model's window."""
    low, high = np.percentile(small(voxels).numpy(), [0.5, 99.5])
    bound = eps * (high - low)

    def logits(x: torch.Tensor) -> torch.Tensor:
        return network(((small(x) - low) / (high - low)).clamp(0, 1))

    with torch.no_grad():
        answer = logits(voxels).argmax(1, keepdim=True)
    change, momentum = bound * (2 * torch.rand_like(voxels) - 1), torch.zeros_like(voxels)
    for _ in range(STEPS):
        change.requires_grad_()
        z = logits(voxels + change)
        right, best = z.gather(1, answer), z.scatter(1, answer, -1e9).amax(1, keepdim=True)
        (gradient,) = torch.autograd.grad((right - best).clamp(min=-2).mean(), change)
        momentum = 0.9 * momentum + gradient / gradient.abs().mean()
        change = (change.detach() - bound / 8 * momentum.sign()).clamp(-bound, bound)
    return voxels + change.detach()


def small(x: torch.Tensor) -> torch.Tensor:
    """(1, 1, ...) on the model's grid."""
    return torch.nn.functional.interpolate(x[None, None], size=PATCH, mode="trilinear", align_corners=False)


def add_to(path: Path, lines: list[dict]) -> None:
    """Add lines to a heads.csv; those of an earlier run are replaced."""
    with path.open(newline="") as file:
        kept = [line for line in csv.DictReader(file) if line.get("attack") != NAME]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("subject", "file", "role", "attack", "eps"), restval="")
        writer.writeheader()
        writer.writerows(kept + lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
