"""The family: which versions of a volume suit a target.

It is chosen on clean volumes alone: of each kind, the strongest version that the target still
tolerates. An attack is never looked at, so none can be fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MedShieldLib import detector
from MedShieldLib.clean_rows import Row, Rows
from MedShieldLib.errors import Cancelled
from MedShieldLib.observation import IsCancelled, Progress
from MedShieldLib.symmetry import Symmetry
from MedShieldLib.targets.base import Target
from MedShieldLib.versions import (
    Denoiser,
    Diffusion,
    Filter,
    LowPass,
    Median,
    Moved,
    Nudge,
    Probe,
    Source,
    Version,
    WaveletShrinkage,
    votes,
)
from MedShieldLib.volume import Volume

# Raise it when `choose` may choose another family: what was chosen before is not taken for it.
REVISION = 6
# Of each kind, from strong to weak.
_LADDERS: tuple[tuple[Filter, ...], ...] = (
    tuple(LowPass(c) for c in (0.35, 0.45, 0.55, 0.65, 0.75)),
    tuple(WaveletShrinkage(s) for s in (0.15, 0.11, 0.08, 0.055, 0.035)),
    tuple(Diffusion(e) for e in (0.16, 0.12, 0.09, 0.07, 0.05)),
    (Median(2), Median(1)),
)
# The learned reformer, for who asks for it: at the same price diffusion mends more, see docs/method.md.
_LEARNED: tuple[Filter, ...] = tuple(Denoiser(n / 255) for n in (24, 16, 12, 8, 4))
# Even out differences of an attack's size, and hardly any edge of the anatomy; and the opposite.
NUDGES = (Nudge(0.05, against=False), Nudge(0.05, against=True))
_BESIDE_NUDGES = 4
# Evens out as little; where nudges tell too little, it alone is evidence.
_PROBE = Probe(Diffusion(0.025))
_BESIDE_PROBE = 5
# Filters and places are tried on so many volumes.
_ENOUGH = 3
# Nudges are tried on so many, because it is their spread that counts, each under so many benign shifts.
_ENOUGH_FOR_NUDGES, _STATES = 12, 3
_IN_PLACE = 3
# A second filter of a kind repairs a little more, a third one hardly anything.
_OF_A_KIND = 2
_REACH = 3
_MOVED, _MIRRORED = Moved(_REACH, False), Moved(_REACH, True)
# A target that a mirror upsets by so many times as much as a shift alone takes left and right for different.
_ONE_SIDED = 1.5
# Mean clean disagreement that a version may cause. With less, blind attacks show sooner, and an attacker who
# knows the shield has less to keep steady; see docs/method.md.
TOLERANCE = 0.03


def choose(
    target: Target,
    volumes: Sequence[Volume],
    *,
    tolerance: float = TOLERANCE,
    learned: bool = False,
    seed: int = 0,
    progress: Progress = lambda fraction, step: None,
    cancelled: IsCancelled = lambda: False,
) -> tuple[Version, ...]:
    """The family for a target: six versions, and so six inferences beside the target's own.

    Of each kind of filter the strongest that the target tolerates, of these the mildest three; then the
    volume moved, or what serves in its place. Then two nudges, if clean volumes answer both alike; else the
    volume mirrored, or what serves in its place, and a probe.

    Args:
        target: the target that answers.
        volumes: clean ones. The first three cost up to about twenty-five inferences each, and up to
            twelve of all, evenly spaced, nine more.
        tolerance: mean clean disagreement that a version may cause.
        learned: the learned reformer is one of the three kinds of filter, if the target tolerates it.
        seed: of the draws.
        progress: called as progress(fraction, step).
        cancelled: asked before every inference.

    Raises:
        Cancelled: when `cancelled()` says so.
    """
    trial = _Trial(target, volumes[:_ENOUGH], tolerance, seed, cancelled)
    tolerated: list[Filter] = []
    for n, ladder in enumerate(_LADDERS):
        progress(n / (len(_LADDERS) + 2), f"Choosing the reformer: {ladder[0].kind.replace('_', ' ')}")
        tolerated += trial.strongest_borne(ladder)
    progress(1 - 2 / (len(_LADDERS) + 2), "Choosing the reformer: moved")
    wanted = trial.strongest_borne(_LEARNED) if learned else []
    in_place = sorted([*wanted, *sorted(tolerated, key=trial.harm)][:_IN_PLACE], key=trial.harm)
    # A network without strides sees every place alike: its answer moves along, and so does an attack's.
    notices_places = trial.harm(_MOVED) > trial.harm(_PROBE)
    others = (_with_places if notices_places else _without_places)(trial, in_place)

    def say(fraction: float, step: str) -> None:
        progress(1 - (1 - fraction) / (len(_LADDERS) + 2), f"Choosing the reformer: nudges, {step}")

    if asymmetry_spread(target, volumes, seed, say, cancelled) > Symmetry.STEADY:
        return (*others, _PROBE)
    return (*[version for version in others if votes(version)][:_BESIDE_NUDGES], *NUDGES)


def asymmetry_spread(
    target: Target,
    volumes: Sequence[Volume],
    seed: int = 0,
    progress: Progress = lambda fraction, step: None,
    cancelled: IsCancelled = lambda: False,
) -> float:
    """How unlike clean volumes answer to two opposite nudges: little, and an attack stands out.

    The spread of the asymmetry's logarithm above its median, over volumes and benign shifts, equal to the
    standard deviation where it is symmetric. What lies below raises no alarm, so an unlike head there decides
    nothing.

    Args:
        target: the target that answers.
        volumes: clean ones; up to twelve of them, evenly spaced, cost nine inferences each.
        seed: of the shifts and of the draws.
        progress: called as progress(fraction, step).
        cancelled: asked before every inference.

    Raises:
        Cancelled: when `cancelled()` says so.
    """
    some = volumes[:: max(1, -(-len(volumes) // _ENOUGH_FOR_NUDGES))]
    named = [(f"volume {n}", volume) for n, volume in enumerate(some, 1)]
    rows = Rows(target, named, per_volume=_STATES, seed=seed)
    nudged = np.array([_nudged(row, cancelled) for row in rows.each(progress)])
    relative = nudged / np.maximum(nudged.mean(0), Symmetry.LEAST_BENIGN)
    logs = np.log(Symmetry.asymmetry(relative))
    above = np.maximum(logs - np.median(logs), 0)
    return float(np.sqrt(2 * np.mean(above**2)))  # twice: half of all lie above


def _nudged(row: Row, cancelled: IsCancelled) -> list[np.ndarray]:
    """(S,) disagreements of the answer to a clean volume and those to both nudges of it."""
    source = Source(row.volume, row.target.grid(row.volume), row.target.finest_mm, row.seed)

    def ask(volume: Volume) -> np.ndarray:
        if cancelled():
            raise Cancelled
        return row.target.probabilities(volume)

    answer, rng = ask(row.volume), np.random.default_rng(row.seed)
    return [detector.disagreement(answer, ask(nudge.draw(source, rng).volume)) for nudge in NUDGES]


def _with_places(trial: _Trial, tolerated: list[Filter]) -> list[Version]:
    """Filters, the volume moved and mirrored, and moved filters while there is room.

    A mirror that upsets the target too much to repair anything is still evidence.
    """
    # A target that tolerates nothing still needs a filter in place: the weakest there is.
    in_place = tolerated or [_LADDERS[2][-1]]
    bearable = max(trial.tolerance, _ONE_SIDED * trial.harm(_MOVED))
    mirror_votes = trial.harm(_MIRRORED) <= bearable
    places = [_MOVED, _MIRRORED] if mirror_votes else [_MOVED]
    family: list[Version] = [*in_place, *places]
    if not mirror_votes:
        family.append(Probe(_MIRRORED))
    if len(family) < _BESIDE_PROBE:
        moved = [replace(place, inner=inner) for place in places for inner in in_place]
        family += [*sorted(moved, key=trial.harm), *_next_filters(trial, in_place)]
    return family[:_BESIDE_PROBE]


def _without_places(trial: _Trial, tolerated: list[Filter]) -> list[Version]:
    """Filters, and filters on the mirrored volume as far as the target bears the mirror."""
    in_place = [*tolerated, *_next_filters(trial, tolerated)]
    bearable = _ONE_SIDED * max(trial.harm(version) for version in in_place[:_IN_PLACE])
    mirrored = [replace(_MIRRORED, inner=inner) for inner in in_place[:_IN_PLACE]]
    borne = [version for version in mirrored if trial.harm(version) <= bearable]
    family: list[Version] = [*in_place[:_IN_PLACE], *borne, *in_place[_IN_PLACE:]]
    return family[:_BESIDE_PROBE]


def _next_filters(trial: _Trial, chosen: list[Filter]) -> list[Filter]:
    """The filters beside those chosen, the nearest to what the target tolerates first."""
    kinds = [version.kind for version in chosen]
    rungs = [version for ladder in _LADDERS for version in ladder if version not in chosen]
    found = []
    for version in sorted(rungs, key=lambda version: abs(trial.harm(version) - trial.tolerance)):
        if kinds.count(version.kind) < _OF_A_KIND:
            kinds.append(version.kind)
            found.append(version)
    return found


class _Trial:
    """What versions do to clean answers; each is tried once."""

    def __init__(
        self,
        target: Target,
        volumes: Sequence[Volume],
        tolerance: float,
        seed: int,
        cancelled: IsCancelled,
    ) -> None:
        self.tolerance = tolerance
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

    def strongest_borne(self, ladder: Sequence[Filter]) -> list[Filter]:
        """The first of a ladder, from strong to weak, that the target tolerates; none if it bears none."""
        return next(([version] for version in ladder if self.harm(version) <= self.tolerance), [])

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
