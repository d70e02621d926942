"""The tables of BENCHMARK.md, one function each.

What they count is in `figures.py`; they stand together in `report.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from MedShieldLib.evaluation.figures import (
    alarmed,
    auroc_by_pair,
    bounds_of,
    deciding,
    detection_rate,
    estimate,
    least,
    mean,
    mean_of,
    rate,
    silent_rate,
    with_detector,
)
from MedShieldLib.evaluation.markdown import count_effective, figure, number, table
from MedShieldLib.evaluation.plan import ALPHA, Kind
from MedShieldLib.evaluation.rows import Row, grouped

_DICE = ("original", "defended", "given")


def attacks(rows: Sequence[Row]) -> str:
    """Per target, attack and bound: how strong it was; who knows a shield attacks each of them anew."""
    lines = []
    # The others meet all defences with the same volumes.
    mine = [r for r in rows if r.kind is Kind.ATTACK and r.defence == rows[0].defence]
    mine += [r for r in rows if r.kind is Kind.ADAPTIVE]
    for (target, name, eps), group in grouped(mine, lambda r: (r.target, _title(r), r.eps)).items():
        dice = estimate(group, lambda g: mean(r.dice_original for r in g))
        lines.append(
            (
                target,
                name,
                f"{eps:g}",
                figure(dice),
                count_effective(group),
                number(255 * max(r.fact("linf") for r in group), 2),
                number(mean(r.fact("l2") for r in group), 1),
                number(mean(r.fact("ssim") for r in group), 3),
                number(mean(r.fact("passes") for r in group), 0),
                number(mean(r.fact("attack_s") for r in group), 0),
            )
        )
    headings = ("target", "attack", "eps", "Dice", "effective", "L-inf", "L2", "SSIM", "passes", "s")
    return table(headings, lines)


def _title(row: Row) -> str:
    return f"{row.name}, against {row.defence}" if row.kind is Kind.ADAPTIVE else row.name


def detection(rows: Sequence[Row]) -> str:
    """Per defence: AUROC and detection rates."""
    bounds = bounds_of(rows)
    lines = []
    for defence, group in with_detector(rows).items():
        pairs = auroc_by_pair(group)
        rates = [figure(detection_rate(group, eps)) for eps in bounds]
        lines.append(
            (
                defence,
                number(mean(pairs.values()), 3),
                number(least(pairs.values()), 3),
                number(mean(auroc_by_pair(group, shifted=False).values()), 3),
                *rates,
            )
        )
    eps_headings = [f"eps {eps:g}" for eps in bounds]
    return table(("defence", "AUROC mean", "worst", "clean only", *eps_headings), lines)


def detection_by_attack(rows: Sequence[Row]) -> str:
    """Of the shield that decides: AUROC and detection rates of every pair of target and attack."""
    shield = deciding(rows)
    mine = [r for r in rows if r.defence == shield]
    pairs, bounds = auroc_by_pair(mine), bounds_of(rows)
    lines = []
    for (target, name), area in pairs.items():
        group = [r for r in mine if (r.target, r.name) == (target, name)]
        rates = [figure(detection_rate(group, eps)) for eps in bounds]
        lines.append((target, name, f"{area:.3f}", *rates))
    return table(("target", "attack", "AUROC", *(f"eps {eps:g}" for eps in bounds)), lines)


def defended(rows: Sequence[Row]) -> str:
    """Per target and defence: Dice on effectively attacked volumes, by bound.

    What an attack did no harm to needs no defence: it would flatter all of them.
    """
    bounds, lines = bounds_of(rows), []
    attacked = [r for r in rows if r.kind is Kind.ATTACK]
    for (target, defence), group in grouped(attacked, lambda r: (r.target, r.defence)).items():
        cells = []
        for dice in ("dice_defended", "dice_given"):
            for eps in bounds:
                at = [r for r in group if r.eps == eps and r.effective]
                cells.append(figure(estimate(at, partial(mean_of, dice))))
        counts = [count_effective([r for r in group if r.eps == eps]) for eps in bounds]
        lines.append((target, defence, *cells, *counts))
    modes = ("always on", "gated", "effective")
    headings = [f"{mode}, eps {eps:g}" for mode in modes for eps in bounds]
    return table(("target", "defence", *headings), lines)


def harm(rows: Sequence[Row]) -> str:
    """Per target and defence: what it costs when nothing is wrong, in points of Dice."""
    clean = [r for r in rows if r.kind is Kind.CLEAN]
    lines = []
    for (target, defence), group in grouped(clean, lambda r: (r.target, r.defence)).items():
        always = estimate(group, lambda g: 100 * (1 - mean(r.dice_defended for r in g)))
        gated = estimate(group, lambda g: 100 * (1 - mean(r.dice_given for r in g)))
        lines.append((target, defence, figure(always, 1), figure(gated, 1)))
    return table(("target", "defence", "always on", "gated"), lines)


def false_alarms(rows: Sequence[Row]) -> str:
    """Per shift: share of alarms."""
    benign = [r for r in rows if r.kind in (Kind.CLEAN, Kind.SHIFT)]
    shield = deciding(rows)
    others = [d for d in with_detector(benign) if d != shield]
    lines = []
    for name, group in grouped(benign, lambda r: r.name or "none").items():
        mine = [r for r in group if r.defence == shield]
        rates = [figure(rate([r for r in group if r.defence == d], alarmed)) for d in others]
        attack, novel = rate(mine, alarmed), rate(mine, lambda r: r.unusual)
        lines.append((name, str(len(mine)), figure(attack), figure(novel), *rates))
    return table(("shift", "volumes", "attack", "out of distribution", *others), lines)


def knowing(rows: Sequence[Row]) -> str:
    """Per target, shield, adaptive attack and bound: what it does to the target, the alarm and the answer."""
    mine = [r for r in rows if r.kind is Kind.ADAPTIVE]
    lines = []
    for (target, defence, name, eps), group in grouped(
        mine, lambda r: (r.target, r.defence, r.name, r.eps)
    ).items():
        dice = [figure(estimate(group, partial(mean_of, f"dice_{of}"))) for of in _DICE]
        alarms = figure(rate(group, alarmed))
        lines.append((target, defence, name, f"{eps:g}", *dice, alarms, figure(silent_rate(group, eps))))
    headings = ("target", "defence", "attack", "eps", *_DICE, "alarms", "silent failures")
    return table(headings, lines)


def silent_failures(rows: Sequence[Row]) -> str:
    """Per target, defence and attack: share of silent failures by bound, and the passes that it spent."""
    bounds, lines = bounds_of(rows), []
    attacked = [r for r in rows if r.kind.attacked]
    by_attack = grouped(attacked, lambda r: (r.target, r.defence, r.name))
    for (target, defence, name), group in by_attack.items():
        rates = [figure(silent_rate(group, eps)) for eps in bounds]
        extra = mean(r.extra_inferences for r in group)
        passes = mean(r.fact("passes") for r in group)
        lines.append((target, defence, f"{extra:.0f}", name, number(passes, 0), *rates))
    eps_headings = [f"eps {eps:g}" for eps in bounds]
    return table(("target", "defence", "extra inferences", "attack", "passes", *eps_headings), lines)


def cost(rows: Sequence[Row]) -> str:
    """Per target and defence: extra inferences and own time beside them."""
    lines = []
    for (target, defence), group in grouped(rows, lambda r: (r.target, r.defence)).items():
        inferences = mean(r.extra_inferences for r in group)
        target_s, own_s = mean(r.target_s for r in group), mean(r.own_s for r in group)
        lines.append((target, defence, f"{inferences:.0f}", f"{target_s:.1f}", f"{own_s:.1f}"))
    return table(("target", "defence", "extra inferences", "s in the target", "s of its own"), lines)


def thresholds(rows: Sequence[Row]) -> str:
    """Which baselines have so few scores of calibration heads that they cannot raise an alarm at all."""
    clean = grouped((r for r in rows if r.kind is Kind.CALIBRATION), lambda r: (r.target, r.defence))
    few = {pair: len(group) for pair, group in clean.items() if ALPHA * (len(group) + 1) < 1}
    found = [
        f"{defence} on {target}: {n} clean scores, too few for {ALPHA:.0%}; it can raise no alarm."
        for (target, defence), n in few.items()
    ]
    return (
        "\n".join(f"- {line}" for line in found)
        or "Every baseline has enough clean scores for its threshold."
    )
