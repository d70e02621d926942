"""What the shield sees of one volume: the target's answer, its answers to versions, and image features.

Calibration observes clean volumes and the shield observes the volume under check, by this same function.
Our own work is done on a thread of its own while the target computes, which seldom keeps all cores busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from MedShieldLib import converter, detector, second_opinion, slabs
from MedShieldLib.errors import Cancelled
from MedShieldLib.stopwatch import Stopwatch
from MedShieldLib.targets.base import Target, answer_of
from MedShieldLib.versions import Draw, Source, Version, votes
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
        unrest: (K', J', I') float32 in [0, 1]: mean total variation between `answer` and the versions'.
        disagreements: (V, S) of `answer` and that to each version, see `detector.disagreement`.
        dispersions: (P, S) of the answers to every two versions, see `detector.dispersions`.
        features: see `detector.novelty_features`.
        profile: log10 power per shell of `detector.PROFILE_EDGES`.
        reformed: the mean of the versions that stayed in place and vote, float32; no voxel moves far, see
            `versions.MOST_CHANGE`.
        timings_s: seconds in the target ("target"), in our own code ("versions", "evidence"), most of it at
            the same time, and in both for a second opinion ("second opinion").
        contradictions: (M, 2), see `second_opinion.contradictions`; None where nobody was asked.
    """

    source: Source = field(repr=False)
    answer: np.ndarray = field(repr=False)
    vote: np.ndarray = field(repr=False)
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
    source = Source(volume, target.grid(volume), target.finest_mm)
    steps = len(versions) + 2 + (second is not None)

    def begin(step: int, name: str) -> None:
        if cancelled():
            raise Cancelled
        progress(step / steps, name)

    def ask(seen: Volume, step: int, name: str) -> np.ndarray:
        begin(step, name)
        with watch.of("target"):
            return answer_of(target, seen)

    def draw(version: Version) -> Draw:
        with watch.of("versions"):
            return version.draw(source, rng)

    def measure() -> np.ndarray:
        with watch.of("evidence"):
            return converter.radial_profile(source.spectrum, detector.PROFILE_EDGES)

    def gather(version: Version, drawn: Draw, other: np.ndarray) -> None:
        with watch.of("evidence"):
            gathered.add(version, drawn, other)

    with _beside() as own:
        draws, measured = [own.submit(draw, first) for first in versions[:1]], own.submit(measure)
        answer = ask(volume, 0, "Segmenting the volume as it is")
        gathered, gathering = _Gathered(answer, volume), []
        for n, version in enumerate(versions):
            drawn = draws.pop().result()
            draws = [own.submit(draw, following) for following in versions[n + 1 : n + 2]]
            name = f"Segmenting version {n + 1} of {len(versions)} ({version.kind})"
            gathering.append(own.submit(gather, version, drawn, ask(drawn.volume, n + 1, name)))
        contradictions = None
        if second is not None:
            begin(len(versions) + 1, f"Segmenting for a second opinion ({second.name})")
            with watch.of("second opinion"):
                contradictions = second_opinion.contradictions(target, answer, second, volume, seed)
        progress((steps - 1) / steps, "Weighing the evidence")
        for each in gathering:
            each.result()
    with watch.of("evidence"):
        gathered.finish()
        source.cap(gathered.reformed)
        dispersions = detector.dispersions(gathered.samples)
        features = detector.novelty_features(measured.result(), volume, answer, target)
    return Observation(
        source,
        answer,
        gathered.vote,
        gathered.unrest,
        np.array(gathered.disagreements),
        dispersions,
        features,
        measured.result(),
        volume.with_voxels(gathered.reformed),
        watch.seconds,
        contradictions,
    )


@contextmanager
def _beside() -> Iterator[Executor]:
    """One thread: work is done in the order given; what has not begun when the block fails never is."""
    thread = ThreadPoolExecutor(1)
    try:
        yield thread
    finally:
        thread.shutdown(cancel_futures=True)


class _Gathered:
    """What the answers to the versions add up to; the fields are those of `Observation`."""

    def __init__(self, answer: np.ndarray, volume: Volume) -> None:
        self.answer = answer
        self.vote, self.unrest = np.zeros_like(answer), np.zeros(answer.shape[1:], np.float32)
        self.reformed = np.zeros(volume.voxels.shape, np.float32)
        self.disagreements: list[np.ndarray] = []
        self.samples: list[np.ndarray] = []
        self._voters = self._in_place = 0

    def add(self, version: Version, drawn: Draw, other: np.ndarray) -> None:
        """The answer to one version, as the target gave it."""
        if drawn.restore is not None:
            other = drawn.restore(other)
        elif votes(version):
            self.reformed += drawn.volume.voxels
            self._in_place += 1
        vote = self.vote if votes(version) else None
        self._voters += vote is not None
        self.disagreements.append(_pool(self.answer, other, vote, self.unrest))
        self.samples.append(detector.sample(other))

    def finish(self) -> None:
        """Sums to means."""
        self.vote /= max(1, self._voters)
        self.unrest /= 2 * len(self.disagreements)
        self.reformed /= max(1, self._in_place)


def _pool(answer: np.ndarray, other: np.ndarray, vote: np.ndarray | None, unrest: np.ndarray) -> np.ndarray:
    """Add an answer to the vote, if there is one, and its distance from the volume's own to the unrest.

    Returns `detector.disagreement` of the two, which needs that distance as well.
    """

    def add(rows: slice) -> np.ndarray:
        ours, theirs = answer[:, rows], other[:, rows]
        distance = np.abs(ours - theirs)
        if vote is not None:
            vote[:, rows] += theirs
        unrest[rows] += distance.sum(0)
        return detector.sums_of(distance, ours, theirs)

    return detector.disagreement_of_sums(slabs.each(answer, add, axis=1))
