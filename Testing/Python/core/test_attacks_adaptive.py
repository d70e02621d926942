"""Attackers who know the shield: their rebuilt check is the shield's own, and knowing it pays."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from MedShieldLib import detector, reformer, shifts, versions
from MedShieldLib.attacks import ADAPTIVE, load_attack
from MedShieldLib.attacks.adaptive.gate import Gate, Look, loudest_silent
from MedShieldLib.attacks.adaptive.knowing import unit
from MedShieldLib.attacks.adaptive.reformed import _Through
from MedShieldLib.attacks.adaptive.repair import Repair
from MedShieldLib.attacks.adaptive.selective import without
from MedShieldLib.attacks.adaptive.silent import chance_of_silence
from MedShieldLib.attacks.adaptive.views import disagreement, log, view
from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.losses import mean_dice, soft_dice
from MedShieldLib.attacks.pgd import PGD
from MedShieldLib.calibration import calibrate
from MedShieldLib.errors import InputError
from MedShieldLib.observation import observe
from MedShieldLib.shield import Shield
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.targets.window import Window
from MedShieldLib.versions import Source

_spec = importlib.util.spec_from_file_location("attack_toys", Path(__file__).with_name("attack_toys.py"))
toys = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toys)

EPS = 8 / 255
VERSIONS = (
    versions.LowPass(0.6),
    versions.WaveletShrinkage(0.05),
    versions.Median(2),
    versions.Diffusion(0.1),
    versions.AngularStop(),
    versions.Moved(3, False, versions.WaveletShrinkage(0.05)),
    versions.Moved(3, True, versions.LowPass(0.6)),
    versions.Moved(3, True, None),
    versions.Probe(versions.Diffusion(0.03)),
    versions.Nudge(0.03, against=False),
    versions.Nudge(0.03, against=True),
)
FAMILY = (VERSIONS[0], VERSIONS[3], VERSIONS[6], *VERSIONS[8:])
ALL = (*VERSIONS, versions.Denoiser(16 / 255))


@pytest.fixture(scope="module")
def shield() -> Shield:
    target = toys.target_of(toys.Sharpening())
    heads = [(f"head {seed}", toys.head(16, seed=seed)) for seed in range(20, 26)]
    mild = (shifts.none, shifts.gamma, shifts.rician_noise, shifts.bias_field)
    return Shield(target, calibrate(target, heads, FAMILY, augmentations=mild), alpha=0.1)


@pytest.fixture(scope="module")
def doubting() -> Shield:
    """A shield that asks a second target: another network with another window, on another grid."""
    target, second = toys.target_of(toys.Sharpening()), second_target(toys.Sharpening(1.0))
    heads = [(f"head {seed}", toys.head(16, seed=seed)) for seed in range(20, 26)]
    mild = (shifts.none, shifts.gamma, shifts.rician_noise, shifts.bias_field)
    made = calibrate(target, heads, FAMILY, augmentations=mild, second=second)
    return Shield(target, made, alpha=0.1, second=second)


def second_target(network: torch.nn.Module) -> NetworkTarget:
    window = Window(0, 1200, fixed=True)
    return NetworkTarget("other", network, toys.STRUCTURES, "1", (2.0, 2.0, 4.0), "RAS", window)


def source_of(volume, target) -> Source:
    return Source(volume, target.grid(volume), target.finest_mm)


@pytest.mark.parametrize("spacing", [2.0, 1.0])
@pytest.mark.parametrize("version", ALL, ids=lambda version: version.kind)
@pytest.mark.parametrize("seed", range(3))
def test_view_is_the_version_itself(version, spacing, seed):
    target, volume = toys.target_of(toys.Sharpening()), toys.head(24, spacing=spacing)
    source = source_of(volume, target)
    draw = version.draw(source, np.random.default_rng(seed))
    voxels = torch.from_numpy(volume.voxels)
    seen, restore = view(version, source, voxels, np.random.default_rng(seed))
    np.testing.assert_allclose(seen, draw.volume.voxels, atol=0.02)  # of 1000
    answer = torch.rand(1, 3, *source.grid.shape)
    wanted = answer.numpy()[0] if draw.restore is None else draw.restore(answer.numpy()[0])
    np.testing.assert_array_equal(restore(answer)[0], wanted)


@pytest.mark.parametrize("version", ALL, ids=lambda version: version.kind)
@pytest.mark.parametrize("seed", range(4))  # wavelet families are drawn
def test_gradient_of_a_view_is_the_slope_of_the_version(version, seed):
    target, rng = toys.target_of(toys.Sharpening()), np.random.default_rng(0)
    volume = toys.head(16)
    noise = rng.normal(0, 20, volume.voxels.shape).astype(np.float32)  # or the margin has ties for the median
    volume = volume.with_voxels(volume.voxels + noise)
    source = source_of(volume, target)
    voxels = torch.from_numpy(volume.voxels).requires_grad_()
    seen, _ = view(version, source, voxels, np.random.default_rng(seed))
    probe = torch.from_numpy(rng.standard_normal(voxels.shape).astype(np.float32))
    (gradient,) = torch.autograd.grad((seen * probe).sum(), voxels)
    # Along the gradient: in most other directions hardly anything changes, whatever the gradient is.
    move = (0.02 * gradient / gradient.abs().mean()).numpy()

    def value(voxels: np.ndarray) -> float:
        # The threshold's scale is part of the source; the attacker takes it as given.
        at, _ = view(version, source, torch.from_numpy(voxels), np.random.default_rng(seed))
        return float((at.double() * probe).sum())

    slope = (value(volume.voxels + move) - value(volume.voxels - move)) / 2
    # Thresholds and medians bend between the two points; everything else is a straight line.
    assert slope == pytest.approx(float((gradient.numpy() * move).sum()), rel=0.05)


def test_unknown_version_is_passed_straight_through():
    class Doubled:
        kind = "doubled"

        def draw(self, source, rng):
            return versions.Draw(source.volume.with_voxels(2 * source.volume.voxels))

    target, volume = toys.target_of(toys.Sharpening()), toys.head(12)
    voxels = torch.from_numpy(volume.voxels).requires_grad_()
    seen, _ = view(Doubled(), source_of(volume, target), voxels, np.random.default_rng(0))
    np.testing.assert_allclose(seen.detach(), 2 * volume.voxels, rtol=1e-6)
    (gradient,) = torch.autograd.grad(seen.sum(), voxels)
    assert (gradient == 1).all()


@pytest.fixture(scope="module")
def tidy() -> Shield:
    """A shield of a target that drops islands."""
    target = toys.target_of(toys.Sharpening(), one_piece=True)
    heads = [(f"head {seed}", islanded(seed)) for seed in range(20, 26)]
    mild = (shifts.none, shifts.gamma, shifts.rician_noise, shifts.bias_field)
    return Shield(target, calibrate(target, heads, FAMILY, augmentations=mild), alpha=0.1)


def islanded(seed: int = 0, dtype: str = "float32"):
    """A large piece of structure and a small one far from it."""
    volume = toys.head(28, seed=seed, dtype=dtype)
    voxels = np.where(np.indices(volume.voxels.shape)[0] < 17, 500 + 0.4 * (volume.voxels - 500), 0)
    voxels[:, :, :2] = voxels[:, :2] = 0
    voxels[23:26, 23:26, 23:26] = 500
    return volume.with_voxels(voxels.astype(volume.voxels.dtype))


@pytest.mark.parametrize("who", ["shield", "tidy"])
def test_rebuilt_check_gives_the_shields_own_evidence(who, request):
    shield = request.getfixturevalue(who)
    target, volume = shield.target, islanded(dtype="int16") if who == "tidy" else toys.head(16, dtype="int16")
    case = Case.of(target, volume, EPS, torch.Generator().manual_seed(0))
    gate = Gate(case, shield, draws=1)
    x = case.project(case.x + EPS * case.uniform(case.x.shape))
    seen = observe(target, case.written(x), FAMILY, seed=5)
    p = torch.softmax(case.logits(x), 1)
    np.testing.assert_allclose(p[0], seen.answer, atol=1e-5)
    ours = np.array([disagreement(p, q).numpy() for q in gate.observed(x, seed=5)])
    np.testing.assert_allclose(ours, seen.disagreements, atol=2e-3)
    scale = shield.calibration.normaliser
    score = float(scale.instability(seen.disagreements, seen.dispersions))
    with torch.no_grad():
        rebuilt, _ = gate._heard(p, list(gate.observed(x, seed=5)), gate._opinion(p, x, seed=5))
    assert rebuilt == pytest.approx(score, rel=0.02)


def test_attack_is_judged_by_the_answer_that_the_shield_gets(tidy):
    case = Case.of(tidy.target, islanded(), EPS, torch.Generator().manual_seed(0))
    clean = tidy.target.probabilities(islanded()).argmax(0)
    np.testing.assert_array_equal(case.reference.labels[0], clean)
    assert (tidy.target.logits(tidy.target.window(islanded())).argmax(1)[0].numpy() != clean).any()
    x = case.project(case.x + EPS * case.uniform(case.x.shape))
    answer = case.look(x).argmax(1)
    np.testing.assert_array_equal(answer[0], tidy.target.probabilities(case.written(x)).argmax(0))
    assert case.last_score == mean_dice(answer, case.reference.labels)


def test_threshold_is_where_the_alarm_begins(shield):
    threshold, clean = loudest_silent(shield), shield.calibration
    quiet, loud = (
        detector.p_attack(threshold * factor, clean.instability, clean.subjects) for factor in (0.99, 1.01)
    )
    assert quiet > shield.alpha >= loud


def test_alarm_gradient_is_the_slope_of_the_evidence(shield):
    case = Case.of(shield.target, toys.head(16), EPS, torch.Generator().manual_seed(0))
    gate = Gate(case, shield, draws=1)
    x = case.project(case.x + 0.5 * EPS * case.uniform(case.x.shape))
    state = case.generator.get_state()
    alarm = gate.look(x).alarm
    values = []
    for sign in (-1, 1):
        case.generator.set_state(state)
        values.append(gate.loudness(case.project(x + sign * 0.05 * EPS * alarm.sign())))
    assert values[1] > values[0]
    require_slope(case, gate, x, state, alarm)


def test_harm_gradient_is_that_of_the_plain_answer_and_of_the_votes(shield):
    case, gate, x = attacked_case(shield)
    state = case.generator.get_state()
    harm = gate.look(x).harm
    case.generator.set_state(state)
    (seed,) = gate.seeds()
    x = x.clone().requires_grad_()
    votes = [q for q, version in zip(gate.observed(x, seed), FAMILY, strict=True) if versions.votes(version)]
    plain = soft_dice(case.logits(x), case.reference)
    (whole,) = torch.autograd.grad(plain + sum(gate.harm(q) for q in votes) / len(votes), x)
    np.testing.assert_allclose(harm, whole, atol=1e-5 * float(whole.abs().max()))


def require_slope(case: Case, gate: Gate, x: torch.Tensor, state: torch.Tensor, alarm: torch.Tensor) -> None:
    """A small step along the gradient changes the score by as much as its norm says."""
    step = 0.002 * EPS * alarm / alarm.abs().max()
    loudness = []
    for sign in (-1, 1):
        case.generator.set_state(state)
        loudness.append(gate.loudness(x + sign * step) * gate.threshold)
    assert loudness[1] - loudness[0] == pytest.approx(2 * float((alarm * step).sum()), rel=0.1)


def attacked_case(shield: Shield, size: int = 16) -> tuple[Case, Gate, torch.Tensor]:
    case = Case.of(shield.target, toys.head(size), EPS, torch.Generator().manual_seed(0))
    x = case.project(case.x + EPS * case.uniform(case.x.shape))
    return case, Gate(case, shield, draws=1), x


def test_rebuilt_second_opinion_is_the_shields_own(doubting):
    case, gate, x = attacked_case(doubting)
    seen = observe(doubting.target, case.written(x), FAMILY, seed=5, second=doubting.second)
    with torch.no_grad():
        p = torch.softmax(case.logits(x), 1)
        opinion = gate._opinion(p, x, seed=5)
        rebuilt, _ = gate._heard(p, list(gate.observed(x, seed=5)), opinion)
    np.testing.assert_allclose(opinion.numpy(), seen.contradictions, atol=2e-3)
    assert rebuilt == pytest.approx(doubting.attack_score(seen), rel=0.02)


@pytest.mark.parametrize("loud", ["instability", "opinion"])
def test_alarm_gradient_goes_through_whichever_target_is_louder(doubting, loud):
    """The network whose answer decides is the one that the gradient leads through: finite differences."""
    case, gate, x = attacked_case(doubting)
    units = gate.second.scale.units
    units = replace(units, factor=units.factor * {"instability": 1e-6, "opinion": 1e3}[loud])
    gate.second = replace(gate.second, scale=replace(gate.second.scale, units=units))
    state = case.generator.get_state()
    alarm = gate.look(x).alarm
    require_slope(case, gate, x, state, alarm)


def test_harm_gradient_goes_through_the_second_target_too(doubting):
    """The soft Dice loss of its own answer, beside that of the first target's: finite differences."""
    alone = Shield(doubting.target, doubting.calibration, alpha=doubting.alpha)
    (_, plain, x), (case, gate, _) = (attacked_case(shield) for shield in (alone, doubting))
    state = case.generator.get_state()
    (seed,) = gate.seeds()
    case.generator.set_state(state)
    plain.case.generator.set_state(state)
    more = gate.look(x).harm - plain.look(x).harm
    assert more.abs().max() > 0
    step, harms = 0.002 * EPS * more / more.abs().max(), []
    for sign in (-1, 1):
        with torch.no_grad():
            harms.append(float(gate.second.harm(gate._second_answer(x + sign * step, seed))))
    assert harms[1] - harms[0] == pytest.approx(2 * float((more * step).sum()), rel=0.1)


