"""The detector: disagreement, clean scale, novelty, conformal p-values and the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedShieldLib import detector, slabs
from MedShieldLib.calibration import Calibration
from MedShieldLib.converter import Spectrum, radial_profile
from MedShieldLib.detector import (
    Normaliser,
    disagreement,
    dispersions,
    novelty_features,
    p_attack,
    p_value,
    predictive_p_value,
    sample,
    unexplained,
    verdict,
)
from MedShieldLib.result import Verdict
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import Source
from MedShieldLib.volume import Volume

SHAPE = (16, 18, 20)


def answer(seed: int = 0, structures: int = 3) -> np.ndarray:
    """Random probabilities (S + 1, K, J, I), float32."""
    rng = np.random.default_rng(seed)
    return np.moveaxis(rng.dirichlet([1.0] * (structures + 1), SHAPE), -1, 0).astype(np.float32)


def of_masks(*masks: np.ndarray) -> np.ndarray:
    """A sure answer: one structure per mask."""
    inside = np.stack(masks).astype(np.float32)
    return np.concatenate([1 - inside.sum(0, keepdims=True), inside])


def box(k: slice, j: slice, i: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[k, j, i] = True
    return mask


EVERY = slice(None)


def test_equal_answers_do_not_disagree_at_all() -> None:
    np.testing.assert_array_equal(disagreement(answer(), answer().copy()), 0)


def test_disagreement_is_one_minus_soft_dice_with_the_minimum_as_intersection() -> None:
    p, q = answer(0).astype(float), answer(1).astype(float)
    shared, total = np.minimum(p, q)[1:].sum((1, 2, 3)), (p + q)[1:].sum((1, 2, 3))
    np.testing.assert_allclose(disagreement(answer(0), answer(1)), 1 - 2 * shared / total, rtol=1e-5)
    np.testing.assert_array_equal(disagreement(answer(0), answer(1)), disagreement(answer(1), answer(0)))


def test_disagreement_of_masks_is_one_minus_their_dice() -> None:
    left, right = box(slice(0, 10), EVERY, EVERY), box(slice(5, 15), EVERY, EVERY)
    assert disagreement(of_masks(left), of_masks(right)) == pytest.approx([0.5])
    assert disagreement(of_masks(left), of_masks(~left)) == pytest.approx([1.0])


def test_a_structure_that_both_lack_is_no_disagreement_and_one_that_vanishes_is_all() -> None:
    body, small = box(slice(0, 8), EVERY, EVERY), box(slice(10, 13), slice(3), slice(3))
    none = np.zeros(SHAPE, bool)
    np.testing.assert_array_equal(disagreement(of_masks(body, none), of_masks(body, none)), [0, 0])
    np.testing.assert_array_equal(disagreement(of_masks(body, small), of_masks(body, none)), [0, 1])


def test_disagreement_does_not_depend_on_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = disagreement(answer(0), answer(1))
    monkeypatch.setattr(slabs, "_VOXELS", 1000)
    np.testing.assert_allclose(disagreement(answer(0), answer(1)), whole, rtol=1e-5)


def clean_evidence(subjects: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Disagreements (N, 3, 2), dispersions (N, 3, 2) and features (N, 5) of independent clean subjects."""
    rng = np.random.default_rng(seed)
    unrest = rng.lognormal(0, 0.3, (subjects, 1, 1))  # of a subject: it scatters all answers
    mild = rng.gamma(2.0, [[0.02, 0.04], [0.01, 0.02], [0.05, 0.02]], (subjects, 3, 2))
    between = rng.gamma(8.0, [[0.01, 0.02], [0.01, 0.01], [0.02, 0.01]], (subjects, 3, 2))
    return mild * unrest, between * unrest, rng.normal(size=(subjects, 5)) @ MIX


MIX = np.random.default_rng(99).normal(size=(5, 5))


def test_ordinary_evidence_has_an_instability_of_one_per_version_and_structure() -> None:
    disagreements, dispersions, features = clean_evidence(50, 0)
    scale = Normaliser.fit(disagreements, dispersions, features)
    np.testing.assert_allclose(scale.per_version(disagreements).mean(0), 1)
    np.testing.assert_allclose(scale.spread(dispersions).mean(0), 1)


