"""Figures of merit: what is counted of a run's rows, with intervals over subjects.

What is counted as what is in `rows.py`; the statistics themselves are in `metrics.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from MedShieldLib.evaluation.metrics import Estimate, Rate, auroc, over_subjects, rate_over_subjects
from MedShieldLib.evaluation.plan import SHIELDS, Kind
from MedShieldLib.evaluation.rows import EFFECTIVE, Row, grouped

SHIELD, SECOND = "shield", "shield-second"
# Dice lost unnoticed that counts as a silent failure, by bound in 255ths.
SILENT_DROP: dict[float, float] = {2: 0.05, 4: 0.05, 8: 0.10}


def deciding(rows: Iterable[Row]) -> str:
    """The shield whose figures decide: the plain one, or what stands for it in a run without it."""
    there = {r.defence for r in rows}
    return next((name for name in (SHIELD, *reversed(SHIELDS)) if name in there), SHIELD)


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
    return rate(effective, alarmed)


def silent_rate(rows: Sequence[Row], eps: float) -> Rate:
    """Share of attacks at one bound that fail silently."""
    drop = SILENT_DROP.get(eps, EFFECTIVE)
    at = [r for r in rows if r.kind.attacked and r.eps == eps]
    return rate(at, lambda r: r.silent_failure(drop))


def with_detector(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """By defence, those that detect."""
    found = grouped(rows, lambda r: r.defence)
    return {d: group for d, group in found.items() if not all(math.isnan(r.score) for r in group)}


def bounds_of(rows: Iterable[Row]) -> list[float]:
    """Those of the attacks, in 255ths."""
    return sorted({r.eps for r in rows if r.kind.attacked})


def estimate(rows: Sequence[Row], statistic: Callable[[list[Row]], float]) -> Estimate:
    """A statistic with its interval."""
    return over_subjects(grouped(rows, lambda r: r.subject), statistic)


def rate(rows: Sequence[Row], asked: Callable[[Row], bool]) -> Rate:
    """The share of rows of which something is true, with its interval."""
    by_subject = grouped(rows, lambda r: r.subject)
    return rate_over_subjects({s: [asked(r) for r in group] for s, group in by_subject.items()})


def mean(values: Iterable[float]) -> float:
    """NaN of nothing."""
    found = list(values)
    return float(np.mean(found)) if found else math.nan


def mean_of(attribute: str, rows: list[Row]) -> float:
    """Of one attribute."""
    return mean(getattr(row, attribute) for row in rows)


def least(values: Iterable[float]) -> float:
    """NaN of nothing."""
    return min(values, default=math.nan)


def alarmed(row: Row) -> bool:
    """Whether it was called an attack."""
    return row.alarm