def test_second_opinion_costs_the_attacker_passes(doubting):
    alone = Shield(doubting.target, doubting.calibration, alpha=doubting.alpha)
    (quick, gate, x), (slow, asking, _) = (attacked_case(shield) for shield in (alone, doubting))
    gate.loudness(x)
    asking.loudness(x)
    assert slow.passes == quick.passes + 1


def test_second_opinion_without_gradients_cannot_be_attacked(doubting):
    class Opaque:
        """What a black box shows of a target."""

        def __init__(self, target):
            self.name, self.structures, self.sha256 = target.name, target.structures, target.sha256
            self.finest_mm, self.grid = target.finest_mm, target.grid
            self.probabilities, self.labelmap = target.probabilities, target.labelmap

    shield = Shield(doubting.target, doubting.calibration, alpha=0.1, second=Opaque(doubting.second))
    with pytest.raises(InputError, match="'other' shows no gradients"):
        load_attack("adaptive-stability", shield=shield, steps=1, draws=1)(shield.target, toys.head(12), EPS)


def test_who_knows_both_targets_is_contradicted_less(doubting):
    volume = toys.head(16)
    alone = Shield(doubting.target, doubting.calibration, alpha=doubting.alpha)

    def contradicted(shield: Shield) -> float:
        attack = load_attack("adaptive-joint", shield=shield, weight=2.0, steps=15, draws=3)
        attacked = attack(shield.target, volume, EPS).volume
        seen = [observe(shield.target, attacked, FAMILY, n, second=doubting.second) for n in range(3)]
        return float(np.mean([doubting.calibration.fusion.contradiction(s.contradictions) for s in seen]))

    assert contradicted(doubting) < contradicted(alone) - 0.05


