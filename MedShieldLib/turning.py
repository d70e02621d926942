"""Turns of a volume about one of its own axes, resampled linearly in every plane across it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def turned(x: torch.Tensor, axis: int, angle: float, spacing: tuple[float, float, float]) -> torch.Tensor:
    """`x` turned about the middle of one of its axes; what comes in from outside repeats the edge.

    Differentiable. A turn about one axis leaves each plane across it to itself, so that it takes a sixth of
    the time of one about any line.

    Args:
        x: float32 (C, K, J, I).
        axis: 0 for K, 1 for J, 2 for I.
        angle: in radians, from the first of the two other axes towards the second.
        spacing: in mm, along K, J and I.

    Returns:
        Of the shape of `x`; not contiguous.
    """
    first, second = (a for a in range(3) if a != axis)
    planes = x.movedim(axis + 1, 1)
    height, width = ((x.shape[a + 1] - 1) * spacing[a] for a in (first, second))
    if not height or not width:  # a line has nowhere to turn
        return x
    cos, sin = math.cos(angle), math.sin(angle)
    # In the sampler's coordinates, where every plane reaches from -1 to 1 and width comes first.
    matrix = torch.tensor([[[cos, -sin * height / width, 0], [sin * width / height, cos, 0]]])
    where = F.affine_grid(matrix, [1, 1, *planes.shape[2:]], align_corners=True)
    where = where.expand(len(x), -1, -1, -1)
    sampled = F.grid_sample(planes, where, padding_mode="border", align_corners=True)
    return sampled.movedim(1, axis + 1)
