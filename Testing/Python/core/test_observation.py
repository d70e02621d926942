"""What the shield sees of a volume: the same whether or not its own work is done beside the target's."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pytest

from MedShieldLib.errors import Cancelled
from MedShieldLib.observation import observe
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import Diffusion, LowPass, Moved, Probe, Source, WaveletShrinkage
from MedShieldLib.volume import Volume

FAMILY = (LowPass(0.5), WaveletShrinkage(0.1), Moved(3, True), Probe(Diffusion(0.025)))


@dataclass(frozen=True)
class Torn:
    """A version that cannot be drawn, as when memory runs out."""

    kind = "torn"

    def draw(self, source: Source, rng: np.random.Generator):
        raise MemoryError("no room for a version")


@pytest.fixture(scope="module")
def volume(small_heads: list[tuple[str, Volume]]) -> Volume:
    return small_heads[0][1]


def test_draws_and_votes_are_those_of_one_after_the_other(small_target: NetworkTarget, volume: Volume):
    seen = observe(small_target, volume, FAMILY, seed=11)
    source = Source(volume, small_target.grid(volume), small_target.finest_mm)
    rng, answers, in_place = np.random.default_rng(11), [], []
    for version in FAMILY[:3]:
        draw = version.draw(source, rng)
        answer = small_target.probabilities(draw.volume)
        answers.append(draw.restore(answer) if draw.restore else answer)
        in_place += [] if draw.restore else [draw.volume.voxels]
    np.testing.assert_allclose(seen.vote, np.mean(answers, axis=0), atol=1e-6)
    mean = np.mean(in_place, axis=0)
    source.cap(mean)
    np.testing.assert_allclose(seen.reformed.voxels, mean, rtol=1e-5, atol=1e-4 * source.width)
    assert {"target", "versions", "evidence"} <= set(seen.timings_s)


@pytest.mark.parametrize("place", range(3))
def test_a_version_that_cannot_be_drawn_ends_the_check_and_its_thread(
    small_target: NetworkTarget, volume: Volume, place: int
):
    family = [*FAMILY[:2]]
    family.insert(place, Torn())
    before = threading.active_count()
    with pytest.raises(MemoryError, match="no room"):
        observe(small_target, volume, family, seed=0)
    assert threading.active_count() == before


@pytest.mark.parametrize("answers", range(4))
def test_a_cancel_is_heard_before_every_inference_and_leaves_no_thread(
    small_target: NetworkTarget, volume: Volume, answers: int
):
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > answers

    before = threading.active_count()
    with pytest.raises(Cancelled):
        observe(small_target, volume, FAMILY, seed=0, cancelled=cancelled)
    assert asked == answers + 1 and threading.active_count() == before
