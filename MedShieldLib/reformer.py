"""The reformer: which versions suit a target, and what they say together.

The family is chosen on clean volumes alone: of each kind, the strongest version that the target still
tolerates. An attack is never looked at, so none can be fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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

# Raise it when `choose` may choose another family: what was chosen before is not taken for it.
REVISION = 2
# Of each kind, from strong to weak.
_LADDERS: tuple[tuple[Filter, ...], ...] = (
    tuple(LowPass(c) for c in (0.35, 0.45, 0.55, 0.65, 0.75)),
    tuple(WaveletShrinkage(s) for s in (0.15, 0.11, 0.08, 0.055, 0.035)),
    tuple(Diffusion(e) for e in (0.16, 0.12, 0.09, 0.07, 0.05)),
    (Median(2), Median(1)),
)
# Evens out differences of an attack's size, and hardly any edge of the anatomy.
_PROBE = Probe(Diffusion(0.025))
_VOTERS = 5
_IN_PLACE = 3
# A second filter of a kind repairs a little more, a third one hardly anything.
_OF_A_KIND = 2
_REACH = 3
_MOVED, _MIRRORED = Moved(_REACH, False), Moved(_REACH, True)
# A target that a mirror upsets by so many times as much as a shift alone takes left and right for different.
_ONE_SIDED = 1.5
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
    volume moved, and mirrored, unless that tells nothing or costs too much; then what repairs without being
    one of these, until five vote; and a probe.

    Args:
        target: the target that answers.
        volumes: a few clean volumes; each costs up to about twenty-five inferences.
        tolerance: mean clean disagreement that a version may cause.
        seed: of the draws.
        progress: called as progress(fraction, step).
        cancelled: asked before every version.

    Raises:
        Cancelled: when `cancelled()` says so.
    """
    trial = _Trial(target, volumes, seed, cancelled)
    tolerated: list[Filter] = []
    for n, ladder in enumerate(_LADDERS):
        progress(n / (len(_LADDERS) + 1), f"Choosing the reformer: {ladder[0].kind.replace('_', ' ')}")
        tolerated += next(([version] for version in ladder if trial.harm(version) <= tolerance), [])
    progress(1 - 1 / (len(_LADDERS) + 1), "Choosing the reformer: moved")
    # A target that tolerates nothing still needs a filter in place: the weakest there is.
    in_place = sorted(tolerated, key=trial.harm)[:_IN_PLACE] or [_LADDERS[2][-1]]
    places = _places(trial, tolerance)
    voters = [*in_place, *places, *_spares(trial, in_place, places, tolerance)]
    return (*voters[:_VOTERS], _PROBE)


def _places(trial: _Trial, tolerance: float) -> list[Moved]:
    """The volume moved, and mirrored, as far as the target's answers to them can repair anything.

    A network without strides sees every place alike: its answer moves along, and so does an attack's.
    """
    if trial.harm(_MOVED) <= trial.harm(_PROBE):
        return []
    bearable = max(tolerance, _ONE_SIDED * trial.harm(_MOVED))
    return [_MOVED, _MIRRORED] if trial.harm(_MIRRORED) <= bearable else [_MOVED]


def _spares(trial: _Trial, in_place: list[Filter], places: list[Moved], tolerance: float) -> list[Version]:
    """More voters, the best first: filters on moved volumes, then those next to what the target tolerates."""
    wanted = _VOTERS - len(in_place) - len(places)
    spares: list[Version] = [replace(place, inner=inner) for place in places for inner in in_place]
    spares = sorted(spares, key=trial.harm) if wanted else []
    if len(spares) < wanted:
        kinds = [version.kind for version in in_place]
        rungs = [version for ladder in _LADDERS for version in ladder if version not in in_place]
        for version in sorted(rungs, key=lambda version: abs(trial.harm(version) - tolerance)):
            if kinds.count(version.kind) < _OF_A_KIND:
                kinds.append(version.kind)
                spares.append(version)
    return spares


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


class _Trial:
    """What versions do to clean answers; each is tried once."""

    def __init__(self, target: Target, volumes: Sequence[Volume], seed: int, cancelled: IsCancelled) -> None:
        self._target, self._volumes, self._seed, self._cancelled = target, volumes, seed, cancelled
        self._answers = [target.probabilities(volume) for volume in volumes]
        self._harms: dict[Version, float] = {}

    def harm(self, version: Version) -> float:
        """Mean disagreement between the answers to the volumes themselves and to the version."""
        if version not in self._harms:
            if self._cancelled():
                raise Cancelled
            losses = [self._loss(version, n) for n in range(len(self._volumes))]
            self._harms[version] = float(np.mean(losses))
        return self._harms[version]

    def _loss(self, version: Version, n: int) -> float:
        volume, answer = self._volumes[n], self._answers[n]
        source = Source(volume, self._target.grid(volume), self._target.finest_mm)
        draw = version.draw(source, np.random.default_rng(self._seed + n))
        other = self._target.probabilities(draw.volume)
        if draw.restore is None:
            return detector.disagreement(answer, other).mean()
        within = _inside(answer)
        return detector.disagreement(answer[within], draw.restore(other)[within]).mean()


def _inside(answer: np.ndarray) -> tuple[slice, ...]:
    """An answer (C, K', J', I') without its rim: what a move pushed out there is not the target's doing."""
    rim, thin = slice(_REACH, -_REACH), slice(None)
    return (thin, *(rim if size > 2 * _REACH else thin for size in answer.shape[1:]))
