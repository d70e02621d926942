"""The second opinion: what two targets both draw, and how far the one contradicts the other."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedShieldLib import shifts, terminal
from MedShieldLib.calibration import Calibration, calibrate
from MedShieldLib.clean_rows import Rows
from MedShieldLib.errors import InputError
from MedShieldLib.fusion import Fusion
from MedShieldLib.recalibration import with_second_opinion
from MedShieldLib.second_opinion import EVERYTHING, comparable, contradictions, matches, missed_and_added
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import LowPass, Moved
from MedShieldLib.volume import Structure, Volume

Heads = list[tuple[str, Volume]]
MILD = (shifts.none, shifts.gamma, shifts.bias_field)
FAMILY = (LowPass(0.6), Moved(3, False))


def structures(*names: str) -> tuple[Structure, ...]:
    return tuple(Structure(n, name, (1.0, 1.0, 1.0)) for n, name in enumerate(names, 1))


@pytest.fixture(scope="module")
def second(small_target: NetworkTarget) -> NetworkTarget:
    """The same network with its classes named in another case, on a grid of another size and orientation."""
    return NetworkTarget(
        "second", small_target.network, structures("grey", "WHITE"), "02", (2.5, 2.5, 4.0), "RAI"
    )


@pytest.fixture(scope="module")
def doubted(small_target: NetworkTarget, second: NetworkTarget, small_heads: Heads) -> Calibration:
    return calibrate(small_target, small_heads[:4], FAMILY, augmentations=MILD, second=second, seed=5)


# --- what is compared


def test_structures_are_matched_by_name_whatever_the_case() -> None:
    found = matches(structures("CSF", "Grey matter", "Lesion"), structures("GREY MATTER", "Vessel", "csf"))
    assert found == (("CSF", (1,), (3,)), ("Grey matter", (2,), (1,)))


def test_everything_is_compared_where_no_name_matches() -> None:
    assert matches(structures("CSF", "Grey"), structures("Brain")) == ((EVERYTHING, (1, 2), (1,)),)


def test_a_target_hardly_contradicts_itself_from_another_place_grid_and_orientation(
    small_target: NetworkTarget, second: NetworkTarget, small_heads: Heads
) -> None:
    volume = small_heads[0][1]
    answer = small_target.probabilities(volume)
    found = contradictions(small_target, answer, second, volume, seed=1)
    turned = contradictions(small_target, np.flip(answer, 3), second, volume, seed=1)
    nothing = np.zeros_like(answer)
    nothing[0] = 1
    assert found.shape == (2, 2) and (found < 0.4).all()  # thin grey on cells of 4 mm
    assert (turned > found + 0.08).all()
    missing = contradictions(small_target, nothing, second, volume, seed=1)
    np.testing.assert_allclose(missing, [[1, 0], [1, 0]])


def test_everything_is_the_union_of_structures(small_target: NetworkTarget, small_heads: Heads) -> None:
    class Inside(torch.nn.Module):
        """Grey and white as one structure."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = small_target.network(x)
            return torch.cat([logits[:, :1], logits[:, 1:].logsumexp(1, keepdim=True)], 1)

    union = NetworkTarget("union", Inside(), structures("Head"), "03", small_target.spacing)
    volume = small_heads[0][1]
    answer = small_target.probabilities(volume)
    ((_, ours, theirs),) = matched = matches(small_target.structures, union.structures)
    assert (ours, theirs) == ((1, 2), (1,))
    grid = small_target.grid(volume)
    pair = comparable(
        matched, (torch.from_numpy(answer), grid), (torch.from_numpy(union.probabilities(volume)), grid)
    )
    torch.testing.assert_close(*pair, atol=1e-5, rtol=0)
    assert (contradictions(small_target, answer, union, volume, seed=1) < 0.15).all()


def test_answers_meet_on_the_coarser_grid(
    small_target: NetworkTarget, second: NetworkTarget, small_heads: Heads
) -> None:
    volume = small_heads[0][1]
    sides = [(torch.from_numpy(t.probabilities(volume)), t.grid(volume)) for t in (small_target, second)]
    coarse = min((grid.shape for _, grid in sides), key=math.prod)
    pair = comparable(matches(small_target.structures, second.structures), *sides)
    assert all(x.shape == (2, *coarse) for x in pair)


