"""The reformer: the answers to versions vote, where the answer to the volume itself stands alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from MedShieldLib import Volume, detector, reformer
from MedShieldLib.calibration import Calibration
from MedShieldLib.errors import InputError
from MedShieldLib.observation import observe
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import Diffusion, LowPass, Moved, Probe, Source, votes

Heads = list[tuple[str, Volume]]
PROBE = Probe(Diffusion(0.03))


def test_a_probe_is_evidence_and_has_no_vote(small_target: NetworkTarget, small_heads: Heads) -> None:
    volume = small_heads[0][1]
    voters = (LowPass(0.6), Moved(3, True))
    plain = observe(small_target, volume, voters, seed=4)
    probed = observe(small_target, volume, (*voters, PROBE), seed=4)
    np.testing.assert_allclose(probed.vote, plain.vote, atol=1e-6)
    np.testing.assert_allclose(probed.reformed.voxels, plain.reformed.voxels)
    np.testing.assert_allclose(probed.vote.sum(0), 1, atol=1e-4)
    np.testing.assert_array_equal(probed.disagreements[:2], plain.disagreements)
    assert probed.disagreements.shape == (3, 2) and probed.dispersions.shape == (3, 2)
    alone = observe(small_target, volume, (PROBE.inner,), seed=4)
    other = detector.disagreement(plain.answer, alone.vote)
    np.testing.assert_allclose(probed.disagreements[2], other, rtol=0.5)  # by another draw


def test_a_family_of_probes_alone_is_refused(small_calibration: Calibration, tmp_path: Path) -> None:
    probes = tuple(Probe(LowPass(0.9)) for _ in small_calibration.versions)
    assert not any(map(votes, probes))
    path = replace(small_calibration, versions=probes).save(tmp_path / "probes.json")
    with pytest.raises(InputError, match=r"probes\.json"):
        Calibration.load(path)


def test_the_scatter_is_how_far_the_votes_are_from_their_mean(
    small_target: NetworkTarget, small_heads: Heads
) -> None:
    volume, voters = small_heads[0][1], (LowPass(0.6), LowPass(0.4), Moved(3, True))
    seen = observe(small_target, volume, (*voters, PROBE), seed=4)
    source, rng = Source(volume, small_target.grid(volume), small_target.finest_mm), np.random.default_rng(4)
    answers = []
    for version in voters:
        draw = version.draw(source, rng)
        answer = small_target.probabilities(draw.volume)
        answers.append(answer if draw.restore is None else draw.restore(answer))
    np.testing.assert_allclose(seen.vote, np.mean(answers, 0), atol=1e-6)
    np.testing.assert_allclose(seen.scatter, np.var(answers, 0).sum(0), atol=1e-5)


def test_a_repair_takes_the_vote_where_the_answer_stands_alone_and_leaves_the_rest() -> None:
    """Versions scatter by .1 about the truth, and so does the answer; in one corner it is far off."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.3, 0.7, (40, 40, 40))
    versions = [truth + 0.1 * rng.standard_normal(truth.shape) for _ in range(6)]
    answer = truth + 0.1 * rng.standard_normal(truth.shape)
    answer[:14, :14, :14] += 0.5
    stacked = [np.stack([1 - p, p]).astype(np.float32) for p in (*versions, answer)]
    vote, scatter = np.mean(stacked[:-1], 0), np.var(stacked[:-1], 0).sum(0)
    where = reformer.standing_alone(vote, stacked[-1], scatter)
    assert where.shape == truth.shape and where.dtype == np.float32
    assert where[:10, :10, :10].min() == 1 and where[20:, 20:, 20:].mean() < 0.5
    assert reformer.standing_alone(vote, vote, scatter).max() == 0
    sure = reformer.standing_alone(vote, stacked[-1], scatter, 0.9)
    assert (sure >= where).all() and sure[20:, 20:, 20:].mean() > 0.9
    mended = reformer.repaired(vote.copy(), stacked[-1], where)
    np.testing.assert_allclose(mended[:, :10, :10, :10], vote[:, :10, :10, :10], atol=1e-6)
    np.testing.assert_array_equal(
        reformer.repaired(vote.copy(), stacked[-1], np.zeros_like(where)), np.clip(stacked[-1], 0, 1)
    )


@pytest.mark.parametrize("corner", [(0, 0, 0), (10, 2, 13)])
def test_only_the_part_that_differs_is_looked_at_and_found_as_in_the_whole(corner: tuple) -> None:
    rng = np.random.default_rng(0)
    block = tuple(slice(c, c + 9) for c in corner)
    vote, scatter = np.full((2, 30, 28, 26), 0.5, np.float32), rng.uniform(0, 0.002, (30, 28, 26))
    answer = vote.copy()
    answer[(slice(None), *block)] += np.float32(0.1) * rng.standard_normal((2, 9, 9, 9)).astype(np.float32)
    where = reformer.standing_alone(vote, answer, scatter.astype(np.float32))
    near = [ndimage.uniform_filter(x, 7, mode="nearest") for x in (((answer - vote) ** 2).sum(0), scatter)]
    ratio = np.sqrt(np.maximum(near[0], 0) / (near[1] + reformer.LEAST_SCATTER**2))
    np.testing.assert_allclose(
        where[block], np.clip((ratio - 1) / (reformer.FAR - 1), 0, 1)[block], atol=1e-3
    )
    where[block] = 0
    assert not where.any() and not reformer.standing_alone(vote, vote, scatter.astype(np.float32)).any()


def test_where_all_versions_agree_a_small_difference_is_none() -> None:
    vote = np.full((2, 9, 8, 7), 0.5, np.float32)
    nothing = np.zeros((9, 8, 7), np.float32)
    assert reformer.standing_alone(vote, vote + np.float32(1e-3), nothing).max() == 0
    assert reformer.standing_alone(vote, vote + np.float32(0.1), nothing).min() == 1


@pytest.mark.parametrize("left", [0.2, 0.4, 0.5])
def test_going_on_from_the_vote_undoes_what_the_versions_leave_of_an_attack(left: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.3, 0.7, (3, 9, 8, 7)).astype(np.float32)
    harm = rng.uniform(-0.2, 0.2, truth.shape).astype(np.float32)
    vote, answer, everywhere = truth + left * harm, truth + harm, np.ones(truth.shape[1:], np.float32)
    mended = reformer.repaired(vote.copy(), answer, everywhere, left / (1 - left))
    np.testing.assert_allclose(mended, truth, atol=1e-6)
    a_little = reformer.repaired(vote.copy(), answer, everywhere, 0.1)
    assert np.abs(a_little - truth).max() < np.abs(vote - truth).max()


def test_going_on_stays_a_probability_and_not_going_on_is_the_vote() -> None:
    rng = np.random.default_rng(0)
    vote, answer = rng.uniform(0, 1, (2, 2, 9, 8, 7)).astype(np.float32)
    everywhere = np.ones(vote.shape[1:], np.float32)
    np.testing.assert_allclose(reformer.repaired(vote.copy(), answer, everywhere), vote, atol=1e-6)
    beyond = reformer.repaired(vote, answer, everywhere, 0.9)
    assert beyond.min() == 0 and beyond.max() == 1 and beyond.dtype == np.float32