def test_a_small_structure_that_vanishes_raises_instability_though_all_others_stay() -> None:
    scale = Normaliser.fit(*clean_evidence(50, 0))
    ordinary, between = scale.benign, scale.benign_dispersion
    vanishing = ordinary.copy()
    vanishing[:, 1] = 1.0
    assert scale.instability(ordinary, between) == pytest.approx(1)
    of_each = np.ones(ordinary.shape[1])
    of_each[1] = (1 / ordinary[:, 1]).mean() ** (1 + detector.UNEXPLAINED)
    assert scale.instability(vanishing, between) > 10
    assert scale.instability(vanishing, between) == pytest.approx(np.sqrt((of_each**2).mean()))


def test_what_scatters_all_answers_alike_is_weaker_evidence_than_what_moves_one() -> None:
    scale = Normaliser.fit(*clean_evidence(50, 0))
    apart, between = scale.benign, scale.benign_dispersion
    noisy, attacked = scale.instability(2 * apart, 2 * between), scale.instability(2 * apart, between)
    assert 1 < noisy < 1.3 < 2 < attacked
    # To scatter the versions as well does not make an attack silent.
    assert scale.instability(8 * apart, 8 * between) > 1.5


def test_versions_that_agree_unusually_well_prove_no_more_than_half_the_usual_spread_does() -> None:
    scale = Normaliser.fit(*clean_evidence(50, 0))
    apart, between = scale.benign, scale.benign_dispersion
    assert scale.instability(apart, 0 * between) == scale.instability(apart, detector.LEAST_SPREAD * between)


def test_versions_that_never_moved_a_structure_do_not_make_evidence_of_rounding_errors() -> None:
    nothing, rounding = np.zeros((20, 3, 2)), np.full((3, 2), 1e-4)
    still = Normaliser.fit(nothing, nothing, clean_evidence(20, 0)[2])
    assert still.instability(rounding, rounding) < 0.05


