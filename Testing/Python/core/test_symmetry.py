"""Nudges: opposite steps of one size, and what clean and attacked answers make of them."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedShieldLib import Volume, shifts
from MedShieldLib.attacks import load_attack
from MedShieldLib.calibration import Calibration, calibrate
from MedShieldLib.detector import Normaliser, pairs
from MedShieldLib.errors import InputError
from MedShieldLib.fusion import Units
from MedShieldLib.observation import observe
from MedShieldLib.shield import Shield
from MedShieldLib.symmetry import Symmetry
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import Diffusion, LowPass, Moved, Nudge, Source, nudges, votes

_spec = importlib.util.spec_from_file_location("attack_toys", Path(__file__).with_name("attack_toys.py"))
toys = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toys)

Heads = list[tuple[str, Volume]]
PAIR = (Nudge(0.03, against=False), Nudge(0.03, against=True))
FAMILY = (LowPass(0.6), Diffusion(0.05), Moved(3, False), *PAIR)


@pytest.fixture(scope="module")
def nudged(small_target: NetworkTarget, small_heads: Heads) -> Calibration:
    mild = (shifts.none, shifts.gamma, shifts.bias_field, shifts.eight_bit)
    return calibrate(small_target, small_heads[:4], FAMILY, augmentations=mild, seed=5)


def source_of(volume: Volume, target: NetworkTarget, seed: int = 0) -> Source:
    return Source(volume, target.grid(volume), target.finest_mm, seed)


@pytest.mark.parametrize("spacing", [2.0, 1.0])
def test_nudges_are_opposite_steps_of_one_size_whatever_generator_they_are_given(spacing: float) -> None:
    target, volume = toys.target_of(toys.Sharpening()), toys.head(24, spacing=spacing)
    source = source_of(volume, target)
    there, back = (nudge.draw(source, np.random.default_rng(n)).volume.voxels for n, nudge in enumerate(PAIR))
    step = there - volume.voxels
    assert 0.1 < np.abs(step).max() < 0.03 * source.width
    np.testing.assert_allclose(back - volume.voxels, -step, atol=1e-3)  # of 1000


def test_a_nudge_takes_another_step_in_another_check(small_target: NetworkTarget, small_heads: Heads) -> None:
    volume, rng = small_heads[0][1], np.random.default_rng(0)
    first, again, other = (
        PAIR[0].draw(source_of(volume, small_target, seed), rng).volume.voxels for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("family", [PAIR[:1], PAIR[::-1], (*PAIR, LowPass(0.5)), (PAIR[0], Nudge(0.1, True))])
def test_nudges_that_are_not_the_last_two_or_no_opposites_are_refused(family: tuple) -> None:
    assert nudges((LowPass(0.5), Diffusion(0.1))) == 0 and nudges(FAMILY) == 2
    assert not any(map(votes, PAIR))
    with pytest.raises(ValueError, match="nudges come last"):
        nudges((LowPass(0.5), *family))


def test_nudges_leave_vote_scatter_unrest_and_dispersions_to_the_others(
    small_target: NetworkTarget, small_heads: Heads
) -> None:
    alone, both = (observe(small_target, small_heads[0][1], family, 4) for family in (FAMILY[:3], FAMILY))
    for name in ("vote", "scatter", "unrest", "dispersions"):
        np.testing.assert_array_equal(getattr(both, name), getattr(alone, name))
    np.testing.assert_array_equal(both.disagreements[:3], alone.disagreements)
    assert both.disagreements.shape == (5, 2) and (both.disagreements[3:] > 0).all()


def test_what_moves_an_answer_alike_both_ways_is_symmetric_however_much_it_moves_it() -> None:
    rng = np.random.default_rng(0)
    clean = rng.lognormal(0, 0.4, (40, 1, 2)) * rng.lognormal(0, 0.02, (40, 2, 2))
    symmetry = Symmetry.fit(clean, rng.lognormal(0, 0.15, 40))
    np.testing.assert_allclose(symmetry.asymmetry(clean), 1, atol=0.1)
    loud = np.full((2, 2), 50.0)
    assert symmetry.asymmetry(loud) == pytest.approx(1)
    lopsided = loud * [[1.3], [1.0]]
    assert symmetry.score(lopsided) > 3 * symmetry.score(loud)
    assert symmetry.asymmetry(lopsided[::-1]) < 1  # further on than back is no sign of an attack


def test_nudges_that_do_nothing_prove_nothing() -> None:
    nothing, rounding = np.zeros((20, 5, 3)), np.zeros((5, 3))
    scale = Normaliser.fit(nothing, np.zeros((20, 3, 3)), np.zeros((20, 2)), nudges=2)
    rounding[3] = 1e-8
    assert scale.asymmetry(nothing[0]) == 1 and scale.asymmetry(rounding) < 1.1


def test_a_mild_nudge_is_measured_against_its_own_clean_mean() -> None:
    """What moves a clean answer by a ten-thousandth and an attacked one by a hundredth is evidence."""
    clean = np.full((20, 5, 2), 0.03)
    clean[:, 3:] = 1e-4
    scale = Normaliser.fit(clean, np.full((20, 3, 2), 0.03), np.zeros((20, 2)), nudges=2)
    attacked = clean[0].copy()
    attacked[3] = 0.01
    assert scale.standing_out(attacked, np.full((3, 2), 0.03)) > 10


def test_an_answer_that_fine_detail_moves_either_way_is_that_of_a_noisy_scan() -> None:
    scale = Normaliser.fit(np.full((20, 5, 2), 0.03), np.full((20, 3, 2), 0.03), np.zeros((20, 2)), nudges=2)
    noisy, attacked = scale.benign.copy(), scale.benign.copy()
    noisy[3:] *= 5
    attacked[:4] *= 5
    usual = scale.benign_dispersion
    assert scale.standing_out(scale.benign, usual) == pytest.approx(1)
    assert scale.standing_out(noisy, usual) < 1.2 and scale.standing_out(attacked, usual) > 5
    # To add to that unrest does not make an attack silent.
    attacked[4] *= 5
    assert scale.standing_out(attacked, usual) > 2


def test_units_give_one_score_the_mean_and_the_spread_of_the_other() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.lognormal(0.2, 0.3, 500), rng.lognormal(-3, 0.05, 500)
    mapped = np.log(Units.fit(ours, theirs, 0.01).of(theirs))
    assert mapped.mean() == pytest.approx(np.log(ours).mean())
    assert mapped.std() == pytest.approx(np.log(ours).std())
    careful = np.log(Units.fit(ours, theirs, 0.5).of(theirs))
    assert careful.std() == pytest.approx(np.log(ours).std() / 10, rel=0.2)


def test_an_attack_answers_to_opposite_nudges_as_no_clean_head_does() -> None:
    """PGD that knows nothing of it, on heads that the calibration has not seen."""
    target = toys.target_of(toys.Sharpening(1.0))
    heads = [(f"head {seed}", toys.head(16, seed=seed)) for seed in range(20, 26)]
    mild = (shifts.none, shifts.gamma, shifts.rician_noise, shifts.bias_field)
    calibration = calibrate(target, heads, FAMILY, augmentations=mild)
    scale = calibration.normaliser
    for seed in range(3):
        clean = toys.head(16, seed=seed)
        attacked = load_attack("pgd")(target, clean, 8 / 255, seed=seed).volume
        there, here = (observe(target, volume, FAMILY, seed) for volume in (attacked, clean))
        assert np.log(scale.asymmetry(there.disagreements)) > 2 * np.log(calibration.asymmetry.max())
        assert scale.asymmetry(there.disagreements) > scale.asymmetry(here.disagreements)
        both = (
            scale.standing_out(there.disagreements, there.dispersions),
            scale.symmetry.score((there.disagreements / scale.benign)[3:]),
        )
        assert scale.instability(there.disagreements, there.dispersions) == max(both)


def test_a_lopsided_answer_raises_the_instability_by_itself() -> None:
    """All versions do what they usually do, but for the nudge, which does a third more than its opposite."""
    rng = np.random.default_rng(0)
    clean = 0.03 * rng.lognormal(0, 0.15, (40, 5, 2))
    clean[:, 3:] = 1e-3 * rng.lognormal(0, 0.4, (40, 1, 2)) * rng.lognormal(0, 0.02, (40, 2, 2))
    between = 0.03 * rng.lognormal(0, 0.1, (40, 3, 2))
    scale = Normaliser.fit(clean, between, np.zeros((40, 2)), nudges=2)
    lopsided = scale.benign.copy()
    lopsided[3] *= 1.33
    assert scale.instability(scale.benign, scale.benign_dispersion) == pytest.approx(1)
    assert scale.instability(lopsided, scale.benign_dispersion) > scale.instability(clean, between).max()
    assert scale.standing_out(lopsided, scale.benign_dispersion) < 1.1


def test_a_calibration_with_nudges_is_read_back_and_cut_down(nudged: Calibration, tmp_path: Path) -> None:
    loaded = Calibration.load(nudged.save(tmp_path / "nudged.json"))
    np.testing.assert_array_equal(loaded.disagreements, nudged.disagreements)
    assert loaded.sha256 == nudged.sha256 and loaded.dispersions.shape[1] == len(pairs(3))
    assert nudges(nudged.limited(2).versions) == nudges(nudged.limited(3).versions) == 0
    four = nudged.limited(4)
    four._require_consistent()
    assert nudges(four.versions) == 2 and nudged.limited(2).versions == four.versions[:2]
    np.testing.assert_array_equal(four.disagreements[:, 2:], nudged.disagreements[:, 3:])
    assert nudged.normaliser.symmetry is not None and nudged.limited(2).normaliser.symmetry is None


def test_a_calibration_of_stray_nudges_is_refused(nudged: Calibration, tmp_path: Path) -> None:
    stray = replace(nudged, versions=(*PAIR, *FAMILY[:3])).save(tmp_path / "stray.json")
    with pytest.raises(InputError, match=r"stray\.json is not a MedShield calibration"):
        Calibration.load(stray)


def test_a_check_says_how_lopsided_the_answer_is() -> None:
    target = toys.target_of(toys.Sharpening())
    heads = [(f"head {seed}", toys.head(16, seed=seed)) for seed in range(20, 24)]
    made = calibrate(target, heads, FAMILY, augmentations=(shifts.none, shifts.gamma))
    result = Shield(target, made, seed=1).check_and_segment(toys.head(16, seed=1))
    found = {item.name: item for item in result.evidence}
    assert found["nudge over its opposite"].value == pytest.approx(1, abs=0.2)
    assert len(found["nudge over its opposite"].clean) == len(made.subjects)
