"""The reformer: what the answers to a family of versions say together about a volume."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from MedShieldLib import slabs
from MedShieldLib.families import choose as choose  # callers were told to find it here
from MedShieldLib.masks import bounding_box

# The vote replaces an answer that is so many times as far from it as the versions' answers are, in a
# neighbourhood of so many cells; they count as apart by so much in probability wherever they agree.
FAR, NEIGHBOURHOOD, LEAST_SCATTER = 1.5, 7, 0.005
# An answer as close to the vote as this is the same: how far others around it are apart makes no difference.
_SAME = 0.001


def repaired(
    vote: np.ndarray, answer: np.ndarray, standing_alone: np.ndarray, share: float = 0.0
) -> np.ndarray:
    """The answer, moved towards the vote where it stands alone, and beyond it by `share`.

    What versions leave of an attack still points to the answer that it was made for, so the truth lies
    beyond the vote on a line from there (Richardson 1911 goes on like this from two step sizes to none).

    Args:
        vote: float32 (C, K', J', I') in [0, 1]; changed in place, as it may be large.
        answer: of the same shape.
        standing_alone: (K', J', I') in [0, 1], see there.
        share: in [0, 1]; see `detector.unexplained`.

    Returns:
        `vote`, in [0, 1].
    """

    def move(rows: slice) -> None:
        step = vote[:, rows] - answer[:, rows]
        step *= np.float32(1 + share) * standing_alone[rows]
        step += answer[:, rows]
        np.clip(step, 0, 1, out=vote[:, rows])

    slabs.each(vote, move, axis=1)
    return vote


def standing_alone(
    vote: np.ndarray, answer: np.ndarray, scatter: np.ndarray, share: float = 0.0
) -> np.ndarray:
    """(K', J', I') float32 in [0, 1]: where an answer is further from the vote than the versions' answers.

    Filters move every border a little, and the answers to all versions alike scatter about it; there the
    answer to the volume itself is the better one. An attack leaves that answer alone outside. Distances are
    root mean squares over a neighbourhood: 0 up to the versions' own, 1 from `FAR` times that on. The surer
    an attack, the less far it takes: `share` is taken off either bound. Only the box around all cells whose
    answer is not the same as the vote is looked at: 0 elsewhere.

    Args:
        vote: (C, K', J', I'), the mean of the versions' answers.
        answer: of the same shape.
        scatter: (K', J', I') mean squared distance of those answers from the vote.
        share: in [0, 1]; see `detector.unexplained`.
    """
    apart = np.empty_like(scatter)

    def measure(rows: slice) -> None:
        distance = answer[:, rows] - vote[:, rows]
        np.einsum("ckji,ckji->kji", distance, distance, out=apart[rows])

    slabs.each(answer, measure, axis=1)
    differs = apart > _SAME**2
    if not differs.any():
        return np.zeros_like(apart)
    box = bounding_box(differs)
    around = tuple(
        slice(max(0, side.start - NEIGHBOURHOOD // 2), side.stop + NEIGHBOURHOOD // 2) for side in box
    )
    own, usual = _nearby(apart[around].copy()), _nearby(scatter[around].copy())

    def weigh(rows: slice) -> None:
        # The filter's rounding may leave a little less than nothing.
        ratio = np.sqrt(np.maximum(own[rows], 0) / (usual[rows] + np.float32(LEAST_SCATTER**2)))
        np.clip((ratio - np.float32(1 - share)) / np.float32(FAR - 1), 0, 1, out=own[rows])

    slabs.each(own, weigh)
    inner = tuple(slice(b.start - a.start, b.stop - a.start) for a, b in zip(around, box, strict=True))
    apart.fill(0)
    apart[box] = own[inner]
    return apart


def _nearby(x: np.ndarray) -> np.ndarray:
    """The mean over a cube of `NEIGHBOURHOOD` cells around each, in place; the rim repeats beyond itself."""
    for axis in range(3):
        across = 1 if axis == 0 else 0

        def smooth(rows: slice, axis: int = axis, across: int = across) -> None:
            part = x[(slice(None),) * across + (rows,)]
            ndimage.uniform_filter1d(part, NEIGHBOURHOOD, axis, part, "nearest")

        slabs.each(x, smooth, axis=across)
    return x
