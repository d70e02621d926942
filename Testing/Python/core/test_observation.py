"""What the shield sees of a volume: the draws of its seed, and their vote."""

from __future__ import annotations

import numpy as np
import pytest

from MedShieldLib.errors import Cancelled
from MedShieldLib.observation import observe
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import MOST_CHANGE, Diffusion, LowPass, Moved, Probe, Source, WaveletShrinkage
from MedShieldLib.volume import Volume

FAMILY = (LowPass(0.5), WaveletShrinkage(0.1), Moved(3, True), Probe(Diffusion(0.025)))


@pytest.fixture(scope="module")
def volume(small_heads: list[tuple[str, Volume]]) -> Volume:
    return small_heads[0][1]


def test_draws_come_from_the_seed_and_answers_are_moved_back_to_vote(
    small_target: NetworkTarget, volume: Volume
):
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
    np.testing.assert_allclose(seen.reformed.voxels, mean, rtol=1e-5, atol=1e-3 * source.width)
    assert {"target", "versions", "evidence"} <= set(seen.timings_s)


def test_a_cap_is_a_clip_around_the_volume_in_small_steps(small_target: NetworkTarget, volume: Volume):
    source = Source(volume, small_target.grid(volume), small_target.finest_mm)
    most = np.float32(MOST_CHANGE * source.width)
    own = volume.voxels.astype(np.float32)
    capped = own + np.random.default_rng(0).normal(0, most, own.shape).astype(np.float32)
    expected = np.clip(capped, own - most, own + most)
    source.cap(capped)
    step = 2.0 ** np.floor(np.log2(source.width * 2**-10))
    assert (np.abs(capped - own) <= np.abs(expected - own)).all()
    np.testing.assert_allclose(capped, expected, rtol=0, atol=step)
    np.testing.assert_array_equal((capped - own) % step, 0)


@pytest.mark.parametrize("answers", range(4))
def test_a_cancel_is_heard_before_every_inference(small_target: NetworkTarget, volume: Volume, answers: int):
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > answers

    with pytest.raises(Cancelled):
        observe(small_target, volume, FAMILY, seed=0, cancelled=cancelled)
    assert asked == answers + 1
