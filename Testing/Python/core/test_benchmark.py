"""The benchmark as it is run: measured once, resumed, and reported; on a network that is easy to fool."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nilearn.datasets import load_mni152_template

from MedShieldLib import calibration, shifts
from MedShieldLib.attacks import attack_class, load_attack
from MedShieldLib.calibration import Calibration
from MedShieldLib.clean_opinion import SecondOpinion
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.evaluation import benchmark, heads, preparation, report, shielded
from MedShieldLib.evaluation.baselines import FILTERS, Filtered
from MedShieldLib.evaluation.defence import Asked, Setting
from MedShieldLib.evaluation.headline import HELD_OUT
from MedShieldLib.evaluation.heads import Role
from MedShieldLib.evaluation.ledger import Ledger
from MedShieldLib.evaluation.magnet import MagNet
from MedShieldLib.evaluation.plan import Kind, Plan, expected_passes, parse_attack
from MedShieldLib.evaluation.preparation import prepare
from MedShieldLib.evaluation.rows import rows_of
from MedShieldLib.evaluation.split import heads_for
from MedShieldLib.result import Verdict
from MedShieldLib.shield import Shield
from MedShieldLib.stopwatch import duration
from MedShieldLib.targets import load_target
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.training.data import from_nibabel
from MedShieldLib.volume import Structure, Volume

DEFENCES = ("none", "low-pass", "spectrum-only", "shield", "shield-second")


def nervous_network() -> NetworkTarget:
    """Bright tissue at 4 mm, swayed by checkerboards, which anatomy hardly has and a low-pass removes."""
    layer, bend = torch.nn.Conv3d(1, 2, 3, padding=1), torch.tensor([-1.0, 2.0, -1.0])
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1, 0] = 0.4 * torch.einsum("k,j,i->kji", bend, bend, bend)
        layer.weight[1, 0, 1, 1, 1] += 1
        layer.weight *= 40
        layer.bias.copy_(40 * torch.tensor([0.0, -0.5]))
    return NetworkTarget("toy", layer, (Structure(1, "Bright", (1.0, 1.0, 0.0)),), "0" * 64, (4.0,) * 3)


def calm_network() -> NetworkTarget:
    """Bright tissue at 5 mm, whatever the pattern: who gives the second opinion."""
    layer = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        layer.weight[:, 0] = torch.tensor([0.0, 40.0]).reshape(2, 1, 1, 1)
        layer.bias.copy_(torch.tensor([0.0, -20.0]))
    return NetworkTarget("calm", layer, (Structure(1, "Bright", (1.0, 1.0, 0.0)),), "1" * 64, (5.0,) * 3)


@pytest.fixture(scope="module")
def toy():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "MNI152_MM", 4)
        patch.setattr(benchmark, "load", lambda name, data: nervous_network())
        patch.setattr(preparation, "load_target", lambda name: calm_network())
        yield


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return Plan(
        data=None,
        work=tmp_path_factory.mktemp("work"),
        targets=("toy",),
        attacks=("pgd:steps=5", "fgsm", "adaptive-stability:steps=3,draws=2"),
        eps=(1, 8),
        defences=DEFENCES,
        shifts=("gamma", "matrix-size"),
        draws=1,
    )


@pytest.fixture(scope="module")
def interrupted(toy, plan) -> int:
    """A run that is stopped in the middle; how many cells it had finished."""

    class Stop:
        asked = False

    def progress(fraction: float, step: str) -> None:
        Stop.asked = "pgd" in step and "low-pass" in step

    with pytest.raises(Cancelled):
        benchmark.run(plan, progress, lambda: Stop.asked)
    return len(Ledger(plan.work / "cells.jsonl").rows)


@pytest.fixture(scope="module")
def measured(toy, plan, interrupted) -> list[dict]:
    return benchmark.run(plan)


def test_a_stopped_run_goes_on_without_measuring_anything_twice(plan, measured, interrupted):
    lines = [json.loads(line) for line in (plan.work / "cells.jsonl").read_text().splitlines() if line]
    assert 0 < interrupted < len(lines)
    assert len({line["key"] for line in lines}) == len(lines)


def test_a_finished_run_is_only_read_again(toy, plan, measured):
    before = (plan.work / "cells.jsonl").read_bytes()
    steps: list[str] = []
    assert benchmark.run(plan, lambda fraction, step: steps.append(step)) == measured
    assert (plan.work / "cells.jsonl").read_bytes() == before
    assert all("preparing" in step for step in steps)


def test_a_line_that_was_cut_off_is_measured_again(toy, plan, measured):
    path = plan.work / "cells.jsonl"
    text = path.read_text()
    path.write_text(text[:-40])
    benchmark.run(plan)
    assert len(Ledger(path).rows) == len([line for line in text.splitlines() if line])


def test_every_cell_is_measured_by_every_defence(plan, measured):
    cells = plan.cells("toy")
    kinds = {kind: sum(cell.kind is kind for cell in cells) for kind in Kind}
    assert kinds == {Kind.CALIBRATION: 12, Kind.CLEAN: 1, Kind.SHIFT: 2, Kind.ATTACK: 4, Kind.ADAPTIVE: 4}
    # Two defences need no calibration heads, and an adaptive attack is shown to the shield that it knows.
    assert len(measured) == 12 * 2 + 7 * len(DEFENCES) + 4 * 1


def test_stronger_attacks_do_more_harm_and_keep_their_bound(measured):
    rows, skipped = rows_of(measured)
    assert not skipped
    attacked = [r for r in rows if r.kind is Kind.ATTACK and r.defence == "none"]
    dice = {(r.name, r.eps): r.dice_original for r in attacked}
    assert dice["pgd:steps=5", 8] < dice["pgd:steps=5", 1] < 1
    assert dice["pgd:steps=5", 8] < 0.85
    assert all(r.facts["linf"] <= r.eps / 255 * 1.0001 for r in attacked)


def test_the_target_alone_detects_nothing_and_a_low_pass_helps(measured):
    rows, _ = rows_of(measured)
    strong = {r.defence: r for r in rows if r.name.startswith("pgd") and r.eps == 8}
    assert math.isnan(strong["none"].score) and not strong["none"].alarm
    assert strong["none"].dice_given == strong["none"].dice_original
    assert strong["low-pass"].dice_defended > strong["none"].dice_original + 0.05
    assert strong["low-pass"].extra_inferences == 1
    assert strong["spectrum-only"].extra_inferences == 0


def test_an_adaptive_attack_is_shown_to_the_shield_that_it_knows(measured):
    rows, _ = rows_of(measured)
    adaptive = [r for r in rows if r.kind is Kind.ADAPTIVE]
    assert {r.defence for r in adaptive} == {"shield", "shield-second"}
    assert {r.eps for r in adaptive} == {1, 8}
    assert all(0 < r.facts["linf"] <= r.eps / 255 * 1.0001 for r in adaptive)
    blind = next(r for r in rows if r.name == "pgd:steps=5" and r.eps == 8 and r.defence == "shield")
    assert min(r.score for r in adaptive if r.defence == "shield") < blind.score


def test_a_second_opinion_is_one_inference_and_leaves_the_shield_as_it_is(plan, measured):
    rows, _ = rows_of(measured)
    benign = {r.defence: r for r in rows if r.kind is Kind.CLEAN}
    alone, doubting = benign["shield"], benign["shield-second"]
    assert doubting.extra_inferences == alone.extra_inferences + 1
    assert doubting.p_novelty == alone.p_novelty and doubting.dice_defended == alone.dice_defended
    assert doubting.score >= alone.score


def test_the_rows_of_a_calibration_are_not_redone_for_a_second_opinion(plan, measured):
    folder = next((plan.work / "prepared").iterdir())
    (alone,), (doubted,) = (
        [Calibration.load(path) for path in folder.glob(f"{kind}-*.json")]
        for kind in ("calibration", "second")
    )
    assert alone.second is None and doubted.second is not None
    assert replace(doubted, second=None).sha256 == alone.sha256


def test_a_defence_that_cannot_be_had_is_left_out_and_said(toy, plan, tmp_path):
    def missing(name):
        raise InputError(f"{name} is not installed.")

    steps: list[str] = []
    small = replace(
        plan, work=tmp_path, attacks=("adaptive-stability:steps=1,draws=1",), eps=(1,), shifts=(),
        defences=("none", "shield-second"), second_opinion="copy.json",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "load_target", missing)
        rows = benchmark.run(small, lambda fraction, step: steps.append(step))
    assert {row["defence"] for row in rows} == {"none"}
    assert any("left out shield-second: copy.json is not installed." in step for step in steps)


def test_a_shipped_calibration_serves_both_shields(small_target, small_calibration, small_heads, tmp_path):
    """Alone it keeps its hash when an opinion is added; without one, a sentence says how to add it."""
    second, file = calm_network(), tmp_path / f"{small_target.name}.calibration.json"
    setting = Setting(small_target, (), tmp_path)
    opinion = SecondOpinion.of_targets(small_target, second, [np.full((1, 2), 0.1)] * 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "_DATA", tmp_path)
        small_calibration.save(file)
        with pytest.raises(InputError, match="--second-opinion calm --onto"):
            shielded.with_opinion_of(second, setting)
        doubted = replace(small_calibration, second=opinion)
        doubted.save(file)
        assert shielded.calibration_for(setting).sha256 == small_calibration.sha256
        assert shielded.with_opinion_of(second, setting).sha256 == doubted.sha256


def test_the_shield_always_on_is_its_repair_even_where_nothing_at_all_is_suspicious(
    small_target, small_calibration, small_heads
):
    """A score below all clean ones has p = 1, which is no reason to measure the target's own answer."""
    volume, asked = small_heads[4][1], Asked(small_target)
    plain = asked.about(volume)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shield, "_p_values", lambda self, seen: (1.0, 1.0))
        opinion = shielded.Shielded(small_calibration).judge(asked, volume, 3)
    assert opinion.p_attack == opinion.p_novelty == 1
    assert (opinion.defended().labels != small_target.labelmap(plain, volume)).any()
    repaired = Shield(small_target, small_calibration, alpha=1 - 1e-9, seed=3).check_and_segment(volume)
    assert repaired.verdict is not Verdict.CLEAN
    np.testing.assert_array_equal(opinion.defended().labels, repaired.defended.labels)