def test_the_place_is_drawn_by_the_seed(
    small_target: NetworkTarget, second: NetworkTarget, small_heads: Heads
) -> None:
    volume = small_heads[0][1]
    answer = small_target.probabilities(volume)
    found = [
        contradictions(small_target, answer, second, volume, seed)[0, 0] for seed in (1, 1, *range(2, 8))
    ]
    assert found[0] == found[1] and len(set(found)) > 3


def test_what_is_missed_and_what_is_added_are_told_apart() -> None:
    other, answer = torch.zeros(2, 10, 10, 10), torch.zeros(2, 10, 10, 10)
    other[0, :5] = 1
    answer[0, 1:7] = 1  # of 500 cells 100 are missed, of 600 cells 200 are added
    answer[1, 0, 0, :5] = 1  # too few cells to speak of
    found = missed_and_added(answer, other)
    torch.testing.assert_close(found, torch.tensor([[0.2, 1 / 3], [0.0, 0.0]]))


# --- fusion


CLEAN = np.exp(np.random.default_rng(0).normal(0.2, 0.4, 60))
OPINIONS = 0.1 * np.exp(np.random.default_rng(1).normal(0, 0.3, (60, 1, 2)))


def test_a_quiet_second_opinion_leaves_the_instability_as_it_is() -> None:
    fusion = Fusion.fit(CLEAN, OPINIONS)
    assert fusion.fused(1.7, np.array([[0.01, 0.01]])) == 1.7


def test_a_loud_second_opinion_is_heard_beside_a_quiet_instability() -> None:
    fusion = Fusion.fit(CLEAN, OPINIONS)
    assert fusion.fused(0.1, np.array([[0.4, 0.4]])) > fusion.fused(0.1, np.array([[0.3, 0.3]])) > CLEAN.max()


def test_the_maximum_is_that_of_the_standardised_logs() -> None:
    fusion = Fusion.fit(CLEAN, OPINIONS)
    second = fusion.contradiction(OPINIONS)
    standard = [(np.log(x) - np.log(x).mean()) / np.log(x).std() for x in (CLEAN, second)]
    expected = np.exp(np.log(CLEAN).mean() + np.log(CLEAN).std() * np.maximum(*standard))
    np.testing.assert_allclose(fusion.fused(CLEAN, OPINIONS), expected)


def test_targets_that_always_or_never_contradict_each_other_alike_give_finite_scores() -> None:
    for level in (0.0, 0.3):
        fusion = Fusion.fit(CLEAN, np.full((60, 1, 2), level))
        assert np.isfinite(fusion.fused(1.0, np.array([[[0.0, 0.0]], [[level, 1.0]], [[1.0, 1.0]]]))).all()
        assert fusion.fused(CLEAN.mean(), np.array([[level, level]])) < CLEAN.max()


# --- calibration


def test_a_second_opinion_leaves_all_else_of_a_calibration_as_it_is(
    small_target: NetworkTarget, small_heads: Heads, doubted: Calibration
) -> None:
    alone = calibrate(small_target, small_heads[:4], FAMILY, augmentations=MILD, seed=5)
    assert alone.second is None and doubted.second is not None
    assert replace(doubted, second=None).sha256 == alone.sha256 != doubted.sha256
    assert doubted.second.contradictions.shape == (12, 2, 2)
    assert doubted.second.structures == ("Grey", "White")
    assert (doubted.second.target_name, doubted.second.target_sha256) == ("second", "02")
    np.testing.assert_array_equal(doubted.instability, alone.instability)


def test_a_second_opinion_is_saved_and_read_back(doubted: Calibration, tmp_path) -> None:
    loaded = Calibration.load(doubted.save(tmp_path / "c.json"))
    assert loaded.sha256 == doubted.sha256
    np.testing.assert_array_equal(loaded.fused, doubted.fused)
    alone = replace(doubted, second=None).save(tmp_path / "alone.json")
    assert "second" not in alone.read_text()


@pytest.mark.parametrize(
    "damage",
    [
        lambda second: replace(second, contradictions=second.contradictions[:-1]),
        lambda second: replace(second, structures=("Grey",)),
        lambda second: replace(second, contradictions=np.full_like(second.contradictions, np.nan)),
        lambda second: replace(second, structures=(), contradictions=second.contradictions[:, :0]),
    ],
)
def test_a_damaged_second_opinion_is_refused(doubted: Calibration, damage, tmp_path) -> None:
    path = replace(doubted, second=damage(doubted.second)).save(tmp_path / "damaged.json")
    with pytest.raises(InputError, match="damaged.json is not a MedShield calibration"):
        Calibration.load(path)


