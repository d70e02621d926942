"""The report of a check for people: one HTML file that needs nothing else, not even a network.

Here the words and figures; the page is in `report.html`, `report.css` and `report.js`, slices in `planes.py`,
plots in `plots.py`. Names come from files that may be hostile: the template escapes all that it is given.
"""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from MedShieldLib.export.json_result import library_versions
from MedShieldLib.export.planes import HEAT_COLORS, BodyAxes, heat_opacity, hex_color, planes_of
from MedShieldLib.export.plots import spectrum_svg, strip_of
from MedShieldLib.result import CheckResult, Verdict

_HERE = Path(__file__).parent
_TILT_WORTH_SAYING = 3.0


@dataclass(frozen=True)
class Words:
    """A verdict for the reader: what was found, and what to do."""

    title: str
    meaning: str
    advice: str


VERDICT_WORDS = {
    Verdict.CLEAN: Words(
        "No sign of tampering",
        "The model's answer is as stable on this scan as on clean scans.",
        "The defended segmentation is the original one, unchanged.",
    ),
    Verdict.OUT_OF_DISTRIBUTION: Words(
        "Unlike the scans that MedShield was calibrated on",
        "There is no sign of tampering, but the scan differs from the calibration scans: another scanner, "
        "contrast, resolution or image quality, for instance.",
        "The model may be unreliable here. Check both segmentations against the anatomy.",
    ),
    Verdict.SUSPECTED_ATTACK: Words(
        "Suspected tampering",
        "Hidden detail in this scan, which anatomy does not explain, changes what the model segments.",
        "Do not rely on the original segmentation. Review the defended one against the anatomy, and get the "
        "scan from its source again.",
    ),
}


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
        words=VERDICT_WORDS[result.verdict],
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


def p_sentences(result: CheckResult) -> tuple[str, str]:
    """What the two p-values mean, for tampering and for novelty, one sentence each."""
    endings = (
        (result.p_attack, "make the model's answer at least as unstable as this one"),
        (result.p_novelty, "look at least as unusual as this one"),
    )
    return tuple(_p_sentence(p, ending) for p, ending in endings)  # type: ignore[return-value]


def _p_sentence(p: float, ending: str) -> str:
    if math.isnan(p):
        return "There is no p-value for this check."
    share = "Fewer than 1" if p < 0.01 else f"About {100 * p:.0f}"
    return f"{share} in 100 clean scans like those of the calibration {ending}."


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
