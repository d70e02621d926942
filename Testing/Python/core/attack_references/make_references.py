"""Runs other people's attacks on a small 2D network and keeps their answers; see README.md."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import torch

EPS, STEPS, ALPHA = 0.03, 5, 0.01


def network(classes: int, image: torch.Tensor) -> torch.nn.Module:
    """A small random network that finds all classes in the image."""
    torch.manual_seed(classes)
    layers = torch.nn.Conv2d(1, 6, 3, padding=1), torch.nn.ELU(), torch.nn.Conv2d(6, classes, 3, padding=1)
    model = torch.nn.Sequential(*layers).requires_grad_(False)
    model[2].bias -= model(image).mean(dim=(0, 2, 3))
    return model


def main() -> None:
    # adv-lib imports its plotting and its model downloads at once; neither is used here.
    for name in ("visdom", "robustbench", "requests", "tqdm"):
        sys.modules.setdefault(name, types.ModuleType(name))
    from cospgd.attack_implementations import Attack

    dag = _load("adv_lib.attacks.segmentation.dense_adversary").dag
    asma = _load("adv_lib.attacks.segmentation.asma").asma
    fgsm = _load("torchattacks.attacks.fgsm").FGSM
    bim = _load("torchattacks.attacks.bim").BIM
    pgd = _load("torchattacks.attacks.pgd").PGD

    image = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(1)) * 0.4 + 0.3
    kept: dict[str, np.ndarray] = {"image": image.numpy()}
    for classes in (2, 3):
        model = network(classes, image)
        logits = model(image)
        labels = logits.argmax(1)
        for number, layer in ((0, model[0]), (2, model[2])):
            kept[f"weight{number}_{classes}"] = layer.weight.numpy()
            kept[f"bias{number}_{classes}"] = layer.bias.numpy()
        kept[f"fgsm_{classes}"] = fgsm(model, eps=EPS)(image, labels).numpy()
        kept[f"bim_{classes}"] = bim(model, eps=EPS, alpha=ALPHA, steps=STEPS)(image, labels).numpy()
        exact = pgd(model, eps=EPS, alpha=ALPHA, steps=STEPS, random_start=False)
        kept[f"pgd_{classes}"] = exact(image, labels).numpy()
        kept[f"dag_{classes}"] = dag(model, image, labels, max_iter=200, γ=0.01, adv_threshold=0.5).numpy()
        goal = (labels + 1) % classes
        kept[f"asma_{classes}"] = asma(model, image, goal, targeted=True, num_steps=2, τ=1e-3).numpy()

        other = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(2))
        answer = model(other)
        loss = torch.nn.functional.cross_entropy(answer, labels, reduction="none")
        kept[f"other_{classes}"] = other.numpy()
        kept[f"segpgd_{classes}"] = Attack.segpgd_scale(answer, labels, loss, 3, 10).numpy()
        kept[f"cospgd_{classes}"] = Attack.cospgd_scale(answer, labels, loss, classes).mean().numpy()
    np.savez(Path(__file__).with_name("references.npz"), **kept)


def _load(name: str) -> types.ModuleType:
    """A module of a package without running the package's own __init__, which imports everything."""
    import importlib
    import importlib.util

    for depth in range(1, name.count(".") + 1):
        package = ".".join(name.split(".")[:depth])
        if package not in sys.modules:
            module = types.ModuleType(package)
            module.__path__ = list(importlib.util.find_spec(package).submodule_search_locations)
            sys.modules[package] = module
    return importlib.import_module(name)


if __name__ == "__main__":
    main()