def test_only_a_new_revision_of_the_check_gives_a_shield_another_identity(small_calibration):
    shield, plain = shielded.Shielded(small_calibration), f"shield {small_calibration.sha256[:16]}"
    for revision, identity in ((1, plain), (3, f"{plain} revision 3")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shielded, "REVISION", revision)
            assert shield.identity == identity


@pytest.fixture
def bench(toy, plan, measured) -> benchmark.Bench:
    """A finished run, opened again."""
    found = benchmark.Bench(plan, nervous_network(), Ledger(plan.work / "cells.jsonl"), lambda: False)
    found.defences(lambda step: None)
    return found


def test_a_revised_attack_is_another_one_and_all_others_stay_found(bench, monkeypatch):
    def known() -> set[str]:
        keys = {c.name: benchmark.key_of("attacked", *bench._identity(c)) for c in bench.cells if c.eps == 8}
        return {name for name, key in keys.items() if key in bench.ledger.rows}

    assert known() == {"pgd:steps=5", "fgsm", "adaptive-stability:steps=3,draws=2"}
    monkeypatch.setattr(attack_class("pgd"), "revision", 2)
    assert "pgd:steps=5" not in known() and "adaptive-stability:steps=3,draws=2" in known()


def test_the_first_revision_leaves_the_keys_as_they_were(bench):
    """Days of computing are found by these keys."""
    cell = next(c for c in bench.cells if c.name == "pgd:steps=5" and c.eps == 8)
    parts = ("0" * 64, bench.volume(cell.head).sha256(), "attack", "pgd:steps=5", 8, 0, 0, "")
    assert bench._identity(cell) == parts


