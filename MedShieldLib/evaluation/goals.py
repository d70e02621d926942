"""What the benchmark is run for: the figures that decide, beside what was aimed at."""

from __future__ import annotations

from collections.abc import Sequence

from MedShieldLib.evaluation.figures import (
    SILENT_DROP,
    alarmed,
    auroc_by_pair,
    deciding,
    detection_rate,
    least,
    mean,
    mean_of,
    rate,
    silent_rate,
)
from MedShieldLib.evaluation.markdown import count_effective, counts, figure, pair, table
from MedShieldLib.evaluation.plan import ALPHA, Kind
from MedShieldLib.evaluation.rows import Row, grouped


def goals(rows: Sequence[Row]) -> str:
    """The figures of one shield, beside what was aimed at."""
    shield = deciding(rows)
    mine = [r for r in rows if r.defence == shield]
    if not mine:
        return "No shield was among the defences of this run."
    areas = auroc_by_pair(mine).values()
    lines = [("AUROC, mean / worst pair", ">= .995 / >= .97", pair(mean(areas), least(areas)))]
    for eps, goal in ((2, ".90"), (4, ".98"), (8, "1.0")):
        name = f"detection of effective attacks at {ALPHA:.0%}, eps {eps}"
        lines.append((name, f">= {goal}", figure(detection_rate(mine, eps))))
    lines += [_alarms_goal(mine), *_defended_goals(mine), *_knowing_goals(mine)]
    lost = [
        100 * (1 - mean_of(dice, [r for r in mine if r.kind is Kind.CLEAN]))
        for dice in ("dice_given", "dice_defended")
    ]
    lines.append(("clean Dice lost, points, gated / always on", "<= .2 / <= 1.5", pair(*lost)))
    lines.append(("extra inferences of a check", "<= 6", f"{mean(r.extra_inferences for r in mine):.0f}"))
    return table(("figure", "goal", shield), lines)


def _alarms_goal(rows: Sequence[Row]) -> tuple[str, str, str]:
    by_shift = grouped((r for r in rows if r.kind is Kind.SHIFT), lambda r: r.name).values()
    rates = [rate(group, alarmed) for group in by_shift]
    worst = max(rates, key=lambda rate: rate.value, default=rate([], alarmed))
    found = pair(mean(r.value for r in rates), worst.value)
    return (
        "false alarms per shift, mean / worst",
        "<= .05 / <= .06",
        f"{found} ({counts(rates)} / {counts([worst])})",
    )


def _defended_goals(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Of effective attacks only: an attack that does nothing says nothing about a defence."""
    lines = []
    for eps, goal in ((4, ".96"), (8, ".93")):
        at = [r for r in rows if r.kind is Kind.ATTACK and r.eps == eps]
        effective = grouped((r for r in at if r.effective), lambda r: (r.target, r.name))
        means = [mean_of("dice_given", group) for group in effective.values()]
        name = f"defended / clean Dice of effective attacks, eps {eps}, mean / worst pair"
        found = f"{pair(mean(means), least(means))} ({count_effective(at)} effective)"
        lines.append((name, f">= {goal}", found))
    return lines


def _knowing_goals(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """The strongest adaptive attack, and the worst of all on each volume: an attacker can try them all.

    Each attack on each target by itself, so that a target that is lost is not averaged away.
    """
    adaptive = [r for r in rows if r.kind is Kind.ADAPTIVE]
    lines = []
    for eps, goal in ((4, ".25"), (8, ".20")):
        at = [r for r in adaptive if r.eps == eps]
        rates = [silent_rate(group, eps) for group in _pairs_of(at)]
        worst = max(rates, key=lambda rate: rate.value, default=silent_rate([], eps))
        on_each = grouped(at, lambda r: (r.target, r.subject)).values()
        either = [any(r.silent_failure(SILENT_DROP[eps]) for r in group) for group in on_each]
        name = f"adaptive, eps {eps}: silent failures, strongest attack on a target / best of all"
        found = pair(worst.value, mean(either))
        lines.append((name, f"<= {goal}", f"{found} ({counts([worst])} / {sum(either)} of {len(either)})"))
    pairs = _pairs_of([r for r in adaptive if r.eps == 8])
    for dice, what in (("dice_defended", "vote, whether there was an alarm or not"), ("dice_given", "given")):
        means = [mean_of(dice, group) for group in pairs]
        name = f"adaptive, eps 8: {what} / clean Dice, mean / strongest attack on a target"
        found = f"{pair(mean(means), least(means))} (all {sum(map(len, pairs))})"
        lines.append((name, ">= .93", found))
    return lines


def _pairs_of(rows: Sequence[Row]) -> list[list[Row]]:
    return list(grouped(rows, lambda r: (r.target, r.name)).values())
