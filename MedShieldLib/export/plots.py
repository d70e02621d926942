"""Plots of a result as SVG that follows the colours of the page around it.

What the slices look like is in `planes.py`.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from MedShieldLib.result import EvidenceItem, SpectrumProfile

# Stand-ins that matplotlib writes and that become CSS variables of the page: it may be light or dark.
_INK, _FAINT, _ACCENT, _BAND = "#010203", "#010204", "#010205", "#010206"
_VARIABLES = {_INK: "var(--ink)", _FAINT: "var(--line)", _ACCENT: "var(--accent)", _BAND: "var(--band)"}

STRIP_BINS = 24


@dataclass(frozen=True)
class Strip:
    """One evidence item as a histogram of the clean values with a mark at the scan's own.

    Attributes:
        bars: x, width and height of each bar, in percent of the strip.
        mark: x of the scan's value in percent; None when it is not a number.
        typical: the 5 and 95 % quantiles of the clean values; None when there are none.
    """

    item: EvidenceItem
    bars: tuple[tuple[float, float, float], ...]
    mark: float | None
    typical: tuple[float, float] | None


def strip_of(item: EvidenceItem) -> Strip:
    """The histogram of an evidence item; its axis holds all clean values and the scan's own."""
    clean = item.clean[np.isfinite(item.clean)]
    known = np.append(clean, item.value) if np.isfinite(item.value) else clean
    if not known.size:
        return Strip(item, (), None, None)
    low, high = float(known.min()), float(known.max())
    margin = 0.04 * (high - low) or 1.0
    low, high = low - margin, high + margin
    counts, edges = np.histogram(clean, STRIP_BINS, (low, high))
    x = 100 * (edges - low) / (high - low)
    heights = 100 * counts / max(counts.max(), 1)
    bars = tuple((float(a), float(b - a), float(h)) for a, b, h in zip(x, x[1:], heights, strict=False) if h)
    mark = 100 * (item.value - low) / (high - low) if np.isfinite(item.value) else None
    if not clean.size:
        return Strip(item, bars, mark, None)
    lower, upper = np.percentile(clean, (5, 95))
    return Strip(item, bars, mark, (float(lower), float(upper)))


def spectrum_svg(spectrum: SpectrumProfile) -> str:
    """Radial power against spatial frequency, over the band of the calibration volumes."""
    figure = Figure(figsize=(5.4, 3.0), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    shown = spectrum.frequency > 0  # the mean intensity would flatten all the rest
    frequency = spectrum.frequency[shown]
    band = axes.fill_between(
        frequency, spectrum.clean_low[shown], spectrum.clean_high[shown], color=_BAND, linewidth=0
    )
    (line,) = axes.plot(frequency, spectrum.log_power[shown], color=_ACCENT, linewidth=1.8)
    axes.set_xlabel("Spatial frequency (cycles/mm)", color=_INK)
    axes.set_ylabel("Power (log10)", color=_INK)
    axes.margins(x=0)
    axes.grid(color=_FAINT, linewidth=0.6)
    axes.tick_params(colors=_INK, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    labels = ["Clean calibration scans, 5 to 95 %", "This scan"]
    axes.legend([band, line], labels, frameon=False, labelcolor=_INK)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # A style sheet inside an inline SVG holds for the whole page.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    return text