def test_dispersions_are_the_disagreements_of_every_two_answers() -> None:
    answers = [answer(n) for n in range(3)]
    found = dispersions([sample(a) for a in answers])
    wanted = [disagreement(answers[a], answers[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert dispersions([sample(answers[0])]).shape == (0, answers[0].shape[0] - 1)


def test_a_large_answer_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    large = [np.kron(answer(n), np.ones((1, 4, 4, 4), np.float32)) for n in (0, 1)]
    assert sample(large[0]).shape == large[0].shape
    monkeypatch.setattr(detector, "_SAMPLED_CELLS", large[0][0].size // 64)
    sampled = [sample(a) for a in large]
    assert sampled[0].shape == answer().shape
    np.testing.assert_allclose(disagreement(*sampled), disagreement(*large), rtol=1e-4)


def test_novelty_is_zero_at_the_centre_and_grows_with_distance() -> None:
    *_, features = clean_evidence(60, 1)
    scale = Normaliser.fit(*clean_evidence(60, 1))
    away = features.std(0)
    distances = [float(scale.novelty(features.mean(0) + n * away)) for n in range(4)]
    assert distances[0] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(np.diff(distances), distances[1])


def test_novelty_does_not_depend_on_the_units_of_the_features() -> None:
    *evidence, features = clean_evidence(60, 2)
    units = np.array([1, 50, 0.5, 10, 3])
    one, other = Normaliser.fit(*evidence, features), Normaliser.fit(*evidence, features * units)
    np.testing.assert_allclose(one.novelty(features), other.novelty(features * units), rtol=0.02)


def test_fewer_volumes_than_features_still_give_a_distance() -> None:
    *evidence, features = clean_evidence(3, 3)
    assert np.isfinite(Normaliser.fit(*evidence, features).novelty(features)).all()


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25])
@pytest.mark.parametrize("values", [10**9, 6], ids=["continuous", "many ties"])
def test_false_alarms_are_at_most_alpha_for_scores_of_one_protocol(alpha: float, values: int) -> None:
    trials, clean = 4000, 39
    scores = np.random.default_rng(0).integers(0, values, (trials, clean + 1))
    alarms = np.mean([p_value(row[0], row[1:]) <= alpha for row in scores])
    deviation = np.sqrt(alpha * (1 - alpha) / trials)
    assert alarms <= alpha + 3 * deviation
    if values > 1000:  # without ties it is exactly alpha here
        assert alarms >= alpha - 3 * deviation


def test_what_clean_volumes_reach_leaves_nothing_unexplained() -> None:
    clean = np.linspace(0.5, 1.5, 101)
    assert [unexplained(score, clean) for score in (0.0, 1.0, 1.45)] == [0, 0, 0]
    assert unexplained(2.9, clean) == pytest.approx(0.5)
    assert unexplained(1e9, clean) == pytest.approx(1)


def test_p_values_count_the_score_itself_and_ties_against_an_alarm() -> None:
    clean = np.arange(19.0)
    assert p_value(100.0, clean) == pytest.approx(1 / 20)
    assert p_value(18.0, clean) == pytest.approx(2 / 20)
    assert p_value(-1.0, clean) == 1.0
    assert p_value(7.0, np.full(19, 7.0)) == 1.0


def test_clean_subjects_are_rarely_called_suspicious_by_a_calibration_on_others() -> None:
    """Scores are on scales that left out their own subject, and a new subject's is on the scale of all."""
    trials, alpha = 200, 0.1
    alarms = np.zeros(2)
    for trial in range(trials):
        disagreements, dispersions, features = clean_evidence(30, 1000 + trial)
        kept = calibration_of(disagreements[1:], dispersions[1:], features[1:])
        scale = kept.normaliser
        unstable = p_attack(
            float(scale.instability(disagreements[0], dispersions[0])), kept.instability, kept.subjects
        )
        novel = p_value(float(scale.novelty(features[0])), kept.novelty, kept.subjects)
        alarms += np.array([unstable, novel]) <= alpha
    assert (alarms / trials <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / trials)).all()


def scores_of_subjects(subjects: int, rng: np.random.Generator, shifts: int = 8) -> np.ndarray:
    """(N, M) log-normal scores: subjects differ, and so do the shifted volumes of one of them."""
    return np.exp(rng.normal(0, 0.4, (subjects, 1)) + rng.normal(0, 0.2, (subjects, shifts)))


def test_a_new_subject_is_rarely_called_suspicious_though_scores_of_one_subject_resemble_each_other() -> None:
    """Counting rows alone would not do: under 12 subjects the largest is often a new one."""
    trials, alpha, subjects = 2000, 0.05, 12
    rng, names = np.random.default_rng(0), [str(n) for n in range(subjects) for _ in range(8)]
    alarms, by_rows_alone = 0, 0
    for _ in range(trials):
        *clean, new = scores_of_subjects(subjects + 1, rng)
        alarms += p_value(new[0], np.ravel(clean), names) <= alpha
        by_rows_alone += p_value(new[0], np.ravel(clean)) <= alpha
    allowed = alpha + 3 * np.sqrt(alpha * (1 - alpha) / trials)
    assert alarms / trials <= allowed < by_rows_alone / trials


def test_a_score_far_beyond_all_subjects_is_suspicious_however_it_is_counted() -> None:
    clean = scores_of_subjects(12, np.random.default_rng(0))
    names = [str(n) for n in range(12) for _ in range(8)]
    assert p_value(10 * clean.max(), clean.ravel(), names) == pytest.approx(1 / 97)  # the conformal one
    assert p_value(float(np.median(clean)), clean.ravel(), names) > 0.3


@pytest.mark.parametrize("subjects", [3, 4, 6, 12])
def test_a_few_subjects_give_rare_false_alarms_whatever_their_luck(subjects: int) -> None:
    """Over many calibrations of a few subjects that differ as subjects usually do.

    Without the usual spread the alarm is as rare on average, but raised from anywhere on: what one draw of
    subjects calls an attack is ordinary to the next.
    """
    trials, alpha, rng = 300, 0.05, np.random.default_rng(subjects)
    names = [str(n) for n in range(subjects) for _ in range(8)]
    alarms, starts, starts_by_luck = 0, [], []
    for _ in range(trials):
        *clean, new = np.exp(rng.normal(0, 0.12, (subjects + 1, 1)) + rng.normal(0, 0.05, (subjects + 1, 8)))
        clean = np.ravel(clean)
        alarms += p_attack(new[0], clean, names) <= alpha
        beyond = np.geomspace(1, 4, 40)
        starts.append(next(x for x in beyond if p_attack(x, clean, names) <= alpha))
        starts_by_luck.append(
            next((x for x in beyond if predictive_p_value(x, clean, names) <= alpha), beyond[-1])
        )
    assert alarms / trials <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / trials)
    assert np.std(np.log(starts)) < np.std(np.log(starts_by_luck))
    if subjects <= 6:
        assert np.std(np.log(starts)) < 0.75 * np.std(np.log(starts_by_luck))


