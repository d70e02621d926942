"""A sample that is changed against the network in training, so that it keeps its answer (Madry et al. 2018).

The change is a gradient step or some from a random start (one: Wong et al. 2020). It is made against the
network in training, never against a target that is protected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

# The largest change, in units of the window; a sample's own bound is drawn below it.
EPS = 10 / 255
# Of the samples, so that clean heads stay the rule that they are.
_UNCHANGED_SHARE = 0.2
# Of n steps each is this / (n + 1), in bounds: a single one reaches the border from most starts.
_WAY = 2.5

Loss = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Change:
    """What decides how one sample is changed.

    Attributes:
        start: uniform in [-1, 1], of the shape of the image.
        eps: bound of the change; 0 leaves the image as it is.
    """

    start: torch.Tensor
    eps: float


def draw(shape: Sequence[int], seed: int) -> Change:
    """A function of its arguments alone."""
    rng = np.random.default_rng([seed, 2])
    start = torch.from_numpy(rng.uniform(-1, 1, tuple(shape)).astype(np.float32))
    changed = rng.random() >= _UNCHANGED_SHARE
    # The root makes large bounds more frequent, which are harder to bear.
    return Change(start, EPS * float(np.sqrt(rng.random())) if changed else 0.0)


def changed(x: torch.Tensor, change: Change, loss: Loss, steps: int = 1) -> torch.Tensor:
    """`x` (1, 1, K, J, I) in [0, 1], changed within its bound so that `loss` of it rises."""
    if not change.eps:
        return x
    lowest, highest = (x - change.eps).clamp(min=0), (x + change.eps).clamp(max=1)
    seen = (x + change.eps * change.start).clamp(0, 1)
    for _ in range(steps):
        seen = seen.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(seen), seen)
        stepped = seen.detach() + _WAY / (steps + 1) * change.eps * gradient.sign()
        seen = stepped.clamp(lowest, highest)
    return seen
