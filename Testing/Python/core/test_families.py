"""The family of versions: chosen on clean volumes, for what the target tolerates and how steady it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedShieldLib import Volume, effort, families, reformer
from MedShieldLib.errors import Cancelled
from MedShieldLib.evaluation import steadiness
from MedShieldLib.observation import observe
from MedShieldLib.symmetry import Symmetry
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.targets.window import Window
from MedShieldLib.versions import Denoiser, Diffusion, Moved, Probe, Version, nudges, votes
from MedShieldLib.volume import Structure

Heads = list[tuple[str, Volume]]


def kinds(family: tuple[Version, ...]) -> list[type]:
    return [type(version) for version in family]


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any target counts as steady under nudges."""
    monkeypatch.setattr(Symmetry, "STEADY", np.inf)


class Gentle(torch.nn.Module):
    """Answers in proportion to the intensity: small steps either way move the answer alike."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), 0.3 * (x - 0.45)], dim=1)


def test_a_target_that_answers_opposite_nudges_alike_gets_three_filters_a_place_and_both(
    small_heads: Heads,
) -> None:
    # A window that clips nothing: what is clipped moves one way alone.
    target = sharp_target(Gentle(), Window(-1000, 3000, fixed=True))
    volumes = [volume for _, volume in small_heads[:3]]
    assert families.asymmetry_spread(target, volumes) < Symmetry.STEADY
    family = families.choose(target, volumes)
    assert len(family) == effort.ALL and nudges(family) == 2
    assert all(votes(version) for version in family[:4])


def test_one_that_does_not_gets_other_places_and_a_probe(
    small_target: NetworkTarget, small_heads: Heads
) -> None:
    volumes = [volume for _, volume in small_heads[:3]]
    assert families.asymmetry_spread(small_target, volumes) > Symmetry.STEADY
    family = families.choose(small_target, volumes)
    assert len(family) == effort.ALL and nudges(family) == 0
    assert kinds(family)[3:] == [Moved, Moved, Probe]
    assert all(kind not in (Moved, Probe) for kind in kinds(family)[:3])


def test_the_families_differ_in_what_nudges_replace_alone(
    small_target: NetworkTarget, small_heads: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = [volume for _, volume in small_heads[:2]]
    probed = families.choose(small_target, volumes)
    monkeypatch.setattr(Symmetry, "STEADY", np.inf)
    assert families.choose(small_target, volumes) == (*probed[:4], *families.NUDGES)


def test_a_stricter_tolerance_chooses_milder_filters_in_order_of_their_harm(
    small_target: NetworkTarget, small_heads: Heads
) -> None:
    volumes = [volume for _, volume in small_heads[:2]]

    def harm(version: Version) -> float:
        seen = [observe(small_target, volume, (version,), seed=9) for volume in volumes]
        return float(np.mean([one.disagreements for one in seen]))

    strict, lax = (families.choose(small_target, volumes, tolerance=t) for t in (0.02, 0.3))
    assert sum(map(harm, strict[:3])) < sum(map(harm, lax[:3]))
    harms = [harm(version) for version in lax[:3]]
    assert harms[0] < harms[2]


def test_a_target_that_tolerates_nothing_is_still_shown_the_weakest_filter_and_six_versions(
    small_target: NetworkTarget, small_heads: Heads
) -> None:
    family = families.choose(small_target, [small_heads[0][1]], tolerance=0.0)
    weakest = Diffusion(0.05)
    assert family[:3] == (weakest, Moved(3, False), Moved(3, True)) and len(family) == effort.ALL
    assert set(family[3:5]) == {Moved(3, False, weakest), Moved(3, True, weakest)}
    assert isinstance(family[5], Probe)


def test_the_learned_reformer_votes_where_it_is_asked_for(
    small_target: NetworkTarget, small_heads: Heads
) -> None:
    volumes = [volume for _, volume in small_heads[:2]]
    family, without = (families.choose(small_target, volumes, learned=learned) for learned in (True, False))
    learned = [version for version in family[:3] if isinstance(version, Denoiser)]
    assert len(learned) == 1 and votes(learned[0]) and len(family) == effort.ALL
    # It takes the place of the last of three filters.
    assert len(set(family[:3]) & set(without[:3])) == 2 and family[5] == without[5]
    assert not any(isinstance(version, Denoiser) for version in without)


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


def sharp_target(network: torch.nn.Module, window: Window | None = None) -> NetworkTarget:
    """On the voxels of the small heads, so that shifts fit them."""
    structures = (Structure(1, "Head", (1.0, 1.0, 1.0)),)
    return NetworkTarget("sharp", network, structures, "00", (1.5, 1.5, 2.0), window=window)


def test_where_a_network_does_not_notice_places_filters_vote_in_their_stead(small_heads: Heads) -> None:
    target, volumes = sharp_target(SeesEveryPlaceAlike()), [volume for _, volume in small_heads[:2]]
    family = families.choose(target, volumes, tolerance=0.0)
    voters = [version for version in family if votes(version)]
    assert len(voters) == len(set(voters)) == 5 and kinds(family)[5] is Probe
    assert Moved not in kinds(family)[:3]
    assert all(version.mirror and version.inner for version in voters if isinstance(version, Moved))
    assert max(kinds(family)[:3].count(kind) for kind in kinds(family)[:3]) <= 2


def test_a_network_that_tells_left_from_right_has_no_mirror_among_its_voters(small_heads: Heads) -> None:
    target, volumes = sharp_target(TakesOneSideForAnother()), [volume for _, volume in small_heads[:2]]
    family = families.choose(target, volumes)
    moved = [version for version in family if isinstance(version, Moved)]
    assert len(family) == effort.ALL and moved[0] == Moved(3, False)
    assert not any(version.mirror for version in moved) and Probe(Moved(3, True)) in family


@pytest.mark.usefixtures("steady")
def test_a_mirror_without_a_vote_makes_room_for_nudges(small_heads: Heads) -> None:
    target, volumes = sharp_target(TakesOneSideForAnother()), [volume for _, volume in small_heads[:2]]
    family = families.choose(target, volumes)
    assert len(family) == effort.ALL and nudges(family) == 2
    assert all(votes(version) for version in family[:4])


def test_a_strideless_network_that_tells_left_from_right_is_not_mirrored_at_all(small_heads: Heads) -> None:
    family = families.choose(sharp_target(EdgesOnOneSide()), [small_heads[0][1]], tolerance=0.0)
    assert len(family) == effort.ALL and Moved not in kinds(family)


def test_choosing_can_be_cancelled(small_target: NetworkTarget, small_heads: Heads) -> None:
    with pytest.raises(Cancelled):
        families.choose(small_target, [small_heads[0][1]], cancelled=lambda: True)


@pytest.mark.parametrize(("jump", "counts"), [(3.0, True), (1 / 3, False)])
def test_one_volume_that_answers_the_step_back_more_is_too_many_and_one_that_answers_it_less_is_not(
    small_target: NetworkTarget,
    small_heads: Heads,
    monkeypatch: pytest.MonkeyPatch,
    jump: float,
    counts: bool,
) -> None:
    ratios = iter([jump, *np.linspace(0.99, 1.01, 8)])
    monkeypatch.setattr(families, "_nudged", lambda row, cancelled: np.array([[next(ratios)], [1.0]]))
    spread = families.asymmetry_spread(small_target, [volume for _, volume in small_heads[:3]])
    assert (spread > Symmetry.STEADY) == counts


def test_the_spread_is_the_standard_deviation_of_what_is_symmetric(
    small_target: NetworkTarget, small_heads: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = np.linspace(-0.3, 0.3, 15)
    each = iter(np.exp(logs))
    monkeypatch.setattr(families, "_nudged", lambda row, cancelled: np.array([[next(each)], [1.0]]))
    monkeypatch.setattr(Symmetry, "LEAST", 0.0)
    spread = families.asymmetry_spread(small_target, [volume for _, volume in small_heads])
    assert spread == pytest.approx(logs.std())


def test_a_command_tells_how_steady_targets_are(
    small_target: NetworkTarget,
    small_heads: Heads,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "volumes").mkdir()
    for name, volume in small_heads:
        volume.write(tmp_path / "volumes" / f"{name.replace(' ', '-')}.nii.gz")
    monkeypatch.setattr(steadiness, "load", lambda name, data: small_target)
    found = steadiness.line("by-intensity", tmp_path)
    assert "no nudges" in found and "over 3 heads" in found  # two of five are for tests
    monkeypatch.setattr("sys.argv", ["steadiness", str(tmp_path / "nowhere"), "by-intensity"])
    assert steadiness.main() == 2
    error = capsys.readouterr().err
    assert "nowhere" in error and error.count("\n") == 1


def test_of_many_volumes_nudges_are_tried_on_twelve_at_most(
    small_target: NetworkTarget, small_heads: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(families, "_nudged", lambda row, cancelled: asked.append(row) or np.ones((2, 1)))
    families.asymmetry_spread(small_target, [volume for _, volume in small_heads] * 5)
    assert len(asked) == 3 * 9  # every third of twenty-five volumes, each in three states


def test_families_are_still_chosen_where_callers_were_told_to() -> None:
    assert reformer.choose is families.choose
