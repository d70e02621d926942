"""What every attack must keep: its bound, its seed, its promises; and the sanity checks of the literature."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedShieldLib.attacks import ATTACKS, load_attack
from MedShieldLib.attacks.apgd import APGD, _Watch
from MedShieldLib.attacks.asma import overlap
from MedShieldLib.attacks.base import Attack, Case, require_room, window_width
from MedShieldLib.attacks.goals import Goal, goal_labels
from MedShieldLib.attacks.losses import Loss, Reference, cross_entropy, mean_dice
from MedShieldLib.attacks.patch import mass_of_cubes
from MedShieldLib.attacks.pgd import PGD
from MedShieldLib.attacks.square import Square
from MedShieldLib.attacks.transfer import Transfer
from MedShieldLib.attacks.universal import Universal
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.targets.window import Window
from MedShieldLib.volume import Volume

_spec = importlib.util.spec_from_file_location("attack_toys", Path(__file__).with_name("attack_toys.py"))
toys = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toys)

EPS = 8 / 255
ALONE = [name for name in ATTACKS if name not in ("universal", "transfer")]
WHITE_BOX = ["fgsm", "bim", "pgd", "segpgd", "cospgd", "apgd", "sea"]


def small(name: str, **parameters) -> Attack:
    """An attack with few steps; the two that need more than a name get it."""
    if name == "universal":
        target = toys.target_of(toys.Sharpening())
        return Universal.fit(target, [toys.head(seed=7), toys.head(seed=8)], EPS, epochs=4)
    if name == "transfer":
        return Transfer(toys.target_of(toys.Sharpening(strength=4.0)), PGD(steps=6))
    attack = load_attack(name, **parameters)
    few = {"steps": 6} if hasattr(attack, "steps") else {"queries": 30} if hasattr(attack, "queries") else {}
    return replace(attack, **{**few, **parameters})


def dice_after(attack: Attack, target, volume, eps: float, seed: int = 0) -> float:
    return 1 - attack(target, volume, eps, seed=seed).dice_drop


@pytest.mark.parametrize("name", ATTACKS)
def test_result_stays_within_the_bound_and_says_how_far_it_went(name):
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    result = small(name)(target, volume, EPS)
    change = np.abs(result.volume.voxels.astype(float) - volume.voxels.astype(float)) / 1000
    assert 0 < change.max() <= EPS
    assert result.linf == pytest.approx(change.max(), rel=1e-4)
    assert result.l2 == pytest.approx(np.linalg.norm(change), rel=1e-3)
    assert result.ssim < 1 and set(result.dice) == {1, 2} and result.seconds > 0
    assert result.volume.spacing == volume.spacing and result.volume.voxels.dtype == volume.voxels.dtype
    labels = [torch.from_numpy(target.labelmap(target.probabilities(v), v)) for v in (result.volume, volume)]
    assert 1 - result.dice_drop == pytest.approx(mean_dice(*labels))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("spacing", [1.0, 2.0, 3.3])
def test_bound_outlives_every_data_type_and_grid(dtype, spacing):
    target = toys.target_of(toys.Sharpening(), divisor=4)
    target.window_rule = Window(1, 99)
    volume = toys.head(dtype=dtype, spacing=spacing)
    result = PGD(steps=3)(target, volume, EPS)
    change = np.abs(result.volume.voxels.astype(float) - volume.voxels.astype(float)).max()
    low, high = np.percentile(target.grid(volume).to_grid(volume.voxels), [1, 99])
    assert 0 < change <= EPS * (high - low) * (1 + 1e-6)
    assert result.volume.voxels.dtype == dtype


def test_whole_intensities_use_the_whole_bound():
    target, volume = toys.target_of(toys.Pointwise(), classes=2), toys.head(dtype="int16")
    result = PGD(steps=3)(target, volume, 0.002)  # exactly 2 intensities
    assert np.abs(result.volume.voxels - volume.voxels).max() == 2


def test_bound_below_one_grey_level_is_refused_for_whole_numbers_only():
    target, volume = toys.target_of(toys.Pointwise(), classes=2), toys.head(dtype="int16")
    level = 1 / window_width(target, volume)
    require_room(target, volume, level)
    require_room(target, volume.with_voxels(volume.voxels.astype(np.float32)), 0.9 * level)
    with pytest.raises(InputError, match="one grey level is .*float32"):
        require_room(target, volume, 0.9 * level)


def test_window_width_is_found_without_being_told():
    volume = toys.head(dtype="int16", spacing=1.0)
    assert window_width(toys.target_of(toys.Sharpening()), volume) == pytest.approx(1000, rel=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("spacing", [0.75, 1.1, 2.0])
def test_what_was_found_is_what_is_written(dtype, spacing):
    target, volume = toys.target_of(toys.Sharpening()), toys.head(20, dtype=dtype, spacing=spacing)
    target.window_rule = Window(1, 99)
    case = Case.of(target, volume, EPS, torch.Generator().manual_seed(0))
    best = PGD(steps=5).perturb(case)
    answer = target.logits(target.window(case.written(best))).argmax(1)
    assert mean_dice(answer, case.reference.labels) == pytest.approx(case.best_score) and case.best_score < 1


@pytest.mark.parametrize("name", ATTACKS)
def test_seed_decides(name):
    target, volume = toys.target_of(toys.Sharpening()), toys.head(12)
    attack = small(name)
    first, again = (attack(target, volume, EPS, seed=3).volume.voxels for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("name", ["pgd", "apgd", "square", "vafa", "sa2", "low-frequency", "local-patch"])
def test_another_seed_gives_another_result(name):
    target, volume = toys.target_of(toys.Sharpening()), toys.head(12)
    first, other = (small(name)(target, volume, EPS, seed=seed).volume.voxels for seed in (3, 4))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", WHITE_BOX)
def test_optimum_is_reached_where_it_is_known(name):
    target, volume = toys.target_of(toys.Pointwise(), classes=2), toys.head()
    eps, unit = 0.1, volume.voxels / 1000
    clean = unit > 0.5
    # The worst answer flips every voxel that eps can push over one half.
    worst = clean ^ (np.abs(unit - 0.5) < eps)
    optimum = 2 * np.count_nonzero(clean & worst) / (np.count_nonzero(clean) + np.count_nonzero(worst))
    reached = dice_after(small(name, **({} if name == "fgsm" else {"steps": 12})), target, volume, eps)
    assert 0.2 < optimum < 0.9
    assert reached == pytest.approx(optimum, abs=0.01)


@pytest.mark.parametrize("name", ["bim", "pgd"])
def test_iterating_beats_one_step(name):
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    assert dice_after(small(name, steps=20), target, volume, EPS) <= dice_after(
        small("fgsm"), target, volume, EPS
    )


@pytest.mark.parametrize("name", ["pgd", "sea", "dag", "square"])
def test_larger_bound_never_helps_the_defence(name):
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    scores = [dice_after(small(name), target, volume, eps / 255) for eps in (1, 2, 4, 8, 16)]
    assert all(later <= earlier + 0.01 for earlier, later in zip(scores, scores[1:], strict=False))


@pytest.mark.parametrize(
    "name", ["bim", "pgd", "segpgd", "cospgd", "apgd", "sea", "dag", "asma", "vafa", "sa2", "low-frequency"]
)
def test_more_steps_never_help_the_defence(name):
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    scores = [dice_after(small(name, steps=steps), target, volume, EPS) for steps in (2, 8, 32)]
    assert scores[1] <= scores[0] + 0.01 and scores[2] <= scores[1] + 0.01


def test_more_restarts_never_help_the_defence():
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    once, thrice = (dice_after(PGD(steps=4, restarts=n), target, volume, EPS) for n in (1, 3))
    assert thrice <= once


def test_unbounded_attack_leaves_nothing():
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    assert dice_after(PGD(steps=20), target, volume, 1.0) < 0.02


def test_black_box_never_beats_white_box():
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    white = dice_after(PGD(steps=20), target, volume, EPS)
    black = dice_after(load_attack("square", queries=200), target, volume, EPS)
    assert white < black < 1


def test_transferred_attack_never_beats_the_direct_one_and_never_asks_the_target():
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    transferred = small("transfer")(target, volume, EPS)
    assert transferred.passes == 0
    assert 0.05 < transferred.dice_drop <= small("pgd")(target, volume, EPS).dice_drop + 0.01


@pytest.mark.parametrize("width", [500, 1000, 2000])
def test_transferred_attack_is_searched_within_the_targets_bound(width, monkeypatch):
    surrogate, searched = toys.target_of(toys.Sharpening()), []
    surrogate.window_rule = Window(0, width, fixed=True)
    perturb = PGD.perturb

    def watched(attack, case):
        searched.append(case.eps * case.width)
        return perturb(attack, case)

    monkeypatch.setattr(PGD, "perturb", watched)
    result = Transfer(surrogate, PGD(steps=2))(toys.target_of(toys.Sharpening()), toys.head(12), EPS)
    assert searched == [pytest.approx(EPS * 1000, rel=1e-4)]
    assert result.linf == pytest.approx(EPS, rel=1e-3)


def test_universal_pattern_harms_a_volume_that_it_was_not_fitted_on():
    target, volume = toys.target_of(toys.Striped()), toys.head(seed=3)
    attack = Universal.fit(target, [toys.head(seed=7), toys.head(seed=8)], EPS)
    noise = replace(attack, pattern=torch.randn(attack.pattern.shape).sign())
    assert attack(target, volume, EPS).dice_drop > 2 * noise(target, volume, EPS).dice_drop


def test_universal_pattern_is_the_best_met_and_not_the_last():
    target, volumes = toys.target_of(toys.Striped()), [toys.head(seed=7), toys.head(seed=8)]
    # Downhill, so that where the search ends is worse than where it began.
    start = Universal.fit(target, volumes, EPS, epochs=1, step_size=0)
    found = Universal.fit(target, volumes, EPS, epochs=6, step_size=-1)
    before, after = (np.mean([dice_after(a, target, v, EPS) for v in volumes]) for a in (start, found))
    assert after <= before


def test_longer_fitting_of_a_universal_pattern_harms_more():
    target, volumes = toys.target_of(toys.Striped()), [toys.head(seed=7), toys.head(seed=8)]
    short, long = (Universal.fit(target, volumes, EPS, epochs=epochs) for epochs in (2, 30))
    dice = [
        np.mean([dice_after(attack, target, volume, EPS) for volume in volumes]) for attack in (short, long)
    ]
    assert dice[1] < dice[0]


@pytest.mark.parametrize(
    ("query", "halvings"), [(0, 0), (1, 1), (10, 2), (11, 3), (25, 3), (26, 4), (50, 4), (450, 9)]
)
def test_cubes_of_square_shrink_when_the_paper_says(query, halvings):
    """With a twentieth of its 10 000 queries, all is twenty times as early (Andriushchenko et al. 2020)."""
    case = Case.of(toys.target_of(toys.Sharpening()), toys.head(24), EPS, torch.Generator().manual_seed(0))
    changed = Square(queries=500)._with_cube(case, torch.zeros_like(case.x), query)
    edge = round((0.3 / 2**halvings * changed.numel()) ** (1 / 3))
    assert int((changed != 0).sum()) == edge**3


def test_universal_pattern_is_laid_on_volumes_of_other_sizes():
    target, attack = toys.target_of(toys.Sharpening()), small("universal")
    assert attack(target, toys.head(16), EPS).dice_drop > 0 < attack(target, toys.head(24), EPS).dice_drop


def test_best_iterate_counts_and_not_the_last():
    target, volume = toys.target_of(toys.Sharpening()), toys.head(12)
    case = Case.of(target, volume, EPS, torch.Generator().manual_seed(0))
    found = case.project(case.x + EPS * case.uniform(case.x.shape))
    case.look(found)
    case.look(case.x)
    assert torch.equal(case.best, found) and case.best_score < 1


def test_input_outside_the_bound_is_never_the_best():
    target, volume = toys.target_of(toys.Sharpening()), toys.head(12)
    case = Case.of(target, volume, EPS, torch.Generator().manual_seed(0))
    case.look(1 - case.x)
    assert torch.equal(case.best, case.x) and case.last_score < 0.9


@pytest.mark.parametrize("loss", list(Loss))
def test_apgd_hands_on_the_lowest_dice_and_returns_to_the_highest_cross_entropy(loss, monkeypatch):
    """Judged by a masked loss, which falls as voxels turn, both would be the least harmful iterates."""
    case = Case.of(toys.target_of(toys.Sharpening()), toys.head(), EPS, torch.Generator().manual_seed(0))
    seen, entropies, scores, returns = [], [], [], []
    gradient_of = case.gradient

    def watched(z, *losses, **more):
        answer = gradient_of(z, *losses, **more)
        seen.append(z)
        scores.append(case.last_score)
        entropies.append(float(cross_entropy(case.logits(z), case.reference)))
        return answer

    def stuck(self, step, value, best):
        returns.append(best)
        assert value == pytest.approx(entropies[-1]) and best == pytest.approx(max(entropies))
        return True

    monkeypatch.setattr(case, "gradient", watched)
    monkeypatch.setattr(_Watch, "stuck", stuck)
    handed_on = APGD(loss=loss)._climb(case, case.project(case.x + 1), 1.0, steps=8)
    assert len(returns) == 8
    assert torch.equal(handed_on, seen[int(np.argmin(scores))])


@pytest.mark.parametrize(
    "steps, checkpoints",
    # 100 is the example of Croce and Hein (2020); of 30, whole numbers are rounded down.
    [(100, [22, 41, 57, 70, 80, 87, 93, 99]), (30, [6, 11, 15, 18, 20, *range(21, 31)])],
)
def test_apgd_looks_at_its_steps_when_the_paper_does(steps, checkpoints):
    watch = _Watch(steps, value=0.0)
    assert [step for step in range(1, steps + 1) if watch.stuck(step, 0.0, 0.0)] == checkpoints


def test_local_patch_changes_one_cube_only():
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    changed = np.argwhere(small("local-patch", edge=0.3)(target, volume, EPS).volume.voxels != volume.voxels)
    assert (changed.max(0) - changed.min(0)).max() < 0.3 * 20


def test_mass_of_cubes_is_the_mean_of_each():
    x = torch.rand(1, 1, 9, 7, 8, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(mass_of_cubes(x, 4), torch.nn.functional.avg_pool3d(x, 4, 1), rtol=1e-5)


def test_low_frequency_attack_has_no_fine_detail():
    target, volume = toys.target_of(toys.Sharpening()), toys.head(32)
    result = small("low-frequency", distance_mm=16)(target, volume, EPS)
    inside = (slice(4, -4),) * 3  # away from where [0, 1] clips the change
    taper = np.hanning(24)[:, None, None] * np.hanning(24)[:, None] * np.hanning(24)
    change = (result.volume.voxels - volume.voxels)[inside] * taper
    power = np.abs(np.fft.fftn(change)) ** 2
    fine = sum(np.abs(np.fft.fftfreq(24)[:, None, None].swapaxes(0, axis)) > 0.25 for axis in range(3)) > 0
    assert power[fine].sum() < 0.01 * power.sum()


def test_bias_field_changes_in_proportion_to_the_intensity():
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    for amplitude in (1, 3):
        result = small("bias-field", amplitude=amplitude)(target, volume, EPS)
        change = np.abs(result.volume.voxels - volume.voxels)
        assert (change <= amplitude * EPS * volume.voxels + 1e-3).all() and change.max() > 0.5 * EPS * 1000


def test_bias_field_uses_the_bound_in_grey_tissue_too():
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    grey = (volume.voxels > 400) & (volume.voxels < 600)
    change = np.abs(small("bias-field")(target, volume, EPS).volume.voxels - volume.voxels)
    assert change[grey].max() > 0.9 * EPS * 1000
    assert dice_after(small("bias-field"), target, volume, EPS) < dice_after(
        small("bias-field", amplitude=1.0), target, volume, EPS
    )


def test_spectral_attacks_leave_empty_blocks_empty():
    target, volume = toys.target_of(toys.Sharpening()), toys.head(24)
    empty = volume.voxels.copy()
    empty[:8, :8, :8] = 0
    for name in ("sa2", "vafa"):
        result = small(name)(target, volume.with_voxels(empty), EPS)
        np.testing.assert_array_equal(result.volume.voxels[:8, :8, :8], 0)


@pytest.mark.parametrize("goal", [Goal.RUNNER_UP, Goal.PERMUTED, Goal.BACKGROUND])
def test_dag_harms_with_every_goal(goal):
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    assert small("dag", goal=goal, steps=20)(target, volume, EPS).dice_drop > 0.05


@pytest.mark.parametrize("goal", list(Goal))
def test_goals_differ_from_the_clean_answer(goal):
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    reference = Reference(target.logits(target.window(volume)))
    labels = goal_labels(goal, reference)
    assert labels.shape == reference.labels.shape and labels.min() >= 0 and labels.max() < 3
    differing = (labels != reference.labels).float().mean()
    assert differing == 1 if goal in (Goal.RUNNER_UP, Goal.PERMUTED) else differing > 0.1


@pytest.mark.parametrize("goal", [Goal.SHIFTED, Goal.SPHERE, Goal.BACKGROUND])
def test_asma_draws_the_goal(goal):
    target, volume = toys.target_of(toys.Sharpening()), toys.head()
    wanted = goal_labels(goal, Reference(target.logits(target.window(volume))))
    attacked = small("asma", goal=goal, steps=40)(target, volume, 0.25).volume
    before, after = (overlap(target.logits(target.window(v)).argmax(1), wanted) for v in (volume, attacked))
    assert after > before + 0.1


def test_cancelled_attack_stops_at_once():
    target, volume = toys.target_of(toys.Sharpening()), toys.head(12)
    asked = []
    with pytest.raises(Cancelled):
        PGD(steps=50)(target, volume, EPS, cancelled=lambda: len(asked) > 2 or asked.append(1))
    assert len(asked) == 3


@pytest.mark.parametrize("name", ALONE)
def test_progress_rises_to_the_end(name):
    target, volume = toys.target_of(toys.Sharpening()), toys.head(12)
    fractions: list[float] = []
    small(name)(target, volume, EPS, progress=lambda fraction, step: fractions.append(fraction))
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1) and fractions[0] > 0


def test_unknown_attack_and_parameter_are_refused_by_name():
    with pytest.raises(InputError, match="no attack 'pdg'"):
        load_attack("pdg")
    with pytest.raises(InputError, match="no parameter 'stepz'"):
        load_attack("pgd", stepz=3)
    with pytest.raises(InputError, match="needs its 'surrogate'"):
        load_attack("transfer")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"steps": 2.5}, "takes no steps=2.5; give a number like 40"),
        ({"steps": "ten"}, "takes no steps=ten; give a number like 40"),
        ({"momentum": "much"}, "takes no momentum=much; give a number like 0.75"),
        ({"loss": "ce"}, "takes no loss=ce; give soft-dice, cross-entropy"),
    ],
)
def test_parameters_of_another_type_are_refused(parameters, words):
    with pytest.raises(InputError, match=words):
        load_attack("pgd", **parameters)


def test_parameters_come_as_text_from_a_command():
    assert load_attack("adaptive-joint", shield=None, warm="False").warm is False
    assert load_attack("adaptive-joint", shield=None, warm="True", weight=1).warm is True
    assert load_attack("pgd", loss="margin").loss is Loss.MARGIN


@pytest.mark.parametrize("eps", [0.0, -0.1, float("nan")])
def test_bound_that_is_not_positive_is_refused(eps):
    with pytest.raises(InputError, match="eps"):
        PGD(steps=1)(toys.target_of(toys.Sharpening()), toys.head(12), eps)


def test_volume_without_structures_cannot_be_attacked():
    volume = toys.head(12)
    with pytest.raises(InputError, match="finds nothing"):
        PGD(steps=1)(toys.target_of(toys.Pointwise(), classes=2), volume.with_voxels(volume.voxels * 0), EPS)


def test_a_window_that_gradients_would_not_follow_is_refused():
    class Stretched(NetworkTarget):
        """Its window depends on more than the voxel at hand."""

        def window(self, volume: Volume) -> torch.Tensor:
            return super().window(volume).flip(2)

    target = toys.target_of(toys.Sharpening())
    target.__class__ = Stretched
    with pytest.raises(InputError, match="window of target 'toy' is not its volume on the working grid"):
        PGD(steps=1)(target, toys.head(12), EPS)
