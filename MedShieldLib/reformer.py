"""The reformer: which versions suit a target, and what they say together.

The family is chosen on clean volumes alone: of each kind, the strongest version that the target still
tolerates. An attack is never looked at, so none can be fitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MedShieldLib import detector, slabs
from MedShieldLib.errors import Cancelled
from MedShieldLib.observation import IsCancelled, Progress
from MedShieldLib.targets.base import Target
from MedShieldLib.versions import (
    Diffusion,
    Filter,
    LowPass,
    Median,
    Moved,
    Probe,
    Source,
    Version,
    WaveletShrinkage,
)
from MedShieldLib.volume import Volume

# Of each kind, from strong to weak.
_LADDERS: tuple[tuple[Filter, ...], ...] = (
    tuple(LowPass(c) for c in (0.35, 0.45, 0.55, 0.65, 0.75)),
    tuple(WaveletShrinkage(s) for s in (0.15, 0.11, 0.08, 0.055, 0.035)),
    tuple(Diffusion(e) for e in (0.16, 0.12, 0.09, 0.07, 0.05)),
    (Median(2), Median(1)),
)
# Evens out differences of an attack's size, and hardly any edge of the anatomy.
_PROBE = Probe(Diffusion(0.025))
_IN_PLACE = 3
_REACH = 3
# Mean clean disagreement that a version may cause.
TOLERANCE = 0.03


def choose(
    target: Target,
    volumes: Sequence[Volume],
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    progress: Progress = lambda fraction, step: None,
    cancelled: IsCancelled = lambda: False,
) -> tuple[Version, ...]:
    """The family for a target: six versions, and so six inferences beside the target's own.

    Of each kind of filter the strongest that the target tolerates, of these the mildest three; then the
    volume moved, and mirrored; and a probe. Kinds that are never tolerated are left out, and filtered ones
    that are moved as well take their place.

    Args:
        target: the target that answers.
        volumes: a few clean volumes; each costs up to about fifteen inferences.
        tolerance: mean clean disagreement that a version may cause.
        seed: of the draws.
        progress: called as progress(fraction, step).
        cancelled: asked before every version.

    Raises:
        Cancelled: when `cancelled()` says so.
    """
    answers = [target.probabilities(v) for v in volumes]
    tolerated: list[tuple[float, Filter]] = []
    for n, ladder in enumerate(_LADDERS):
        progress(n / len(_LADDERS), f"Choosing the reformer: {ladder[0].kind.replace('_', ' ')}")
        for version in ladder:
            if cancelled():
                raise Cancelled
            loss = _clean_disagreement(target, volumes, answers, version, seed)
            if loss <= tolerance:
                tolerated.append((loss, version))
                break
    filters = [version for _, version in sorted(tolerated, key=lambda pair: pair[0])]
    # A target that tolerates nothing still needs a filter in place: the weakest there is.
    in_place = filters[:_IN_PLACE] or [_LADDERS[2][-1]]
    moved = (Moved(_REACH, False), Moved(_REACH, True))
    spare = (Moved(_REACH, False, in_place[0]), Moved(_REACH, True, in_place[-1]))
    return (*in_place, *moved, *spare[: _IN_PLACE - len(in_place)], _PROBE)


def continued(vote: np.ndarray, answer: np.ndarray, share: float) -> np.ndarray:
    """The vote, moved on by `share` of its way from the answer to the volume itself.

    What versions leave of an attack still points to the answer that it was made for, so the truth lies
    beyond the vote on a line from there (Richardson 1911 goes on like this from two step sizes to none).

    Args:
        vote: float32 (C, K', J', I') in [0, 1]; changed in place, as it may be large.
        answer: of the same shape.
        share: in [0, 1]; see `detector.unexplained`.

    Returns:
        `vote`, in [0, 1].
    """

    def move(rows: slice) -> None:
        step = vote[:, rows] - answer[:, rows]
        step *= np.float32(share)
        step += vote[:, rows]
        np.clip(step, 0, 1, out=vote[:, rows])

    if share:
        slabs.each(vote, move, axis=1)
    return vote


def _clean_disagreement(
    target: Target, volumes: Sequence[Volume], answers: Sequence[np.ndarray], version: Version, seed: int
) -> float:
    losses = []
    for n, (volume, answer) in enumerate(zip(volumes, answers, strict=True)):
        source = Source(volume, target.grid(volume), target.finest_mm)
        draw = version.draw(source, np.random.default_rng(seed + n))
        other = target.probabilities(draw.volume)
        losses.append(detector.disagreement(answer, draw.restore(other) if draw.restore else other).mean())
    return float(np.mean(losses))