def test_a_transferred_attack_is_found_by_its_surrogate(bench):
    assert bench.preparation.version("transfer")[0] == calm_network().sha256


def test_without_its_surrogate_a_transferred_attack_is_skipped_not_the_run(bench, monkeypatch):
    def missing(name):
        raise InputError("This model is not installed.")

    monkeypatch.setattr(preparation, "load_target", missing)
    assert bench.preparation.version("transfer")[0] == "absent"


def test_baselines_get_p_values_from_calibration_heads_only(measured):
    rows, _ = rows_of(measured)
    clean = [r for r in rows if r.kind is Kind.CALIBRATION and r.defence == "low-pass"]
    attacked = next(r for r in rows if r.name.startswith("pgd") and r.eps == 8 and r.defence == "low-pass")
    above = sum(r.score >= attacked.score for r in clean)
    assert attacked.p_attack == pytest.approx((1 + above) / (1 + len(clean)))


def test_report_holds_tables_plots_and_the_command(plan, measured, tmp_path):
    path = report.write_report(measured, plan, tmp_path / "report", "medshield benchmark --quick")
    text = path.read_text()
    for expected in (
        "medshield benchmark --quick",
        "| pgd:steps=5 |",
        "## Attackers who know the shield",
        "![ROC](roc.svg)",
    ):
        assert expected in text
    assert "nan" not in text
    assert "low-pass on toy: 12 clean scores, too few for 5%" in text
    for name in ("roc.svg", "dice.svg", "failures.svg", "false_alarms.svg"):
        assert (path.parent / name).read_text().startswith("<?xml")
    with (path.parent / "benchmark.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(measured)
    assert {row["defence"] for row in table} == set(DEFENCES)


def test_training_free_filters_calibrate_on_all_clean_heads_that_the_shield_has(tmp_path):
    """Those that learn from a head do not: it would look too ordinary to them."""
    (tmp_path / "volumes").mkdir()
    for subject in [f"nichart_Subj{n}_T1" for n in range(1, 13)] + ["mricron_ch2", "nv_spm152", "nv_MR_Gd"]:
        (tmp_path / "volumes" / f"{subject}.nii.gz").touch()
    (tmp_path / "volumes" / f"{HELD_OUT[0]}.nii.gz").touch()
    fixed, learned = Filtered(FILTERS[0], 1.0), MagNet(torch.nn.Identity(), "magnet")

    def calibrated(defence, target: str) -> set[str]:
        cells = Plan(tmp_path, tmp_path).cells(target)
        calibration = [cell for cell in cells if cell.kind is Kind.CALIBRATION]
        return {cell.head.subject for cell in calibration if benchmark._seeing(cell, [defence])}

    later = {f"nichart_Subj{n}" for n in range(5, 13)} | {"MNI152"}
    assert calibrated(fixed, "torchio-unet") == later and len(calibrated(learned, "torchio-unet")) == 4
    shipped = Calibration.shipped(load_target("brain-tissue"))
    assert calibrated(fixed, "brain-tissue") == set(shipped.subjects)
    assert calibrated(learned, "brain-tissue") < set(shipped.subjects)


def test_a_filter_gets_its_strength_from_the_heads_that_the_shield_has(mni_4mm, tmp_path):
    setting = Setting(nervous_network(), [("a", mni_4mm)], tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Filtered, "fit", classmethod(lambda cls, family, setting: setting.clean))
        assert prepare(setting, []).defence("gaussian") == [("a", mni_4mm)]


def test_the_forecast_of_an_adaptive_attack_is_what_it_spends(measured):
    rows, _ = rows_of(measured)
    spent = [r.facts["passes"] for r in rows if r.kind is Kind.ADAPTIVE and r.defence == "shield"]
    versions = next(r.extra_inferences for r in rows if r.defence == "shield")
    same = expected_passes(f"adaptive-stability:steps=3,draws={versions}")
    assert np.mean(spent) == pytest.approx(same, rel=0.3)  # so few steps leave fewer finalists


@pytest.fixture(scope="module")
def own(toy, plan, tmp_path_factory) -> Plan:
    """Somebody's own volumes, and among them attacked ones."""
    folder = tmp_path_factory.mktemp("own")
    mni(4).write(folder / "clean.nrrd")
    load_attack("pgd", steps=5)(nervous_network(), mni(4), 8 / 255).volume.write(folder / "attacked.nrrd")
    mni(2).write(folder / "elsewhere.nrrd")
    for n, shift in enumerate((shifts.gamma, shifts.bias_field, shifts.rician_noise)):
        shifts.apply(shift, mni(4), n).write(folder / f"head{n}.nrrd")
    lines = [
        "subject,file,role,attack,eps,against",
        *(f"head{n},head{n}.nrrd,calibrate,,," for n in range(3)),
        "mine,clean.nrrd,test,,,",
        "mine,attacked.nrrd,test,theirs,8,",
        "mine,attacked.nrrd,test,knowing,8,shield",
        "mine,attacked.nrrd,test,knowing more,8,shield-second",
        "mine,attacked.nrrd,test,understated,0.03,",
        "mine,elsewhere.nrrd,test,misplaced,8,",
    ]
    (folder / "heads.csv").write_text("\n".join(lines))
    return replace(
        plan, data=folder, work=folder / "work", attacks=(), shifts=(), defences=("none", "shield")
    )


def mni(resolution_mm: int) -> Volume:
    return from_nibabel(load_mni152_template(resolution=resolution_mm))


def test_volumes_that_were_attacked_elsewhere_are_judged_like_others(own, tmp_path):
    measured = benchmark.run(own)
    rows, skipped = rows_of(measured)
    too_far, misplaced = skipped
    assert "attacked.nrrd is 8/255 of the window away" in too_far and "more than its eps of 0.03" in too_far
    assert "elsewhere.nrrd" in misplaced and "voxels" in misplaced
    theirs = {r.defence: r for r in rows if r.name == "theirs"}
    assert set(theirs) == {"none", "shield"} and theirs["none"].eps == 8
    assert theirs["none"].dice_original < 0.95 and theirs["none"].facts["linf"] == pytest.approx(
        8 / 255, rel=0.01
    )
    assert theirs["shield"].score > next(
        r.score for r in rows if r.kind is Kind.CLEAN and r.defence == "shield"
    )
    assert math.isnan(theirs["none"].fact("passes"))
    # Made for one shield, it is no attack that knows nothing, and for a shield of this run alone.
    knowing = [(r.kind, r.name, r.defence) for r in rows if r.kind is Kind.ADAPTIVE]
    assert knowing == [(Kind.ADAPTIVE, "knowing", "shield")]
    text = report.write_report(measured, own, tmp_path, "medshield benchmark").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| toy | theirs | 8 |"))
    assert line.endswith("| - | - |") and "elsewhere.nrrd does not lie" in text


def test_another_attacked_volume_is_measured_anew(own):
    before = len(Ledger(own.work / "cells.jsonl").rows)
    attacked = own.data / "attacked.nrrd"
    mni(4).with_voxels(mni(4).voxels * np.float32(0.99)).write(attacked)
    benchmark.run(own)
    assert len(Ledger(own.work / "cells.jsonl").rows) == before + 5  # two, two left out, and one by one


def test_what_was_learned_from_other_volumes_is_not_taken(own):
    steps: list[str] = []
    shifts.apply(shifts.gamma, mni(4), 9).write(own.data / "head0.nrrd")
    measured = benchmark.run(own, lambda fraction, step: steps.append(step))
    assert len(list((own.work / "prepared").iterdir())) == 2
    assert any("Calibrating the shield" in step for step in steps)
    clean = next(m for m in measured if m["kind"] == "clean" and m["defence"] == "shield")
    known = [row for row in Ledger(own.work / "cells.jsonl").rows.values() if row.get("kind") == "clean"]
    assert clean in known and len([row for row in known if row["defence"] == "shield"]) == 2


def test_subjects_are_never_on_both_sides(dev_data: Path):
    for target in ("brain-tissue", "deepbet"):
        found = heads_for(target, dev_data)
        sides = {role: {h.subject for h in found if h.role is role} for role in Role}
        assert all(sides.values())
        for first in Role:
            for second in Role:
                assert first is second or not sides[first] & sides[second]
    trained_on = {h.subject for h in heads_for("brain-tissue", dev_data) if h.role is not Role.TEST}
    assert {f"nichart_Subj{n}" for n in range(1, 13)} <= trained_on


def test_no_head_of_a_calibration_that_ships_is_a_test(dev_data: Path):
    files = Path(calibration.__file__).parent.glob("data/*.calibration.json")
    calibrations = [Calibration.load(file) for file in files]
    assert {c.target_name for c in calibrations} == {"brain-tissue", "deepbet"}
    for made in calibrations:
        tests = {h.subject for h in heads_for(made.target_name, dev_data) if h.role is Role.TEST}
        assert set(HELD_OUT) <= tests and not tests & set(made.subjects)


@pytest.mark.parametrize("text", ["pgd:steps", "nonsense", "pgd:colour=3"])
def test_attacks_that_do_not_exist_are_refused_before_anything_runs(text, tmp_path):
    with pytest.raises(InputError):
        Plan(None, tmp_path, attacks=(text,))


def test_attacks_are_written_with_their_parameters():
    assert parse_attack("pgd:steps=100,loss=margin") == ("pgd", {"steps": 100, "loss": "margin"})


def test_durations_are_for_people():
    assert duration(59) == "1 min" and duration(3 * 3600 + 61) == "3 h 2 min"


def test_shields_of_every_size_come_from_the_calibration_that_ships(tmp_path):
    target = load_target("brain-tissue")
    ready = prepare(Setting(target, (), tmp_path, seed=0), [])
    shields = {name: ready.defence(name) for name in ("shield-quick", "shield-4", "shield")}
    assert [len(shield.calibration.versions) for shield in shields.values()] == [2, 4, 6]
    # The identity of a defence finds its finished cells: those of days of computing must stay found.
    shipped = replace(Calibration.shipped(target), second=None)
    assert shields["shield"].identity == shielded.Shielded(shipped).identity
