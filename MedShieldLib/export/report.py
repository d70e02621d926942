"""The report of a check for people: one HTML file that needs nothing else, not even a network.

Here the figures; the page is in `report.html`, `report.css` and `report.js`, slices in `planes.py`,
plots in `plots.py`. Names come from files that may be hostile: the template escapes all that it is given.
"""

from __future__ import annotations

import base64
import hashlib
import math
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from MedShieldLib.export.json_result import library_versions
from MedShieldLib.export.planes import HEAT_COLORS, BodyAxes, heat_opacity, hex_color, planes_of
from MedShieldLib.export.plots import spectrum_svg, strip_of
from MedShieldLib.result import CheckResult
from MedShieldLib.words import p_sentences, words_for

_HERE = Path(__file__).parent
_TILT_WORTH_SAYING = 3.0


def render_report(result: CheckResult) -> str:
    """The whole page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(number=_number, signed=_signed)
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    strips = [strip_of(item) for item in result.evidence]
    return environment.get_template("report.html").render(
        result=result,
        name=result.volume.source.name if result.volume.source else "Scan without a file",
        words=words_for(result),
        p_sentences=p_sentences(result),
        notes=_notes(result),
        planes=planes_of(result),
        colors={s.value: hex_color(s) for s in result.original.structures},
        heat_stops=_heat_stops(),
        groups={kind: [s for s in strips if s.item.kind == kind] for kind in ("instability", "novelty")},
        spectrum=Markup(spectrum_svg(result.spectrum)),  # made here, of numbers alone
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        libraries=library_versions(),
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )


def _notes(result: CheckResult) -> list[str]:
    notes = list(result.notes)
    tilt = BodyAxes(result.volume).tilt_degrees
    if tilt >= _TILT_WORTH_SAYING:
        notes.append(
            f"The scan is tilted by {tilt:.0f} degrees against the body axes; slices follow the scan's own "
            "axes, and the letters at their edges name the nearest side of the body."
        )
    return notes


def _heat_stops() -> list[tuple[float, str, float]]:
    """Position in percent, colour and opacity of the colour bar's stops."""
    stops = []
    for n in range(9):
        red, green, blue, _ = HEAT_COLORS(n / 8)
        color = f"rgb({255 * red:.0f} {255 * green:.0f} {255 * blue:.0f})"
        stops.append((100 * n / 8, color, heat_opacity(n / 8) / 255))
    return stops


def _number(value: float, digits: int = 3) -> str:
    """Significant digits; a dash for what is not a number."""
    if not math.isfinite(value):
        return "–"
    return (f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}").replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−") if abs(value) >= 0.05 else "0.0"
