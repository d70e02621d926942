"""BENCHMARK.md: the figures of merit of a run, with intervals over subjects, in tables and plots.

What is counted as what is in `rows.py`; the plots are drawn in `plots.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from MedShieldLib import __version__
from MedShieldLib.evaluation.baselines import write_text
from MedShieldLib.evaluation.metrics import (
    LEAST_SUBJECTS,
    Estimate,
    Rate,
    auroc,
    over_subjects,
    rate_over_subjects,
)
from MedShieldLib.evaluation.plan import ALPHA, Kind, Plan
from MedShieldLib.evaluation.rows import EFFECTIVE, Row, grouped, rows_of, write_csv

SHIELD, SECOND = "shield", "shield-second"
_FLATTERED = (
    f"{SECOND} asks brain-tissue-robust for its second opinion, which was trained on nichart_Subj1 to 12 and "
    "MNI152. It draws these better than other heads, in the calibration as in the tests: figures on Subj1 to "
    "4 flatter it, and false alarms on other heads are more likely than the calibration tells."
)
_DICE = ("original", "defended", "given")
# Dice lost unnoticed that counts as a silent failure, by bound in 255ths.
SILENT_DROP: dict[float, float] = {2: 0.05, 4: 0.05, 8: 0.10}


def write_report(measured: list[dict], plan: Plan, folder: Path, command: str) -> Path:
    """Write benchmark.csv, the plots and BENCHMARK.md to `folder`; returns the last.

    Args:
        measured: what `benchmark.run` returned.
        plan: that it ran.
        folder: what is there already is replaced.
        command: stands above the figures.
    """
    from MedShieldLib.evaluation.plots import draw_all

    rows, skipped = rows_of(measured)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(rows, folder / "benchmark.csv")
    pictures = draw_all(rows, folder)
    path = folder / "BENCHMARK.md"
    write_text(path, report(rows, skipped, plan, pictures, command))
    return path


def report(rows: list[Row], skipped: list[str], plan: Plan, pictures: dict[str, str], command: str) -> str:
    """The text of BENCHMARK.md; `pictures` are titles and file names."""
    tests = [r for r in rows if r.kind is not Kind.CALIBRATION]
    parts = [
        "# Benchmark",
        _preamble(tests, plan, command),
        "## Goals",
        _goals(tests),
        "## Attacks",
        "Dice of the target alone on attacked volumes, against its answer to the clean ones; L-infinity is "
        "as achieved, in 255ths of the target's window. Effective: Dice drop of at least "
        f"{EFFECTIVE:g}; only these count in the figures of detection.",
        attacks(tests),
        "## Detection",
        f"Share of effective attacks that raise an alarm at {ALPHA:.0%}; AUROC against clean and shifted "
        "volumes of the same target (mean and worst over pairs of attack and target), and against clean "
        "ones alone.",
        detection(tests),
        _thresholds(rows),
        f"By attack, {SHIELD}:",
        detection_by_attack(tests),
        "## Defended segmentation",
        "Dice on effectively attacked volumes against the clean answer, always on and gated by the detector. "
        "The last columns say how many of the attacks were effective.",
        defended(tests),
        "On clean volumes, points of Dice lost:",
        harm(tests),
        "## False alarms",
        f"Share of benign volumes that {SHIELD} calls an attack, or out of distribution, at {ALPHA:.0%}; and "
        "of the other detectors, attack alarms alone.",
        false_alarms(tests),
        "## Attackers who know the shield",
        "Dice on volumes attacked by those who know everything but the seed of a check: of the target alone, "
        "of the shield's recommendation, and of what the user is given.",
        knowing(tests),
        "## Silent failures",
        "No attack alarm, and more Dice lost in what the user is given than .05 (.10 at 8/255).",
        silent_failures(tests),
        "## Cost",
        cost(tests),
    ]
    for title, name in pictures.items():
        parts += [f"## {title}", f"![{title}]({name})"]
    if skipped:
        parts += ["## Left out", "\n".join(f"- {reason}" for reason in skipped)]
    return "\n\n".join(parts) + "\n"


def attacks(rows: Sequence[Row]) -> str:
    """Per target, attack and bound: how strong it was."""
    lines = []
    mine = [r for r in rows if r.kind is Kind.ATTACK and r.defence == rows[0].defence]
    for (target, name, eps), group in grouped(mine, lambda r: (r.target, r.name, r.eps)).items():
        dice = _estimate(group, lambda g: _mean(r.dice_original for r in g))
        lines.append(
            (
                target,
                name,
                f"{eps:g}",
                _figure(dice),
                _count_effective(group),
                f"{255 * max(r.facts['linf'] for r in group):.2f}",
                f"{_mean(r.facts['ssim'] for r in group):.3f}",
                f"{_mean(r.facts['passes'] for r in group):.0f}",
                f"{_mean(r.facts['attack_s'] for r in group):.0f}",
            )
        )
    headings = ("target", "attack", "eps", "Dice", "effective", "L-inf", "SSIM", "passes", "s")
    return _table(headings, lines)


def detection(rows: Sequence[Row]) -> str:
    """Per defence: AUROC and detection rates."""
    bounds = _bounds(rows)
    lines = []
    for defence, group in _with_detector(rows).items():
        pairs = auroc_by_pair(group)
        rates = [_figure(detection_rate(group, eps)) for eps in bounds]
        lines.append(
            (
                defence,
                f"{_mean(pairs.values()):.3f}",
                f"{min(pairs.values(), default=math.nan):.3f}",
                f"{_mean(auroc_by_pair(group, shifted=False).values()):.3f}",
                *rates,
            )
        )
    eps_headings = [f"eps {eps:g}" for eps in bounds]
    return _table(("defence", "AUROC mean", "worst", "clean only", *eps_headings), lines)


def detection_by_attack(rows: Sequence[Row]) -> str:
    """Of the shield: AUROC and detection rates of every pair of target and attack."""
    mine = [r for r in rows if r.defence == SHIELD]
    pairs, bounds = auroc_by_pair(mine), _bounds(rows)
    lines = []
    for (target, name), area in pairs.items():
        group = [r for r in mine if (r.target, r.name) == (target, name)]
        rates = [_figure(detection_rate(group, eps)) for eps in bounds]
        lines.append((target, name, f"{area:.3f}", *rates))
    return _table(("target", "attack", "AUROC", *(f"eps {eps:g}" for eps in bounds)), lines)


def defended(rows: Sequence[Row]) -> str:
    """Per target and defence: Dice on effectively attacked volumes, by bound.

    What an attack did no harm to needs no defence: it would flatter all of them.
    """
    bounds, lines = _bounds(rows), []
    attacked = [r for r in rows if r.kind is Kind.ATTACK]
    for (target, defence), group in grouped(attacked, lambda r: (r.target, r.defence)).items():
        cells = []
        for dice in ("dice_defended", "dice_given"):
            for eps in bounds:
                at = [r for r in group if r.eps == eps and r.effective]
                cells.append(_figure(_estimate(at, partial(_mean_of, dice))))
        counts = [_count_effective([r for r in group if r.eps == eps]) for eps in bounds]
        lines.append((target, defence, *cells, *counts))
    modes = ("always on", "gated", "effective")
    headings = [f"{mode}, eps {eps:g}" for mode in modes for eps in bounds]
    return _table(("target", "defence", *headings), lines)


def harm(rows: Sequence[Row]) -> str:
    """Per target and defence: what it costs when nothing is wrong, in points of Dice."""
    clean = [r for r in rows if r.kind is Kind.CLEAN]
    lines = []
    for (target, defence), group in grouped(clean, lambda r: (r.target, r.defence)).items():
        always = _estimate(group, lambda g: 100 * (1 - _mean(r.dice_defended for r in g)))
        gated = _estimate(group, lambda g: 100 * (1 - _mean(r.dice_given for r in g)))
        lines.append((target, defence, _figure(always, 1), _figure(gated, 1)))
    return _table(("target", "defence", "always on", "gated"), lines)


def false_alarms(rows: Sequence[Row]) -> str:
    """Per shift: share of alarms."""
    benign = [r for r in rows if r.kind in (Kind.CLEAN, Kind.SHIFT)]
    others = [d for d in _with_detector(benign) if d != SHIELD]
    lines = []
    for name, group in grouped(benign, lambda r: r.name or "none").items():
        mine = [r for r in group if r.defence == SHIELD]
        rates = [_figure(_rate([r for r in group if r.defence == d], _alarmed)) for d in others]
        attack, novel = _rate(mine, _alarmed), _rate(mine, lambda r: r.unusual)
        lines.append((name, str(len(mine)), _figure(attack), _figure(novel), *rates))
    return _table(("shift", "volumes", "attack", "out of distribution", *others), lines)


def knowing(rows: Sequence[Row]) -> str:
    """Per target, shield, adaptive attack and bound: what it does to the target, the alarm and the answer."""
    mine = [r for r in rows if r.kind is Kind.ADAPTIVE]
    lines = []
    for (target, defence, name, eps), group in grouped(
        mine, lambda r: (r.target, r.defence, r.name, r.eps)
    ).items():
        dice = [_figure(_estimate(group, partial(_mean_of, f"dice_{of}"))) for of in _DICE]
        alarms = _figure(_rate(group, _alarmed))
        lines.append((target, defence, name, f"{eps:g}", *dice, alarms, _figure(silent_rate(group, eps))))
    headings = ("target", "defence", "attack", "eps", *_DICE, "alarms", "silent failures")
    return _table(headings, lines)


def silent_failures(rows: Sequence[Row]) -> str:
    """Per target, defence and attack: share of silent failures by bound, and the passes that it spent."""
    bounds, lines = _bounds(rows), []
    attacked = [r for r in rows if r.kind.attacked]
    by_attack = grouped(attacked, lambda r: (r.target, r.defence, r.name))
    for (target, defence, name), group in by_attack.items():
        rates = [_figure(silent_rate(group, eps)) for eps in bounds]
        extra = _mean(r.extra_inferences for r in group)
        passes = _mean(r.facts["passes"] for r in group)
        lines.append((target, defence, f"{extra:.0f}", name, f"{passes:.0f}", *rates))
    eps_headings = [f"eps {eps:g}" for eps in bounds]
    return _table(("target", "defence", "extra inferences", "attack", "passes", *eps_headings), lines)


def cost(rows: Sequence[Row]) -> str:
    """Per target and defence: extra inferences and own time beside them."""
    lines = []
    for (target, defence), group in grouped(rows, lambda r: (r.target, r.defence)).items():
        inferences = _mean(r.extra_inferences for r in group)
        target_s, own_s = _mean(r.target_s for r in group), _mean(r.own_s for r in group)
        lines.append((target, defence, f"{inferences:.0f}", f"{target_s:.1f}", f"{own_s:.1f}"))
    return _table(("target", "defence", "extra inferences", "s in the target", "s of its own"), lines)


def auroc_by_pair(rows: Sequence[Row], shifted: bool = True) -> dict[tuple[str, str], float]:
    """AUROC of one defence for every (target, attack) with effective attacks, all bounds together.

    Against the target's clean volumes, and the benignly shifted ones unless `shifted` is False.
    """
    kinds = (Kind.CLEAN, Kind.SHIFT) if shifted else (Kind.CLEAN,)
    negatives = grouped((r for r in rows if r.kind in kinds), lambda r: r.target)
    effective = [r for r in rows if r.kind is Kind.ATTACK and r.effective]
    return {
        (target, name): auroc([r.score for r in group], [r.score for r in negatives[target]])
        for (target, name), group in grouped(effective, lambda r: (r.target, r.name)).items()
        if target in negatives
    }


def detection_rate(rows: Sequence[Row], eps: float) -> Rate:
    """Share of effective attacks at one bound that raise an alarm."""
    effective = [r for r in rows if r.kind is Kind.ATTACK and r.eps == eps and r.effective]
    return _rate(effective, _alarmed)


def silent_rate(rows: Sequence[Row], eps: float) -> Rate:
    """Share of attacks at one bound that fail silently."""
    drop = SILENT_DROP.get(eps, EFFECTIVE)
    at = [r for r in rows if r.kind.attacked and r.eps == eps]
    return _rate(at, lambda r: r.silent_failure(drop))


def _goals(rows: Sequence[Row]) -> str:
    """The figures that decide, of the shield alone, beside what was aimed at."""
    mine = [r for r in rows if r.defence == SHIELD]
    if not mine:
        return "The shield was not among the defences of this run."
    areas = auroc_by_pair(mine).values()
    lines = [("AUROC, mean / worst pair", ">= .995 / >= .97", _pair(_mean(areas), _least(areas)))]
    for eps, goal in ((2, ".90"), (4, ".98"), (8, "1.0")):
        name = f"detection of effective attacks at {ALPHA:.0%}, eps {eps}"
        lines.append((name, f">= {goal}", _figure(detection_rate(mine, eps))))
    lines += [_alarms_goal(mine), *_defended_goals(mine), *_knowing_goals(mine)]
    lost = [
        100 * (1 - _mean_of(dice, [r for r in mine if r.kind is Kind.CLEAN]))
        for dice in ("dice_given", "dice_defended")
    ]
    lines.append(("clean Dice lost, points, gated / always on", "<= .2 / <= 1.5", _pair(*lost)))
    lines.append(("extra inferences of a check", "<= 6", f"{_mean(r.extra_inferences for r in mine):.0f}"))
    return _table(("figure", "goal", "measured"), lines)


def _alarms_goal(rows: Sequence[Row]) -> tuple[str, str, str]:
    by_shift = grouped((r for r in rows if r.kind is Kind.SHIFT), lambda r: r.name).values()
    rates = [_rate(group, _alarmed) for group in by_shift]
    worst = max(rates, key=lambda rate: rate.value, default=_rate([], _alarmed))
    found = _pair(_mean(r.value for r in rates), worst.value)
    return (
        "false alarms per shift, mean / worst",
        "<= .05 / <= .06",
        f"{found} ({_counts(rates)} / {_counts([worst])})",
    )


def _defended_goals(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Of effective attacks only: an attack that does nothing says nothing about a defence."""
    lines = []
    for eps, goal in ((4, ".96"), (8, ".93")):
        at = [r for r in rows if r.kind is Kind.ATTACK and r.eps == eps]
        effective = grouped((r for r in at if r.effective), lambda r: (r.target, r.name))
        means = [_mean_of("dice_given", group) for group in effective.values()]
        name = f"defended / clean Dice of effective attacks, eps {eps}, mean / worst pair"
        found = f"{_pair(_mean(means), _least(means))} ({_count_effective(at)} effective)"
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
        found = _pair(worst.value, _mean(either))
        lines.append((name, f"<= {goal}", f"{found} ({_counts([worst])} / {sum(either)} of {len(either)})"))
    pairs = _pairs_of([r for r in adaptive if r.eps == 8])
    for dice, what in (("dice_defended", "vote, whether there was an alarm or not"), ("dice_given", "given")):
        means = [_mean_of(dice, group) for group in pairs]
        name = f"adaptive, eps 8: {what} / clean Dice, mean / strongest attack on a target"
        found = f"{_pair(_mean(means), _least(means))} (all {sum(map(len, pairs))})"
        lines.append((name, ">= .93", found))
    return lines


