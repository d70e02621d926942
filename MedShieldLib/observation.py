"""What the shield sees of one volume: the target's answer, its answers to versions, and image features.

Calibration observes clean volumes and the shield observes the volume under check, by this same function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from MedShieldLib import converter, detector, second_opinion, slabs
from MedShieldLib.errors import Cancelled
from MedShieldLib.stopwatch import Stopwatch
from MedShieldLib.targets.base import Target, answer_of
from MedShieldLib.versions import Draw, Nudge, Source, Version, votes
from MedShieldLib.volume import Volume

Progress = Callable[[float, str], None]
IsCancelled = Callable[[], bool]


@dataclass(frozen=True)
class Observation:
    """One volume through one target and its versions.

    Attributes:
        source: the volume with what its versions share.
        answer: (C, K', J', I') probabilities for the volume itself.
        vote: (C, K', J', I') mean of the answers to the versions that vote, mapped back.
        scatter: (K', J', I') float32: mean squared distance of these answers from their mean.
        unrest: (K', J', I') float32 in [0, 1]: mean total variation between `answer` and the versions' but
            the nudges'.
        disagreements: (V, S) of `answer` and that to each version, see `detector.disagreement`.
        dispersions: (P, S) of the answers to every two versions that are no nudges, see
            `detector.dispersions`.
        features: see `detector.novelty_features`.
        profile: log10 power per shell of `detector.PROFILE_EDGES`.
        reformed: the mean of the versions that stayed in place and vote, float32; no voxel moves far, see
            `versions.MOST_CHANGE`.
        timings_s: seconds in the target ("target"), in our own code ("versions", "evidence"), and in both
            for a second opinion ("second opinion").
        contradictions: (M, 2), see `second_opinion.contradictions`; None where nobody was asked.
    """

    source: Source = field(repr=False)
    answer: np.ndarray = field(repr=False)
    vote: np.ndarray = field(repr=False)
    scatter: np.ndarray = field(repr=False)
    unrest: np.ndarray = field(repr=False)
    disagreements: np.ndarray
    dispersions: np.ndarray
    features: dict[str, float]
    profile: np.ndarray = field(repr=False)
    reformed: Volume
    timings_s: dict[str, float]
    contradictions: np.ndarray | None = None


def observe(
    target: Target,
    volume: Volume,
    versions: Sequence[Version],
    seed: int,
    progress: Progress = lambda fraction, step: None,
    cancelled: IsCancelled = lambda: False,
    second: Target | None = None,
) -> Observation:
    """Ask the target about a volume and about one draw of each version, and a second target for its opinion.

    Raises:
        InputError: if a target cannot segment the volume.
        Cancelled: when `cancelled()` says so; asked before every inference.
    """
    watch, rng = Stopwatch(), np.random.default_rng(seed)
    source = Source(volume, target.grid(volume), target.finest_mm, seed)
    steps = len(versions) + 2 + (second is not None)

    def begin(step: int, name: str) -> None:
        if cancelled():
            raise Cancelled
        progress(step / steps, name)

    def ask(seen: Volume, step: int, name: str) -> np.ndarray:
        begin(step, name)
        with watch.of("target"):
            return answer_of(target, seen)

    # One thing after another: drawing the next version while the target computes was tried, and a network
    # that has all cores is held up by more than is saved.
    answer = ask(volume, 0, "Segmenting the volume as it is")
    gathered = _Gathered(answer, volume)
    for n, version in enumerate(versions):
        with watch.of("versions"):
            draw = version.draw(source, rng)
        other = ask(draw.volume, n + 1, f"Segmenting version {n + 1} of {len(versions)} ({version.kind})")
        with watch.of("evidence"):
            gathered.add(version, draw, other)
    contradictions = None
    if second is not None:
        begin(len(versions) + 1, f"Segmenting for a second opinion ({second.name})")
        with watch.of("second opinion"):
            contradictions = second_opinion.contradictions(target, answer, second, volume, seed)
    progress((steps - 1) / steps, "Weighing the evidence")
    with watch.of("evidence"):
        gathered.finish()
        source.cap(gathered.reformed)
        dispersions = detector.dispersions(gathered.samples)
        profile = converter.radial_profile(source.spectrum, detector.PROFILE_EDGES)
        features = detector.novelty_features(profile, source, answer, target)
    return Observation(
        source,
        answer,
        gathered.vote,
        gathered.scatter,
        gathered.unrest,
        np.array(gathered.disagreements),
        dispersions,
        features,
        profile,
        volume.with_voxels(gathered.reformed),
        watch.seconds,
        contradictions,
    )


class _Gathered:
    """What the answers to the versions add up to; the fields are those of `Observation`."""

    def __init__(self, answer: np.ndarray, volume: Volume) -> None:
        self.answer, self.cells = answer, detector.cells(answer)
        self.vote, self.unrest = np.zeros_like(answer), np.zeros(answer.shape[1:], np.float32)
        self.scatter = np.zeros_like(self.unrest)  # until the end: the sum of squared answers
        self.reformed = np.zeros(volume.voxels.shape, np.float32)
        self.disagreements: list[np.ndarray] = []
        self.samples: list[np.ndarray] = []
        self._voters = self._in_place = 0

    def add(self, version: Version, drawn: Draw, other: np.ndarray) -> None:
        """The answer to one version, as the target gave it."""
        if isinstance(version, Nudge):  # compared with the one against it alone
            self.disagreements.append(detector.disagreement(self.answer, other))
            return
        if drawn.restore is not None:
            other = drawn.restore(other)
        elif votes(version):
            _add(self.reformed, drawn.volume.voxels)
            self._in_place += 1
        if votes(version):
            _vote(other, self.vote, self.scatter)
            self._voters += 1
        apart, cells = _pool(self.answer, other, self.unrest)
        self.disagreements.append(detector.relative(apart, self.cells + cells))
        self.samples.append(detector.sample(other))

    def finish(self) -> None:
        """Sums to means."""
        sums = (
            (self.vote, self._voters),
            (self.scatter, self._voters),
            (self.unrest, 2 * len(self.samples)),
            (self.reformed, self._in_place),
        )
        for total, number in sums:
            torch.from_numpy(total).div_(max(1, number))  # on all cores
        _less_square(self.scatter, self.vote)


def _add(total: np.ndarray, voxels: np.ndarray) -> None:
    """`voxels` of any type onto a sum of the same shape."""

    def add(rows: slice) -> None:
        total[rows] += voxels[rows]

    slabs.each(total, add)


def _vote(other: np.ndarray, vote: np.ndarray, squares: np.ndarray) -> None:
    """Add an answer to the vote, and its square, summed over structures, to those of the others."""

    def add(rows: slice) -> None:
        theirs = other[:, rows]
        vote[:, rows] += theirs
        squares[rows] += np.einsum("ckji,ckji->kji", theirs, theirs)

    slabs.each(vote, add, axis=1)


def _less_square(squares: np.ndarray, vote: np.ndarray) -> None:
    """From the mean of squares to the mean squared distance from the mean, in place."""

    def take(rows: slice) -> None:
        squares[rows] -= np.einsum("ckji,ckji->kji", vote[:, rows], vote[:, rows])
        np.maximum(squares[rows], 0, out=squares[rows])

    slabs.each(vote, take, axis=1)


def _pool(answer: np.ndarray, other: np.ndarray, unrest: np.ndarray) -> np.ndarray:
    """Add an answer's distance from the volume's own to the unrest.

    Returns (2, S): sum|p - q| of the two answers and the cells of the second one, for `detector.relative`;
    while an answer is at hand, they cost nothing to read.
    """

    def add(rows: slice) -> np.ndarray:
        ours, theirs = answer[:, rows], other[:, rows]
        distance = ours - theirs
        np.abs(distance, out=distance)
        unrest[rows] += distance.sum(0)
        return np.stack([detector.of_structures(distance[1:]), detector.of_structures(theirs[1:])])

    return np.sum(slabs.each(answer, add, axis=1), axis=0)