@pytest.mark.parametrize("who", ["shield", "doubting"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_attack_keeps_bound_and_seed(name, who, request):
    shield = request.getfixturevalue(who)
    attack = load_attack(name, shield=shield, steps=3, draws=1)
    first, again = (attack(shield.target, toys.head(12), EPS, seed=2) for _ in range(2))
    assert 0 < first.linf <= EPS
    np.testing.assert_array_equal(first.volume.voxels, again.volume.voxels)


def test_adaptive_attacks_never_ask_for_the_seed(shield):
    volume, results = toys.head(12), []
    for seed in (None, 7):
        known = Shield(shield.target, shield.calibration, alpha=shield.alpha, seed=seed)
        attack = load_attack("adaptive-stability", shield=known, steps=3, draws=1)
        results.append(attack(shield.target, volume, EPS).volume.voxels)
    np.testing.assert_array_equal(*results)


def loudness_of(shield: Shield, attacked) -> float:
    """Of one check with the shield's own code, in thresholds; a mean over its seeds."""
    scale = shield.calibration.normaliser
    found = [observe(shield.target, attacked, FAMILY, seed) for seed in range(5)]
    heard = np.mean([scale.instability(seen.disagreements, seen.dispersions) for seen in found])
    return float(heard) / loudest_silent(shield)


@pytest.mark.parametrize(
    "name", ["adaptive-joint", "adaptive-stability", "adaptive-selective", "adaptive-orthogonal"]
)
def test_knowing_the_shield_makes_an_attack_quieter(name, shield):
    volume = toys.head(16)
    blind = PGD(steps=15)(shield.target, volume, EPS)
    knowing = load_attack(name, shield=shield, steps=15, draws=3)(shield.target, volume, EPS)
    assert loudness_of(shield, blind.volume) > 1
    assert loudness_of(shield, knowing.volume) < loudness_of(shield, blind.volume)
    assert knowing.dice_drop > 0.01


def test_more_weight_on_stability_makes_a_quieter_attack(shield):
    volume = toys.head(16)
    loudness = []
    for weight in (0.0, 0.5, 2.0):
        attack = load_attack("adaptive-joint", shield=shield, weight=weight, steps=15, draws=3)
        loudness.append(loudness_of(shield, attack(shield.target, volume, EPS).volume))
    assert loudness[2] < loudness[0]


def silent_checks(shield: Shield, attacked) -> float:
    """Share of ten checks, with the shield's own code, that raise no alarm."""
    seeds = range(100, 110)
    checks = [Shield(shield.target, shield.calibration, alpha=shield.alpha, seed=seed) for seed in seeds]
    return float(np.mean([check.check_and_segment(attacked).p_attack > shield.alpha for check in checks]))


def test_knowing_the_shield_does_more_unseen_harm_than_noise_or_a_weak_attack(shield):
    """What anybody could do: noise at the full bound, and the strongest PGD that is still silent."""
    volume = toys.head(16)
    knowing = load_attack("adaptive-stability", shield=shield, steps=20, draws=6)(shield.target, volume, EPS)
    assert silent_checks(shield, knowing.volume) >= 0.8
    weak = [PGD(steps=15)(shield.target, volume, eps / 255) for eps in (1, 1.5, 2, 3, 4)]
    unseen = [result.dice_drop for result in weak if silent_checks(shield, result.volume) >= 0.8]
    assert unseen and knowing.dice_drop > 1.5 * max(unseen)
    case = Case.of(shield.target, volume, EPS, torch.Generator().manual_seed(0))
    noise = case.look(case.x + EPS * case.uniform(case.x.shape)).argmax(1)
    assert knowing.dice_drop > 2 * (1 - mean_dice(noise, case.reference.labels))


@pytest.mark.parametrize("name", ["adaptive-stability", "adaptive-joint", "adaptive-orthogonal"])
def test_without_a_bound_nothing_is_left_and_nothing_seen(shield, name):
    attack = load_attack(name, shield=shield, steps=40, draws=6)
    result = attack(shield.target, toys.head(16), 1.0)
    assert result.dice_drop > 0.95
    assert silent_checks(shield, result.volume) >= 0.8


@pytest.mark.parametrize("more", [{"steps": 36}, {"restarts": 3}])
def test_a_larger_budget_never_helps_the_shield(shield, more):
    """Unseen harm to two heads, as ten checks of each find it; a search is a matter of luck, so a little less
    is the same.
    """
    least = {"steps": 12, "draws": 6, "restarts": 1}

    def unseen_harm(budget: dict) -> float:
        attack, harm = load_attack("adaptive-stability", shield=shield, **budget), 0.0
        for volume in (toys.head(16), toys.head(16, seed=1)):
            result = attack(shield.target, volume, EPS)
            harm += result.dice_drop * silent_checks(shield, result.volume)
        return harm

    assert unseen_harm({**least, **more}) > 0.85 * unseen_harm(least)


def test_a_larger_bound_never_helps_the_shield(shield):
    attack, volume = load_attack("adaptive-stability", shield=shield, steps=20, draws=6), toys.head(16)
    harms = []
    for eps in (2 / 255, 4 / 255, 8 / 255):
        result = attack(shield.target, volume, eps)
        harms.append(result.dice_drop * silent_checks(shield, result.volume))
    assert harms[0] < harms[1] < harms[2]


def test_a_black_box_does_less_unseen_harm_than_who_knows_the_shield(shield):
    volume = toys.head(16)
    blind = load_attack("square", queries=800)(shield.target, volume, EPS)
    knowing = load_attack("adaptive-stability", shield=shield, steps=20, draws=6)(shield.target, volume, EPS)
    unseen = blind.dice_drop * silent_checks(shield, blind.volume)
    assert knowing.dice_drop * silent_checks(shield, knowing.volume) > unseen


@pytest.mark.parametrize("name", ["adaptive-stability", "adaptive-reformed"])
def test_smooth_changes_are_smooth(name, shield):
    volume, found = toys.head(16), []
    for smooth_mm in (0.0, 4.0):
        attack = load_attack(name, shield=shield, steps=10, draws=6, smooth_mm=smooth_mm)
        result = attack(shield.target, volume, EPS)
        change = result.volume.voxels - volume.voxels
        found.append(float(np.abs(np.diff(change, axis=2)).mean() / np.abs(change).mean()))
        assert result.linf <= EPS and result.dice_drop > 0.03
    assert found[1] < 0.5 * found[0]


@pytest.mark.parametrize("ratio, share", [(0.45, -0.5), (0.9, 0), (1.35, 0.5), (3.0, 1)])
def test_weight_of_stability_follows_the_distance_from_the_aim(shield, ratio, share):
    attack, memory = load_attack("adaptive-stability", shield=shield, first_weight=0.5), {}
    harm, alarm = torch.randn(2, 1, 1, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    for n in (1, 2):
        attack.direction(Look(harm, harm, alarm, ratio, (ratio,)), memory)
        assert memory["weight"] == pytest.approx(0.5 * 1.5 ** (n * share))


def test_who_is_silent_by_far_stops_paying_for_company(shield):
    plain, company, alarm = torch.randn(3, 1, 1, 3, 3, 3, generator=torch.Generator().manual_seed(0))

    def along_company(ratio: float, **parameters: float) -> float:
        """What a weight of stability that began at its first value makes of the other answers' gradient."""
        attack = load_attack("adaptive-stability", shield=shield, **parameters)
        memory = {"weight": 0.1}
        with_it = attack.direction(Look(plain, company, 0 * alarm, ratio, (ratio,)), dict(memory))
        weight = 0.1 * 1.5 ** max(-1.0, min(1.0, ratio / 0.9 - 1))
        share = max(attack.company, min(1.0, weight / 0.5))
        torch.testing.assert_close(with_it, unit(plain + share * company))
        return share

    assert along_company(0.45) < along_company(0.9) < 1
    assert along_company(0.45, company=1.0) == 1 and along_company(0.45, first_weight=0.5, company=0.4) == 0.4


def test_chance_of_silence_is_that_of_a_normal_score():
    assert chance_of_silence((1.0, 1.1, 0.9)) == pytest.approx(0.5)
    spread = 0.2 * np.sqrt(4 / 3)  # of one more score, the mean being that of three
    assert chance_of_silence((0.5, 0.7, 0.9)) == pytest.approx(stats.norm.cdf(0.3 / spread))
    # Rounds that agree by chance still leave some luck; but hardly any far below the threshold.
    assert chance_of_silence((1.01, 1.01)) > 0.4 and chance_of_silence((0.8, 0.8)) > 0.99
    assert 0.6 < chance_of_silence((0.95,)) < 0.95


def test_look_shows_every_round(shield):
    case, _, x = attacked_case(shield)
    gate = Gate(case, shield, draws=3 * len(FAMILY))
    state = case.generator.get_state()
    look = gate.look(x)
    case.generator.set_state(state)
    assert len(set(look.ratios)) == 3 and look.ratios == pytest.approx(gate.ratios(x))
    assert look.score == pytest.approx(look.ratio * gate.threshold)


@pytest.mark.parametrize("loudness", [0.5, 1.5])
def test_rebuilt_repair_is_the_shields_own(shield, loudness):
    """Of a volume that clean ones explain, and of one that they do not, for which the repair goes on."""
    case, gate, x = attacked_case(shield)
    seen = observe(shield.target, case.written(x), FAMILY, seed=5)
    score = shield.attack_score(seen)
    repair = Repair(gate, shield)
    repair._ordinary = score / loudness
    share = max(0.0, 1 - repair._ordinary / score)
    where = reformer.standing_alone(seen.vote, seen.answer, seen.scatter, share)
    wanted = reformer.repaired(seen.vote.copy(), seen.answer, where, share)
    with torch.no_grad():
        p = torch.softmax(case.logits(x), 1)
        rebuilt = repair.of(p, list(gate.observed(x, seed=5)))
    assert (share > 0) == (loudness > 1) and 0 < where.mean() < 1
    np.testing.assert_allclose(rebuilt[0], wanted, atol=0.02)
    assert float(np.abs(rebuilt[0].numpy() - wanted).mean()) < 1e-3


def test_gradient_through_the_repair_is_that_of_all_answers_at_once(shield):
    """A version at a time takes the memory of one, and has to add up to the same."""
    case, gate, x = attacked_case(shield)
    repair = Repair(gate, shield)
    repair._ordinary *= 0.5  # so that it goes on beyond the vote
    state = case.generator.get_state()
    gradient, _ = _Through(case, gate, repair).climb(x)
    case.generator.set_state(state)
    (seed,) = gate.seeds()
    x = x.clone().requires_grad_()
    others = list(gate.observed(x, seed))
    repaired = repair.of(torch.softmax(case.logits(x), 1), others)
    votes = [q for q, version in zip(others, FAMILY, strict=True) if versions.votes(version)]
    losses = [soft_dice(log(q), case.reference) for q in (repaired.clamp(min=1e-12), *votes)]
    (whole,) = torch.autograd.grad(losses[0] + sum(losses[1:]) / len(votes), x)
    assert whole.abs().max() > 1e-3
    np.testing.assert_allclose(gradient, whole, atol=1e-5 * float(whole.abs().max()))


def test_attack_through_the_reformer_breaks_the_repair_where_plain_pgd_does_not(shield):
    volume = toys.head(16)
    always = Shield(shield.target, shield.calibration, alpha=1 - 1e-9, seed=3)
    clean = torch.from_numpy(shield.target.labelmap(shield.target.probabilities(volume), volume))[None]

    def left(attack) -> float:
        attacked = attack(shield.target, volume, EPS).volume
        defended = always.check_and_segment(attacked).defended.labels
        return mean_dice(torch.from_numpy(defended)[None], clean)

    through = load_attack("adaptive-reformed", shield=shield, steps=15, draws=3)
    assert left(through) < left(PGD(steps=15)) - 0.02


def test_attack_through_the_reformer_asks_as_often_as_it_says(shield):
    attack = load_attack("adaptive-reformed", shield=shield, steps=2, draws=8)
    result = attack(shield.target, toys.head(12), EPS)
    assert result.passes == attack.expected_passes == 2 * (1 + 2 * 12) + 1 + 12  # two families of six


@pytest.mark.parametrize("name", ["adaptive-joint", "adaptive-reformed"])
def test_restarts_begin_at_pgd_and_then_anywhere(name, shield):
    volume = toys.head(12)
    attack = load_attack(name, shield=shield, steps=2, draws=1, restarts=2, warm=True)
    case = Case.of(shield.target, volume, EPS, torch.Generator().manual_seed(0))
    warm, cold = attack.starts(case)
    again = Case.of(shield.target, volume, EPS, torch.Generator().manual_seed(0))
    assert torch.equal(warm, PGD().perturb(again)) and not torch.equal(warm, cold)
    once = replace(attack, restarts=1, warm=False)(shield.target, volume, EPS)
    result = attack(shield.target, volume, EPS)
    assert result.passes > 1.5 * once.passes + PGD().expected_passes
    assert result.passes <= attack.expected_passes and 0 < result.linf <= EPS


def test_projection_leaves_nothing_along_the_other_gradient():
    a, b = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    assert float((without(a, b) * b).sum()) == pytest.approx(0, abs=1e-4)


def test_adaptive_attack_needs_its_shield():
    with pytest.raises(InputError, match="needs its 'shield'"):
        load_attack("adaptive-stability")


def test_attack_reports_progress_to_the_end(shield):
    fractions: list[float] = []
    attack = load_attack("adaptive-stability", shield=shield, steps=4, draws=1)
    attack(shield.target, toys.head(12), EPS, progress=lambda fraction, step: fractions.append(fraction))
    assert fractions == sorted(fractions) and fractions[-1] > 0.8
    assert replace(attack, steps=8).expected_passes > attack.expected_passes
