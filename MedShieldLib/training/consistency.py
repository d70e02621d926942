"""Two views of one head that deserve one answer, and how far a network is from giving it.

A network that answers alike wherever a head lies, and whether it was smoothed or not, leaves the shield less
to put down to chance: an attack stands out sooner, and the vote of the versions is worth more. The views are
what the shield's versions are made of (`versions.py`); no attack is among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from MedShieldLib import converter, smoothing
from MedShieldLib.training import augment
from MedShieldLib.training.data import Subject

# The second view begins up to so many cells away from the first one along every axis.
_REACH = 3
_MARGIN = 4
# Next to the border of a view, the network sees less than it needs.
_BORDER = 2
_SMOOTHED_SHARE = 0.6
_DIFFUSED_SHARE = 0.5
_EDGES = (0.025, 0.12)
_PASSES = 5
# Cells added to a structure's size: one that is hardly there counts little.
_FEW_CELLS = 50.0


@dataclass(frozen=True)
class Views:
    """Two views of one patch.

    Attributes:
        images: (2, 1, K, J, I) in [0, 1].
        labels: (2, 1, K, J, I) int64.
        shift: cells along (k, j, i) by which the second view begins later, each in [-3, 3].
        mirrored: whether the second one is mirrored left-right.
    """

    images: torch.Tensor
    labels: torch.Tensor
    shift: tuple[int, int, int]
    mirrored: bool


def views(subject: Subject, seed: int) -> Views:
    """Two views of one augmented patch: the second one moved, perhaps mirrored, perhaps smoothed."""
    image, labels = augment.sample(subject, seed)
    rng = np.random.default_rng([seed, 1])
    k, j, i = rng.integers(-_REACH, _REACH + 1, 3).tolist()
    other = _smoothed(image, rng) if rng.random() < _SMOOTHED_SHARE else image
    first, second = _window(image.shape, (0, 0, 0)), _window(image.shape, (k, j, i))
    pair = torch.stack([image[first], other[second]]), torch.stack([labels[first], labels[second]])
    mirrored = bool(rng.random() < 0.5)
    if mirrored:
        for x in pair:
            x[1] = x[1].flip(3)
    return Views(*pair, (k, j, i), mirrored)


def disagreement(probabilities: torch.Tensor, pair: Views) -> torch.Tensor:
    """What the shield's `detector.disagreement` measures, averaged over structures, where both views look.

    Args:
        probabilities: (2, C, K, J, I) for the two views.
        pair: the views.

    Returns:
        A scalar in [0, 1] that gradients flow through.
    """
    first, second = probabilities
    if pair.mirrored:
        second = second.flip(3)
    ours, theirs = [slice(None)], [slice(None)]
    for shift, size in zip(pair.shift, first.shape[1:], strict=True):
        begin, end = max(0, shift) + _BORDER, size + min(0, shift) - _BORDER
        ours.append(slice(begin, end))
        theirs.append(slice(begin - shift, end - shift))
    return apart(first[tuple(ours)], second[tuple(theirs)])


def apart(answer: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The shield's disagreement of two answers (C, K, J, I), averaged over structures: a scalar in [0, 1]."""
    p, q = answer.flatten(1), other.flatten(1)
    return ((p - q).abs().sum(1) / ((p + q).sum(1) + _FEW_CELLS))[1:].mean()


def _window(shape: torch.Size, shift: tuple[int, int, int]) -> tuple[slice, ...]:
    """Of a patch (1, K, J, I), all but a margin; moved by `shift`."""
    sides = (slice(_MARGIN + n, size - _MARGIN + n) for n, size in zip(shift, shape[1:], strict=True))
    return (slice(None), *sides)


def _smoothed(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Diffused at a random strength, or passed through another filter of the converter."""
    if rng.random() > _DIFFUSED_SHARE:
        return augment.filtered(image, rng)
    low, high = converter.intensity_range(image[0].numpy())
    diffused = smoothing.diffusion(image[0].numpy(), rng.uniform(*_EDGES) * (high - low), _PASSES)
    return torch.from_numpy(diffused)[None]
