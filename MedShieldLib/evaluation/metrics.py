"""Figures of merit: Dice of label maps, area under the ROC curve, intervals over subjects.

Plain functions of arrays; what is measured on what is in `benchmark.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.stats import binomtest

from MedShieldLib.agreement import dice
from MedShieldLib.volume import Segmentation

Item = TypeVar("Item")

_RESAMPLES = 1000
# Resampling fewer subjects tells nothing: with three, one resample in nine is a single subject.
LEAST_SUBJECTS = 5


def mean_dice(answer: Segmentation, reference: Segmentation) -> float:
    """Mean Dice over the structures that the reference has; NaN if it has none."""
    present = [s.value for s in reference.structures if (reference.labels == s.value).any()]
    scores = [dice(answer.labels == value, reference.labels == value) for value in present]
    return float(np.mean(scores)) if scores else float("nan")


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Chance that a positive scores above a negative, ties counting half; NaN if there are none of either."""
    if not len(positives) or not len(negatives):
        return float("nan")
    ours, theirs = np.asarray(positives, float)[:, None], np.asarray(negatives, float)[None]
    return float(np.mean((ours > theirs) + 0.5 * (ours == theirs)))


def roc(positives: Sequence[float], negatives: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """False and true alarm rate at every threshold, from (0, 0) to (1, 1)."""
    thresholds = np.r_[np.inf, np.unique([*positives, *negatives])[::-1]]
    rates = [[np.mean(np.asarray(group) >= t) for t in thresholds] for group in (negatives, positives)]
    return np.array(rates[0]), np.array(rates[1])


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval (both ends NaN where so few subjects give none)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rate(Estimate):
    """A share, `found` of `total`, with its interval."""

    found: int
    total: int


def over_subjects(
    by_subject: Mapping[str, Sequence[Item]], statistic: Callable[[list[Item]], float], seed: int = 0
) -> Estimate:
    """A statistic of all items, and its interval by bootstrap over subjects (Efron 1979; percentiles).

    Whole subjects are drawn with replacement, because the items of one subject are not independent. Of fewer
    than `LEAST_SUBJECTS` there is no interval.

    Args:
        by_subject: items of each subject.
        statistic: of the items of several subjects; NaN of a resample is left out.
        seed: of the resampling.
    """
    groups = list(by_subject.values())
    value = statistic([item for group in groups for item in group])
    if len(groups) < LEAST_SUBJECTS:
        return Estimate(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_RESAMPLES):
        chosen = rng.integers(len(groups), size=len(groups))
        drawn.append(statistic([item for n in chosen for item in groups[n]]))
    known = [x for x in drawn if not np.isnan(x)]
    if not known:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def rate_over_subjects(by_subject: Mapping[str, Sequence[bool]], seed: int = 0) -> Rate:
    """A share of all items, NaN if there are none, and its interval over subjects.

    Where all items agree, every resample does, and the bootstrap has no width: then it is the exact interval
    (Clopper and Pearson 1934) of as many agreeing subjects.
    """
    items = [bool(item) for group in by_subject.values() for item in group]
    if not items:
        return Rate(float("nan"), float("nan"), float("nan"), 0, 0)
    found = over_subjects(by_subject, lambda drawn: float(np.mean(drawn)), seed)
    low, high = found.low, found.high
    if len(by_subject) >= LEAST_SUBJECTS and len(set(items)) == 1:
        n = len(by_subject)
        exact = binomtest(n * items[0], n).proportion_ci(0.95, "exact")
        low, high = float(exact.low), float(exact.high)
    return Rate(found.value, low, high, sum(items), len(items))