def _pairs_of(rows: Sequence[Row]) -> list[list[Row]]:
    return list(grouped(rows, lambda r: (r.target, r.name)).values())


def _thresholds(rows: Sequence[Row]) -> str:
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


def _preamble(rows: Sequence[Row], plan: Plan, command: str) -> str:
    subjects = grouped(rows, lambda r: r.target)
    lines = [
        f"Written by `{command}`, MedShield {__version__}, seed {plan.seed}. Parentheses hold counts. "
        f"Brackets hold 95 % intervals by bootstrap over subjects, from {LEAST_SUBJECTS} subjects on (exact "
        "ones of as many subjects where all volumes agree); fewer subjects tell no interval.",
        "",
    ]
    for target, group in subjects.items():
        names = sorted({r.subject for r in group if r.kind is Kind.CLEAN})
        lines.append(f"- {target}: tested on {len(names)} subjects ({', '.join(names)})")
    if any(r.defence == SECOND for r in rows):
        lines += ["", _FLATTERED]
    if plan.data is None:
        lines += ["", "**A trial run on one head that the target was trained on: it shows that all works.**"]
    return "\n".join(lines)


def _with_detector(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found = grouped(rows, lambda r: r.defence)
    return {d: group for d, group in found.items() if not all(math.isnan(r.score) for r in group)}


def _bounds(rows: Iterable[Row]) -> list[float]:
    return sorted({r.eps for r in rows if r.kind.attacked})


def _estimate(rows: Sequence[Row], statistic: Callable[[list[Row]], float]) -> Estimate:
    return over_subjects(grouped(rows, lambda r: r.subject), statistic)


def _rate(rows: Sequence[Row], asked: Callable[[Row], bool]) -> Rate:
    by_subject = grouped(rows, lambda r: r.subject)
    return rate_over_subjects({s: [asked(r) for r in group] for s, group in by_subject.items()})


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else math.nan


def _mean_of(attribute: str, rows: list[Row]) -> float:
    return _mean(getattr(row, attribute) for row in rows)


def _least(values: Iterable[float]) -> float:
    return min(values, default=math.nan)


def _alarmed(row: Row) -> bool:
    return row.alarm


def _counts(rates: Sequence[Rate]) -> str:
    return f"{sum(rate.found for rate in rates)} of {sum(rate.total for rate in rates)}"


def _count_effective(rows: Sequence[Row]) -> str:
    return f"{sum(r.effective for r in rows)} of {len(rows)}"


def _pair(first: float, second: float) -> str:
    return f"{_number(first, 3)} / {_number(second, 3)}"


def _figure(estimate: Estimate, digits: int = 2) -> str:
    text = _number(estimate.value, digits)
    if isinstance(estimate, Rate) and estimate.total:
        text += f" ({_counts([estimate])})"
    if math.isnan(estimate.low):
        return text
    return f"{text} [{_number(estimate.low, digits)}, {_number(estimate.high, digits)}]"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    body = ["| " + " | ".join(line) + " |" for line in lines]
    if not body:
        return "Nothing was measured."
    return "\n".join(["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings), *body])
