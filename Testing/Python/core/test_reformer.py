"""The family of versions: chosen on clean volumes, voted on, and watched by a probe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedShieldLib import Volume, detector, effort, reformer
from MedShieldLib.calibration import Calibration
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.observation import observe
from MedShieldLib.symmetry import Symmetry
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import Diffusion, LowPass, Moved, Probe, Source, Version, nudges, votes
from MedShieldLib.volume import Structure

Heads = list[tuple[str, Volume]]
PROBE = Probe(Diffusion(0.03))


def kinds(family: tuple[Version, ...]) -> list[type]:
    return [type(version) for version in family]


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any target counts as steady under nudges."""
    monkeypatch.setattr(Symmetry, "STEADY", np.inf)


class Gentle(torch.nn.Module):
    """Answers in proportion to the intensity, so that small steps either way move the answer alike."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), 2 * (x - 0.45)], dim=1)


def test_a_target_that_answers_opposite_nudges_alike_gets_three_filters_a_place_and_both(
    small_heads: Heads,
) -> None:
    target, volumes = sharp_target(Gentle()), [volume for _, volume in small_heads[:3]]
    assert reformer.steady_under_nudges(target, volumes)
    family = reformer.choose(target, volumes)
    assert len(family) == effort.ALL and nudges(family) == 2
    assert all(votes(version) for version in family[:4])


def test_one_that_does_not_gets_other_places_and_a_probe(
    small_target: NetworkTarget, small_heads: Heads
) -> None:
    volumes = [volume for _, volume in small_heads[:3]]
    assert not reformer.steady_under_nudges(small_target, volumes)
    family = reformer.choose(small_target, volumes)
    assert len(family) == effort.ALL and nudges(family) == 0
    assert kinds(family)[3:] == [Moved, Moved, Probe]
    assert all(kind not in (Moved, Probe) for kind in kinds(family)[:3])


def test_the_families_differ_in_what_nudges_replace_alone(
    small_target: NetworkTarget, small_heads: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = [volume for _, volume in small_heads[:2]]
    probed = reformer.choose(small_target, volumes)
    monkeypatch.setattr(Symmetry, "STEADY", np.inf)
    assert reformer.choose(small_target, volumes) == (*probed[:4], *reformer.NUDGES)


def test_a_stricter_tolerance_chooses_milder_filters_in_order_of_their_harm(
    small_target: NetworkTarget, small_heads: Heads
) -> None:
    volumes = [volume for _, volume in small_heads[:2]]

    def harm(version: Version) -> float:
        seen = [observe(small_target, volume, (version,), seed=9) for volume in volumes]
        return float(np.mean([one.disagreements for one in seen]))

    strict, lax = (reformer.choose(small_target, volumes, tolerance=t) for t in (0.02, 0.3))
    assert sum(map(harm, strict[:3])) < sum(map(harm, lax[:3]))
    harms = [harm(version) for version in lax[:3]]
    assert harms[0] < harms[2]


def test_a_target_that_tolerates_nothing_is_still_shown_the_weakest_filter_and_six_versions(
    small_target: NetworkTarget, small_heads: Heads
) -> None:
    family = reformer.choose(small_target, [small_heads[0][1]], tolerance=0.0)
    weakest = Diffusion(0.05)
    assert family[:3] == (weakest, Moved(3, False), Moved(3, True)) and len(family) == effort.ALL
    assert set(family[3:5]) == {Moved(3, False, weakest), Moved(3, True, weakest)}
    assert isinstance(family[5], Probe)


class SeesEveryPlaceAlike(torch.nn.Module):
    """A sharp threshold voxel by voxel: no stride, and no mercy on filters."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), 60 * (x - 0.45)], dim=1)


class TakesOneSideForAnother(torch.nn.Module):
    """The same on every second voxel, and on the left half alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        coarse = torch.nn.functional.avg_pool3d(x, 2)
        seen = torch.nn.functional.interpolate(coarse, x.shape[2:])
        left = torch.arange(x.shape[-1]) < x.shape[-1] // 2
        return torch.cat([torch.zeros_like(x), 20 * (seen - 0.45) * left - 5.0 * ~left], dim=1)


class EdgesOnOneSide(torch.nn.Module):
    """What is brighter than its neighbour on the left: no stride, but left and right are different."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), 60 * (x - torch.roll(x, 2, -1) - 0.2)], dim=1)


def sharp_target(network: torch.nn.Module) -> NetworkTarget:
    """On the voxels of the small heads, so that shifts fit them."""
    return NetworkTarget("sharp", network, (Structure(1, "Head", (1.0, 1.0, 1.0)),), "00", (1.5, 1.5, 2.0))


def test_where_a_network_does_not_notice_places_filters_vote_in_their_stead(small_heads: Heads) -> None:
    target, volumes = sharp_target(SeesEveryPlaceAlike()), [volume for _, volume in small_heads[:2]]
    family = reformer.choose(target, volumes, tolerance=0.0)
    voters = [version for version in family if votes(version)]
    assert len(voters) == len(set(voters)) == 5 and kinds(family)[5] is Probe
    assert Moved not in kinds(family)[:3]
    assert all(version.mirror and version.inner for version in voters if isinstance(version, Moved))
    assert max(kinds(family)[:3].count(kind) for kind in kinds(family)[:3]) <= 2


def test_a_network_that_tells_left_from_right_has_no_mirror_among_its_voters(small_heads: Heads) -> None:
    target, volumes = sharp_target(TakesOneSideForAnother()), [volume for _, volume in small_heads[:2]]
    family = reformer.choose(target, volumes)
    moved = [version for version in family if isinstance(version, Moved)]
    assert len(family) == effort.ALL and moved[0] == Moved(3, False)
    assert not any(version.mirror for version in moved) and Probe(Moved(3, True)) in family


@pytest.mark.usefixtures("steady")
def test_a_mirror_without_a_vote_makes_room_for_nudges(small_heads: Heads) -> None:
    target, volumes = sharp_target(TakesOneSideForAnother()), [volume for _, volume in small_heads[:2]]
    family = reformer.choose(target, volumes)
    assert len(family) == effort.ALL and nudges(family) == 2
    assert all(votes(version) for version in family[:4])


def test_a_strideless_network_that_tells_left_from_right_is_not_mirrored_at_all(small_heads: Heads) -> None:
    family = reformer.choose(sharp_target(EdgesOnOneSide()), [small_heads[0][1]], tolerance=0.0)
    assert len(family) == effort.ALL and Moved not in kinds(family)


def test_choosing_can_be_cancelled(small_target: NetworkTarget, small_heads: Heads) -> None:
    with pytest.raises(Cancelled):
        reformer.choose(small_target, [small_heads[0][1]], cancelled=lambda: True)


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