def test_the_usual_spread_gives_way_to_what_many_subjects_show() -> None:
    """Forty subjects that differ twice as much as usual: the threshold is nearly theirs."""
    rng = np.random.default_rng(5)
    names = [str(n) for n in range(40) for _ in range(4)]
    clean = np.exp(rng.normal(0, 0.24, (40, 1)) + rng.normal(0, 0.05, (40, 4))).ravel()
    beyond = np.geomspace(1, 4, 400)
    start = next(x for x in beyond if p_attack(x, clean, names) <= 0.05)
    theirs = next(x for x in beyond if p_value(x, clean, names) <= 0.05)
    usual = np.exp(0.12 * 1.7)
    assert start == pytest.approx(theirs, rel=0.05) and start > 1.1 * usual


def calibration_of(disagreements: np.ndarray, dispersions: np.ndarray, features: np.ndarray) -> Calibration:
    n = len(disagreements)
    return Calibration(
        "simulated", "none", "0", (), tuple(map(str, range(n))), ("none",) * n, disagreements, dispersions,
        tuple(map(str, range(features.shape[1]))), features, np.zeros((n, len(detector.PROFILE_EDGES) - 1)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("p_attack", "p_novelty", "expected"),
    [
        (0.5, 0.5, Verdict.CLEAN),
        (0.051, 0.051, Verdict.CLEAN),
        (0.05, 0.5, Verdict.SUSPECTED_ATTACK),
        (0.01, 0.01, Verdict.SUSPECTED_ATTACK),
        (0.5, 0.05, Verdict.OUT_OF_DISTRIBUTION),
    ],
)
def test_an_attack_outweighs_novelty(p_attack: float, p_novelty: float, expected: Verdict) -> None:
    assert verdict(p_attack, p_novelty, 0.05) is expected


def _source(volume: Volume, target: NetworkTarget) -> Source:
    return Source(volume, target.grid(volume), target.finest_mm)


def features_of(target: NetworkTarget, volume: Volume) -> dict[str, float]:
    profile = radial_profile(Spectrum.of(volume), detector.PROFILE_EDGES)
    return novelty_features(profile, _source(volume, target), target.probabilities(volume), target)


def test_features_do_not_depend_on_the_units_of_intensity(
    small_target: NetworkTarget, small_heads: list[tuple[str, Volume]]
) -> None:
    volume = small_heads[0][1]
    rescaled = volume.with_voxels(volume.voxels.astype(np.float32) * 0.03 + 17)
    one, other = features_of(small_target, volume), features_of(small_target, rescaled)
    assert list(one) == list(other)
    np.testing.assert_allclose(list(one.values()), list(other.values()), atol=2e-3)


def test_features_tell_of_blur_contrast_and_size(
    small_target: NetworkTarget, small_heads: list[tuple[str, Volume]]
) -> None:
    volume = small_heads[0][1]
    plain = features_of(small_target, volume)
    inverted = features_of(small_target, volume.with_voxels(900 - volume.voxels))
    stretched = features_of(small_target, replace(volume, spacing=(1.65, 1.65, 2.2)))
    assert abs(inverted["bright median"] - plain["bright median"]) > 0.05
    assert stretched["log ml of all"] - plain["log ml of all"] == pytest.approx(3 * np.log(1.1), abs=0.05)
    assert plain["share White"] == pytest.approx(stretched["share White"], abs=0.02)
    fast = next(name for name in reversed(plain) if name.startswith("power"))
    assert stretched[fast] != pytest.approx(plain[fast], abs=0.02)


def test_brightness_tells_contrasts_apart_and_nothing_of_windows(
    small_target: NetworkTarget, small_heads: list[tuple[str, Volume]]
) -> None:
    volume = small_heads[0][1]
    answer = small_target.probabilities(volume)

    def brightness(voxels: np.ndarray) -> np.ndarray:
        return detector._brightness(_source(volume.with_voxels(voxels), small_target), answer)

    plain = brightness(volume.voxels)
    assert np.linalg.norm(plain) == pytest.approx(1) and plain.sum() == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(brightness(volume.voxels.astype(np.float32) * 7 + 100), plain, atol=1e-5)
    np.testing.assert_allclose(brightness(1000 - volume.voxels), -plain, atol=1e-5)
    assert not detector._brightness(_source(volume, small_target), np.zeros_like(answer)).any()


def test_features_of_a_volume_without_the_anatomy_are_finite(small_target: NetworkTarget) -> None:
    noise = Volume(np.random.default_rng(0).normal(0, 1, (24, 24, 24)).astype(np.float32), (2.0, 2.0, 2.0))
    spike = np.zeros((24, 24, 24), np.int16)
    spike[3, 4, 5] = 1000
    for volume in (noise, Volume(spike, (2.0, 2.0, 2.0))):
        assert np.isfinite(list(features_of(small_target, volume).values())).all()
