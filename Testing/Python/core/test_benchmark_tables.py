"""What the benchmark prints of rows that are made up here: which count, how many, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedShieldLib.evaluation import plots, report, tables
from MedShieldLib.evaluation.metrics import over_subjects, rate_over_subjects
from MedShieldLib.evaluation.plan import Kind, Plan
from MedShieldLib.evaluation.rows import Row

FACTS = {"linf": 0.03, "l2": 1.0, "ssim": 0.9, "passes": 41.0, "attack_s": 1.0}
# An attack that halves the target's Dice and is caught, after which the vote holds .9.
CAUGHT = Row("a", "s1", Kind.ATTACK, "pgd", 8.0, 0, "shield", 9.0, 0.01, 1.0, 0.5, 0.9, 6, 1.0, 1.0, FACTS)
CLEAN = replace(CAUGHT, kind=Kind.CLEAN, name="", eps=0.0, score=0.0, p_attack=0.9, dice_original=1.0)
ADAPTIVE = replace(CAUGHT, kind=Kind.ADAPTIVE, name="adaptive-stability")
SILENT = replace(ADAPTIVE, p_attack=0.9)


def printed(rows: list[Row], figure: str) -> str:
    """What stands in the goals beside a figure."""
    plan = Plan(None, Path("work"))
    lines = report.rendered([CLEAN, *rows], [], plan, {}, "command").splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {figure}"))
    return line.split(" | ")[2].removesuffix(" |")


def cells(table: str, line: int = 0) -> dict[str, str]:
    """A line of a table by its headings."""
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()]
    return dict(zip(rows[0], rows[2 + line], strict=True))


def test_attacks_that_do_nothing_do_not_count_as_defended():
    idle = replace(CAUGHT, subject="s2", dice_original=0.99, p_attack=0.9)
    figure = "defended / clean Dice of effective attacks, eps 8"
    assert printed([CAUGHT, idle], figure) == "0.900 / 0.900 (1 of 2 effective)"
    found = cells(tables.defended([CAUGHT, idle]))
    assert found["gated, eps 8"] == found["always on, eps 8"] == "0.90"
    assert found["effective, eps 8"] == "1 of 2"


def test_the_report_says_who_gives_the_second_opinion():
    asked = replace(CLEAN, defence="shield-second")
    for second, said in (
        ("brain-tissue-robust", "It was trained on nichart_Subj1 to 12 and MNI152 and"),
        ("deepbet-coarse-hardened", "nv_spm152, nv_MR_Gd and nv_FLAIR and draws these better"),
        ("copy.json", "asks copy.json for its second opinion.\n"),
    ):
        text = report.rendered([asked], [], Plan(None, Path("work"), second_opinion=second), {}, "command")
        assert said in text and said not in report.rendered([CLEAN], [], Plan(None, Path("work")), {}, "c")


def test_goals_are_those_of_the_plain_shield_or_of_what_stands_for_it():
    lost = [replace(row, defence="shield-second", p_attack=0.9) for row in (CLEAN, CAUGHT)]
    none = [replace(row, defence="none", p_attack=math.nan) for row in (CLEAN, CAUGHT)]
    for rows, name, seen in (
        ([CLEAN, CAUGHT, *lost], "shield", "1.00 (1 of 1)"),
        ([*none, *lost], "shield-second", "0.00 (0 of 1)"),
    ):
        text = report.rendered(rows, [], Plan(None, Path("work")), {}, "command")
        assert f"| figure | goal | {name} |" in text
        assert f"detection of effective attacks at 5%, eps 8 | >= 1.0 | {seen} |" in text
        assert f"By attack, {name}:" in text and f"volumes that {name} calls an attack" in text
    assert "No shield was among" in report.rendered(none, [], Plan(None, Path("work")), {}, "command")


def test_what_the_vote_has_is_not_what_the_user_is_given_without_an_alarm():
    vote = printed([SILENT], "adaptive, eps 8: vote, whether there was an alarm or not / clean Dice")
    given = printed([SILENT], "adaptive, eps 8: given / clean Dice")
    assert vote == "0.900 / 0.900 (all 1)" and given == "0.500 / 0.500 (all 1)"


def test_a_target_that_is_lost_is_not_averaged_away():
    rows = [replace(ADAPTIVE, subject=f"s{n}") for n in range(3)] + [replace(SILENT, target="b")]
    found = printed(rows, "adaptive, eps 8: silent failures")
    assert found == "1.000 / 0.250 (1 of 1 / 1 of 4)"
    assert printed(rows, "adaptive, eps 8: given") == "0.700 / 0.500 (all 4)"
    table = tables.silent_failures(rows)
    assert [cells(table, n)["target"] for n in range(2)] == ["a", "b"]
    assert [cells(table, n)["eps 8"] for n in range(2)] == ["0.00 (0 of 3)", "1.00 (1 of 1)"]


def test_every_rate_is_printed_with_its_counts_and_few_subjects_have_no_interval():
    rows = [replace(CAUGHT, subject=f"s{n}") for n in range(3)]
    assert printed(rows, "detection of effective attacks at 5%, eps 8") == "1.00 (3 of 3)"
    shifts = [replace(CLEAN, kind=Kind.SHIFT, name="blur"), replace(CAUGHT, kind=Kind.SHIFT, name="gamma")]
    assert printed(shifts, "false alarms per shift") == "0.500 / 1.000 (1 of 2 / 1 of 1)"
    line = cells(tables.false_alarms([*shifts, replace(shifts[0], defence="gaussian")]))
    assert line["attack"] == line["out of distribution"] == line["gaussian"] == "0.00 (0 of 1)"


def test_from_five_subjects_on_the_interval_is_printed():
    rows = [replace(CAUGHT, subject=f"s{n}", p_attack=0.01 if n else 0.9) for n in range(5)]
    found = printed(rows, "detection of effective attacks at 5%, eps 8")
    assert found.startswith("0.80 (4 of 5) [") and found.endswith(", 1.00]")


@pytest.mark.parametrize("subjects", [1, 2, 4])
def test_few_subjects_give_no_interval(subjects):
    found = over_subjects({str(n): [float(n)] for n in range(subjects)}, lambda items: float(np.mean(items)))
    rate = rate_over_subjects({str(n): [True, False] for n in range(subjects)})
    assert math.isnan(found.low) and math.isnan(found.high) and math.isnan(rate.low)
    assert (rate.value, rate.found, rate.total) == (0.5, subjects, 2 * subjects)


@pytest.mark.parametrize("always", [True, False])
def test_subjects_that_all_agree_leave_room_for_one_that_does_not(always):
    rate = rate_over_subjects({str(n): [always] * 50 for n in range(6)})
    # Clopper and Pearson of 6 of 6, not of 300 of 300: (alpha / 2) ^ (1 / 6).
    edge = 0.025 ** (1 / 6)
    assert (rate.low, rate.high) == pytest.approx((edge, 1.0) if always else (0.0, 1 - edge))
    assert (rate.found, rate.total) == (300 * always, 300)


def test_a_rate_of_nothing_is_unknown():
    assert math.isnan(rate_over_subjects({}).value)


def test_shields_of_several_sizes_are_drawn_against_their_inferences(tmp_path):
    few = replace(SILENT, defence="shield-quick", extra_inferences=2)
    drawn = plots.draw_all([CLEAN, SILENT, few, replace(ADAPTIVE, eps=4.0)], tmp_path)
    text = (tmp_path / drawn["Attackers who know the shield, against its extra inferences"]).read_text()
    assert "silent failures, 8/255" in text and "silent failures, 4/255" in text
    assert "inferences.svg" not in plots.draw_all([CLEAN, SILENT], tmp_path).values()
