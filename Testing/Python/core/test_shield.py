"""The shield from Python: what a check promises, on a small real target with a calibration of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from MedShieldLib import Shield, Volume, shifts
from MedShieldLib.attacks import load_attack
from MedShieldLib.calibration import Calibration
from MedShieldLib.clean_rows import Rows
from MedShieldLib.converter import intensity_range
from MedShieldLib.detector import p_attack, unexplained
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.evaluation.defence import Asked
from MedShieldLib.evaluation.metrics import mean_dice
from MedShieldLib.export.folder import load_result
from MedShieldLib.observation import observe
from MedShieldLib.recalibration import with_second_opinion
from MedShieldLib.reformer import repaired, standing_alone
from MedShieldLib.result import CheckResult, Verdict
from MedShieldLib.targets import load_target
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import MOST_CHANGE


@pytest.fixture(scope="module")
def shield(small_target: NetworkTarget, small_calibration: Calibration) -> Shield:
    # the rate that four subjects support
    return Shield(small_target, small_calibration, alpha=0.2, seed=3)


@pytest.fixture(scope="module")
def unseen(small_heads: list[tuple[str, Volume]]) -> Volume:
    """The head that the calibration has not seen."""
    return small_heads[4][1]


@pytest.fixture(scope="module")
def clean(shield: Shield, unseen: Volume) -> CheckResult:
    return shield.check_and_segment(unseen)


@pytest.fixture(scope="module")
def attacked(shield: Shield, small_target: NetworkTarget, unseen: Volume) -> CheckResult:
    bent = load_attack("pgd", steps=15)(small_target, unseen, 40 / 255, seed=1).volume
    return shield.check_and_segment(bent)


def test_a_clean_volume_keeps_its_segmentation_bit_for_bit(clean: CheckResult, unseen: Volume) -> None:
    assert clean.verdict is Verdict.CLEAN and clean.p_attack > clean.alpha
    np.testing.assert_array_equal(clean.defended.labels, clean.original.labels)
    assert all(s.dice == 1 for s in clean.structures)
    assert clean.volume is unseen


def test_an_attacked_volume_is_suspected_and_gets_the_vote_of_the_versions(
    clean: CheckResult, attacked: CheckResult
) -> None:
    # That the vote also mends is shown with the reference target in test_cli.py: a target without context
    # offers nothing to mend by.
    assert mean_dice(attacked.original, clean.original) < 0.9
    assert attacked.verdict is Verdict.SUSPECTED_ATTACK and attacked.p_attack <= attacked.alpha
    assert (attacked.defended.labels != attacked.original.labels).any()


def test_what_is_recommended_is_the_repair_as_far_as_clean_volumes_do_not_explain(
    shield: Shield, attacked: CheckResult, unseen: Volume
) -> None:
    """Beyond the vote only for an attacked volume; a clean one gets the vote, were it not for the gate."""
    always = Shield(shield.target, shield.calibration, alpha=1 - 1e-9, seed=shield.seed)
    for volume, goes_on in ((unseen, False), (attacked.volume, True)):
        seen = observe(shield.target, volume, shield.calibration.versions, seed=3)
        share = unexplained(always.attack_score(seen), shield.clean_scores)
        assert (share > 0) == goes_on
        where = standing_alone(seen.vote, seen.answer, seen.scatter, share)
        expected = shield.target.labelmap(repaired(seen.vote, seen.answer, where, share), volume)
        np.testing.assert_array_equal(always.check_and_segment(volume).defended.labels, expected)


def test_an_alarm_costs_no_further_inference(shield: Shield, attacked: CheckResult, unseen: Volume) -> None:
    for volume in (unseen, attacked.volume):
        counting = Asked(shield.target)
        Shield(counting, shield.calibration, alpha=shield.alpha, seed=shield.seed).check_and_segment(volume)
        assert counting.extra == 1 + len(shield.calibration.versions)


def test_everything_lies_on_the_voxels_of_the_input(attacked: CheckResult, unseen: Volume) -> None:
    for volume in (attacked.heatmap, attacked.reformed, attacked.original.volume, attacked.defended.volume):
        assert volume.voxels.shape == unseen.voxels.shape
        assert (volume.spacing, volume.origin, volume.direction) == (
            unseen.spacing,
            unseen.origin,
            unseen.direction,
        )
    heat = attacked.heatmap.voxels
    assert heat.dtype == np.float32 and heat.min() >= 0 and 0 < heat.max() <= 1
    assert attacked.input_sha256 == attacked.volume.sha256()


def test_the_reformed_volume_differs_but_by_no_more_than_an_attack_may(
    attacked: CheckResult, unseen: Volume
) -> None:
    low, high = intensity_range(attacked.volume.voxels)
    change = np.abs(attacked.reformed.voxels - attacked.volume.voxels).max() / (high - low)
    assert 0.9 * MOST_CHANGE < change < MOST_CHANGE + 1e-4


def test_the_heatmap_is_hotter_under_attack(clean: CheckResult, attacked: CheckResult) -> None:
    assert attacked.heatmap.voxels.mean() > 1.3 * clean.heatmap.voxels.mean()


def test_one_seed_gives_one_result_and_no_seed_gives_another_draw(
    shield: Shield,
    small_target: NetworkTarget,
    small_calibration: Calibration,
    unseen: Volume,
    clean: CheckResult,
) -> None:
    again = shield.check_and_segment(unseen)
    np.testing.assert_array_equal(again.reformed.voxels, clean.reformed.voxels)
    assert again.evidence[0].value == clean.evidence[0].value
    secret = Shield(small_target, small_calibration)
    first, second = (secret.check_and_segment(unseen) for _ in range(2))
    assert first.seed != second.seed
    assert (first.reformed.voxels != second.reformed.voxels).any()


def test_the_input_is_not_changed(shield: Shield, unseen: Volume) -> None:
    before = unseen.voxels.copy()
    shield.check_and_segment(unseen)
    np.testing.assert_array_equal(unseen.voxels, before)


def test_evidence_names_its_place_among_clean_volumes(clean: CheckResult, shield: Shield) -> None:
    names = [item.name for item in clean.evidence]
    assert names[:2] == ["instability", "novelty"]
    assert set(shield.calibration.feature_names) < set(names)
    for item in clean.evidence:
        assert np.isfinite(item.value) and 0 <= item.percentile <= 100


def test_progress_rises_to_one_and_names_its_steps(shield: Shield, unseen: Volume) -> None:
    told: list[tuple[float, str]] = []
    shield.check_and_segment(unseen, progress=lambda fraction, step: told.append((fraction, step)))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[0] >= 0 and fractions[-1] == 1
    assert len({step for _, step in told}) >= len(shield.calibration.versions)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_cancelling_stops_before_the_next_inference(shield: Shield, unseen: Volume, after: int) -> None:
    steps: list[str] = []
    with pytest.raises(Cancelled):
        shield.check_and_segment(
            unseen, lambda fraction, step: steps.append(step), lambda: len(steps) >= after
        )
    assert len(steps) == after


@pytest.mark.parametrize("versions", [2, 3, None])
def test_a_shield_asks_once_and_once_for_each_version(
    small_target: NetworkTarget, small_calibration: Calibration, unseen: Volume, versions: int | None
) -> None:
    steps: list[str] = []
    shield = Shield.for_target(small_target, small_calibration, versions=versions, seed=1)
    result = shield.check_and_segment(unseen, lambda fraction, step: steps.append(step))
    asked = versions or len(small_calibration.versions)
    assert sum("Segmenting" in step for step in steps) == 1 + asked
    assert sum(item.name.endswith(" version") for item in result.evidence) == asked
    assert 0 < result.p_attack <= 1


def test_negative_seed_is_refused(small_target: NetworkTarget, small_calibration: Calibration) -> None:
    with pytest.raises(InputError, match="seed is -1"):
        Shield(small_target, small_calibration, seed=-1)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 7, float("nan")])
def test_an_impossible_alarm_rate_is_refused(
    small_target: NetworkTarget, small_calibration: Calibration, alpha: float
) -> None:
    with pytest.raises(InputError, match="alarm rate alpha"):
        Shield(small_target, small_calibration, alpha=alpha)


def test_a_calibration_with_other_features_is_refused_in_one_sentence(
    small_target: NetworkTarget, small_calibration: Calibration, unseen: Volume
) -> None:
    other = replace(small_calibration, feature_names=("x", *small_calibration.feature_names[1:]))
    with pytest.raises(InputError, match="medshield calibrate"):
        Shield(small_target, other).check_and_segment(unseen)


def test_features_are_matched_by_name_and_not_by_place(
    small_target: NetworkTarget, small_calibration: Calibration, unseen: Volume, clean: CheckResult
) -> None:
    turned = replace(
        small_calibration,
        feature_names=small_calibration.feature_names[::-1],
        features=small_calibration.features[:, ::-1],
    )
    found = Shield(small_target, turned, alpha=0.2, seed=3).check_and_segment(unseen)
    assert found.evidence[1].value == pytest.approx(clean.evidence[1].value, rel=1e-6)


def test_what_cannot_be_checked_is_refused_before_any_inference(shield: Shield, unseen: Volume) -> None:
    steps: list[str] = []
    with pytest.raises(InputError):
        shield.check_and_segment(
            unseen.with_voxels(np.zeros_like(unseen.voxels)), lambda fraction, step: steps.append(step)
        )
    assert not steps


def test_a_saved_result_can_be_loaded_again(attacked: CheckResult, tmp_path) -> None:
    attacked.save(tmp_path / "out")
    again = load_result(tmp_path / "out")
    assert again.verdict is attacked.verdict and again.p_attack == attacked.p_attack
    np.testing.assert_array_equal(again.defended.labels, attacked.defended.labels)
    with pytest.raises(InputError, match="force"):
        attacked.save(tmp_path / "out")


@pytest.fixture(scope="module")
def second(small_target: NetworkTarget) -> NetworkTarget:
    """Another target: the attacks on the first one do not know its grid."""
    return NetworkTarget("second", small_target.network, small_target.structures, "02", (2.5, 2.5, 4.0))


@pytest.fixture(scope="module")
def doubting(
    small_target: NetworkTarget,
    small_heads: list[tuple[str, Volume]],
    small_calibration: Calibration,
    second: NetworkTarget,
) -> Shield:
    """The shield with a second opinion."""
    mild = (shifts.none, shifts.gamma, shifts.bias_field, shifts.eight_bit)
    rows = Rows(small_target, small_heads[:4], augmentations=mild, seed=5)
    calibration = with_second_opinion(small_calibration, rows, second)
    return Shield(small_target, calibration, alpha=0.2, seed=3, second=second)


def test_a_second_opinion_changes_the_attack_score_and_nothing_else(
    doubting: Shield, unseen: Volume, clean: CheckResult
) -> None:
    found = doubting.check_and_segment(unseen)
    assert found.verdict is Verdict.CLEAN and found.p_novelty == clean.p_novelty
    np.testing.assert_array_equal(found.original.labels, clean.original.labels)
    np.testing.assert_array_equal(found.reformed.voxels, clean.reformed.voxels)
    items = {item.name: item for item in found.evidence}
    assert items["instability"].value == clean.evidence[0].value
    assert items["second opinion"].kind == "instability" and items["second opinion"].value > 0
    score, calibration = found.evidence[0], doubting.calibration
    assert score.value >= items["instability"].value
    assert found.p_attack == p_attack(score.value, calibration.fused, calibration.subjects)
    assert found.second is not None and found.second.name == "second" and clean.second is None


def test_a_wrong_answer_that_no_version_contradicts_is_contradicted_by_the_second_target(
    doubting: Shield, small_target: NetworkTarget, second: NetworkTarget, unseen: Volume
) -> None:
    """Wrong but stable at its simplest: a target that misses what is white, whatever it is shown."""

    class Blind(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return small_target.network(x) - torch.tensor([0.0, 0.0, 1e3]).reshape(1, 3, 1, 1, 1)

    blind = NetworkTarget(
        small_target.name, Blind(), small_target.structures, small_target.sha256, (3.0,) * 3
    )
    alone = Shield(blind, doubting.calibration, alpha=0.2, seed=3).check_and_segment(unseen)
    both = Shield(blind, doubting.calibration, alpha=0.2, seed=3, second=second).check_and_segment(unseen)
    assert alone.p_attack > 0.2 >= both.p_attack
    assert both.verdict is Verdict.SUSPECTED_ATTACK


def test_without_a_second_target_a_calibration_that_knows_one_works_as_ever(
    doubting: Shield, small_target: NetworkTarget, unseen: Volume, clean: CheckResult
) -> None:
    found = Shield(small_target, doubting.calibration, alpha=0.2, seed=3).check_and_segment(unseen)
    assert (found.p_attack, found.p_novelty) == (clean.p_attack, clean.p_novelty)
    assert [item.name for item in found.evidence] == [item.name for item in clean.evidence]


def test_a_second_target_that_the_calibration_does_not_know_is_refused(
    small_target: NetworkTarget, small_calibration: Calibration, second: NetworkTarget
) -> None:
    with pytest.raises(InputError, match="no second opinion of the 'second' given") as error:
        Shield.for_target(small_target, small_calibration, second=second)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_a_quick_shield_with_a_second_opinion_asks_four_times(
    doubting: Shield, small_target: NetworkTarget, second: NetworkTarget, unseen: Volume
) -> None:
    steps: list[str] = []
    quick = Shield.for_target(small_target, doubting.calibration, versions=2, seed=1, second=second)
    quick.check_and_segment(unseen, lambda fraction, step: steps.append(step))
    assert sum("Segmenting" in step for step in steps) == 4
    assert sum("second opinion (second)" in step for step in steps) == 1


def test_a_second_opinion_is_kept_with_the_result(doubting: Shield, unseen: Volume, tmp_path) -> None:
    found = doubting.check_and_segment(unseen)
    found.save(tmp_path / "out")
    again = load_result(tmp_path / "out")
    assert again.second == found.second
    assert [item.name for item in again.evidence] == [item.name for item in found.evidence]


def test_the_documented_lines_work(mni_2mm: Volume, tmp_path) -> None:
    path = tmp_path / "a head, geöffnet.nii.gz"
    mni_2mm.write(path)
    target = load_target("brain-tissue")
    result = Shield.for_target(target).check_and_segment(Volume.read(path))
    assert result.verdict in Verdict and 0 < result.p_attack <= 1 and 0 < result.p_novelty <= 1
    assert result.original.labels.shape == mni_2mm.voxels.shape
    x = target.window(mni_2mm)
    assert x.min() >= 0 and x.max() <= 1 and target.logits(x).shape == (1, 4, *x.shape[2:])
    moved = (x + 8 / 255 * x.sign()).clamp(0, 1)
    assert target.unwindow(moved, mni_2mm).voxels.shape == mni_2mm.voxels.shape
