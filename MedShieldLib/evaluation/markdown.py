"""Figures and tables as Markdown writes them; a figure that there is none of is a dash."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from MedShieldLib.evaluation.metrics import Estimate, Rate
from MedShieldLib.evaluation.rows import Row


def table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; a sentence where there is no line."""
    body = ["| " + " | ".join(line) + " |" for line in lines]
    if not body:
        return "Nothing was measured."
    return "\n".join(["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings), *body])


def figure(estimate: Estimate, digits: int = 2) -> str:
    """With its counts in parentheses and its interval in brackets, if it has any."""
    text = number(estimate.value, digits)
    if isinstance(estimate, Rate) and estimate.total:
        text += f" ({counts([estimate])})"
    if math.isnan(estimate.low):
        return text
    return f"{text} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def pair(first: float, second: float) -> str:
    """First / second."""
    return f"{number(first, 3)} / {number(second, 3)}"


def number(value: float, digits: int) -> str:
    """Rounded."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def counts(rates: Sequence[Rate]) -> str:
    """How many of how many, over all of them."""
    return f"{sum(rate.found for rate in rates)} of {sum(rate.total for rate in rates)}"


def count_effective(rows: Sequence[Row]) -> str:
    """How many of the attacks were effective."""
    return f"{sum(r.effective for r in rows)} of {len(rows)}"