def test_clean_fused_scores_are_on_scales_that_never_saw_their_subject(doubted: Calibration) -> None:
    mine = np.array([subject == "head 2" for subject in doubted.subjects])
    moved = doubted.second.contradictions.copy()
    moved[mine] *= 3
    changed = replace(doubted, second=replace(doubted.second, contradictions=moved))
    np.testing.assert_allclose(changed.contradiction[mine], 3 * doubted.contradiction[mine])
    assert (changed.fused[mine] > doubted.fused[mine]).any()
    assert (changed.fused[mine] >= doubted.fused[mine]).all()


def test_a_quick_calibration_keeps_its_second_opinion(doubted: Calibration) -> None:
    assert doubted.limited(2).second is doubted.second


def test_an_opinion_added_later_is_the_one_asked_at_once(
    small_target: NetworkTarget, second: NetworkTarget, small_heads: Heads, doubted: Calibration
) -> None:
    alone = replace(doubted, second=None)
    added = with_second_opinion(
        alone, Rows(small_target, small_heads[:4], augmentations=MILD, seed=5), second
    )
    assert added.sha256 == doubted.sha256


def test_stand_ins_give_the_answers_that_are_contradicted(
    small_target: NetworkTarget, second: NetworkTarget, small_heads: Heads
) -> None:
    coarse = NetworkTarget("coarse", small_target.network, small_target.structures, "01", (4.0, 4.0, 4.0))
    how = {"augmentations": MILD, "stand_ins": {"head 1": coarse}}
    heads = small_heads[:2]
    at_once = calibrate(small_target, heads, FAMILY, second=second, **how)
    alone = replace(at_once, second=None)
    assert with_second_opinion(alone, Rows(small_target, heads, **how), second).sha256 == at_once.sha256
    # They are not always kept: then the target answers for itself, and nothing but the opinion differs.
    by_itself = with_second_opinion(alone, Rows(small_target, heads, augmentations=MILD), second)
    assert by_itself.sha256 != at_once.sha256 and replace(by_itself, second=None).sha256 == alone.sha256


def test_other_volumes_and_other_seeds_are_refused(
    small_target: NetworkTarget, second: NetworkTarget, small_heads: Heads, doubted: Calibration
) -> None:
    renamed = [(name, small_heads[4][1]) for name, _ in small_heads[:4]]
    for heads, seed in ((small_heads[:3], 5), (renamed, 5), (small_heads[:4], 6)):
        with pytest.raises(InputError) as error:
            with_second_opinion(doubted, Rows(small_target, heads, augmentations=MILD, seed=seed), second)
        message = str(error.value)
        assert "give the" in message and message.endswith(".") and "\n" not in message


def test_only_the_target_that_was_asked_can_be_asked_again(
    doubted: Calibration, second: NetworkTarget, small_target: NetworkTarget
) -> None:
    doubted.require_second(second)
    retrained = NetworkTarget("second", second.network, second.structures, "99", second.spacing)
    for calibration, asked in ((doubted, retrained), (replace(doubted, second=None), second)):
        with pytest.raises(InputError, match="medshield calibrate --second-opinion"):
            calibration.require_second(asked)


# --- what who calibrates is told


def test_who_calibrates_reads_how_far_the_two_contradict_each_other(
    doubted: Calibration, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doubted.second is not None
    (missed, added), _ = doubted.second.contradictions.mean(0)
    terminal.show_calibration(doubted, tmp_path / "c.json")
    shown = " ".join(capsys.readouterr().out.split())
    assert f"second on Grey (misses {missed:.2f}, adds {added:.2f}), White" in shown
    assert shown.endswith("c.json")


@pytest.mark.parametrize("apart", [0.0, 0.049, 0.051, 0.12])
def test_a_second_target_that_differs_as_it_is_is_doubted(doubted: Calibration, apart: float) -> None:
    assert doubted.second is not None
    usual = np.zeros_like(doubted.second.contradictions)
    usual[:, 1, 0] = apart
    sentence = replace(doubted.second, contradictions=usual).support()
    assert (sentence is None) == (apart < 0.05)
    if sentence:
        assert f"'second' contradicts the target by {apart:.0%} of White." in sentence


def test_the_doubt_is_shown(doubted: Calibration, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doubted.second is not None
    far = replace(doubted.second, contradictions=doubted.second.contradictions + 0.2)
    terminal.show_calibration(replace(doubted, second=far), tmp_path / "c.json")
    assert "Note: On clean volumes 'second' contradicts" in " ".join(capsys.readouterr().out.split())
