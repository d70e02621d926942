"""What the panel says: the banner in plain words, and why a control cannot be used.

Pure functions of what is known; widgets and nodes are changed elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from MedShieldLib.result import Verdict
from MedShieldLib.slicer import environment
from MedShieldLib.slicer.text import _
from MedShieldLib.words import words_of

# Foreground and background of a verdict.
_COLORS = {
    Verdict.CLEAN: ("#10391F", "#CDEBD6"),
    Verdict.OUT_OF_DISTRIBUTION: ("#4A3500", "#FBE7B2"),
    Verdict.SUSPECTED_ATTACK: ("#5C0E0E", "#F8CFCF"),
}


@dataclass(frozen=True)
class Banner:
    """A message with its colours (CSS); `html` is ready to be shown."""

    html: str
    foreground: str
    background: str

    @property
    def style(self) -> str:
        """As a Qt style sheet."""
        return f"color: {self.foreground}; background-color: {self.background}; border-radius: 4px;"


@dataclass(frozen=True)
class Situation:
    """All that decides which controls can be used.

    `parts` are the roles of the result's nodes that exist; `differs` says whether original and defended do,
    `comparing` whether the views show them side by side.
    """

    has_input: bool = False
    checking: bool = False
    calibrating: bool = False
    stopping: bool = False
    parts: frozenset[str] = frozenset()
    has_result: bool = False
    differs: bool = False
    comparing: bool = False
    from_dicom: bool = False
    can_compare: bool = True
    export_chosen: bool = False
    has_export_folder: bool = False
    has_clean_folder: bool = False
    missing_packages: int = 0
    removable_packages: int = 0

    @property
    def busy(self) -> bool:
        """Whether a worker runs."""
        return self.checking or self.calibrating


def nothing_yet() -> Banner:
    """Before the first check."""
    return neutral(_("Not checked yet."))


def neutral(text: str) -> Banner:
    """A message that is no verdict."""
    return Banner(escape(text), "#1F2933", "#E4E7EB")


def failure(text: str) -> Banner:
    """Something went wrong, and nothing was judged."""
    return Banner(f"<b>{escape(_('No verdict.'))}</b><br>{escape(text)}", "#1F2933", "#F7D9C4")


def verdict_banner(data: Mapping[str, Any]) -> Banner:
    """The verdict in plain words, from the content of `result.json`."""
    words = words_of(Verdict(data["verdict"]), data["alpha"], data["calibration"]["n_scores"])
    title, text = _(words.title), f"{_(words.meaning)} {_(words.advice)}"
    figures = _("p (attack) = {attack}, p (novelty) = {novelty}; alarm at p ≤ {alpha}: {rate}").format(
        attack=_p(data["p_attack"]), novelty=_p(data["p_novelty"]), alpha=_p(data["alpha"]), rate=_rate(data)
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in data["notes"])
    html = f"<b style='font-size: large'>{escape(title)}</b><br>{escape(text)}"
    html += f"<br><small>{escape(figures)}</small>" + (f"<ul>{notes}</ul>" if notes else "")
    return Banner(html, *_COLORS[words.look])


def target_choices(recent: Iterable[str], has_deepbet: bool) -> list[tuple[str, str]]:
    """(text for the user, target) of all targets to choose from: built-in ones, then recent model files."""
    deepbet = _("deepbet (brain mask)") if has_deepbet else _("deepbet (brain mask; is installed when used)")
    built_in = [(_("Brain tissue (reference target)"), "brain-tissue"), (deepbet, "deepbet")]
    return built_in + [(Path(file).name, file) for file in recent]


def opinion_choices(recent: Iterable[str], has_deepbet: bool) -> list[tuple[str, str]]:
    """(text for the user, target) of all who can give a second opinion; nobody is the first choice."""
    copy = _("deepbet, hardened copy") if has_deepbet else _("deepbet, hardened copy (installed when used)")
    robust = (_("Brain tissue, robust twin"), "brain-tissue-robust")
    built_in = [(_("nobody"), ""), robust, (copy, "deepbet-coarse-hardened")]
    return built_in + [(Path(file).name, file) for file in recent]


def extra_packages(*targets: str) -> list[str]:
    """Requirements of targets beyond those of every check."""
    return [*environment.DEEPBET] if any(name.startswith("deepbet") for name in targets) else []


def remembered(recent: Iterable[str], target: str, most: int = 8) -> list[str]:
    """The recent model files with `target` first, without those that are gone."""
    files = dict.fromkeys([target, *recent])
    return [file for file in files if Path(file).suffix == ".json" and Path(file).is_file()][:most]


def agreement_header() -> list[str]:
    """Column titles of `agreement_rows`."""
    return [_("Structure"), "Dice", "HD95 (mm)", _("Original (ml)"), _("Defended (ml)")]


def evidence_header() -> list[str]:
    """Column titles of `evidence_rows`."""
    return [_("Evidence"), _("Kind"), _("Value"), _("Percentile")]


def agreement_rows(data: Mapping[str, Any]) -> list[list[str]]:
    """One row for each structure: name, Dice, HD95 in mm, original ml, defended ml."""
    keys = ("dice", "hd95_mm", "original_ml", "defended_ml")
    formats = ("{:.3f}", "{:.1f}", "{:.1f}", "{:.1f}")
    return [
        [s["name"], *(_figure(s[key], form) for key, form in zip(keys, formats, strict=True))]
        for s in data["structures"]
    ]


def evidence_rows(data: Mapping[str, Any]) -> list[list[str]]:
    """One row for each number of the detector: name, kind, value, percentile among clean volumes."""
    return [
        [name, item["kind"], _figure(item["value"], "{:.4g}"), _figure(item["percentile"], "{:.0f} %")]
        for name, item in data["evidence"].items()
    ]


def sides_differ(data: Mapping[str, Any]) -> bool:
    """Whether the original and the defended segmentation are not the same."""
    return any(s["dice"] is None or s["dice"] < 1 for s in data["structures"])


def reasons(now: Situation) -> dict[str, str]:
    """For each control of the panel that can be out of use: why it is, or "" when it can be used."""
    busy = _("Wait until the running job has ended, or cancel it.") if now.busy else ""
    result = _no_result(now)
    same = "" if now.differs else _("The original and the defended segmentation are the same.")
    both = result or _gone(now, "original", "defended")
    views = "" if now.can_compare else _("This Slicer has no views.")
    found = {name: busy for name in ("inputVolumeSelector", "targetComboBox", "targetPathLineEdit")}
    found |= {name: busy for name in ("calibrationPathLineEdit", "alphaSpinBox", "seedSpinBox")}
    found |= {
        name: busy
        for name in ("deviceComboBox", "versionsSpinBox", "secondOpinionComboBox", "keepFilesCheckBox")
    }
    apart = "" if now.comparing else _("It lies over the comparison: show both segmentations side by side.")
    found |= {name: result or _gone(now, "heatmap") or apart for name in _HEATMAP_CONTROLS}
    return found | {
        "checkButton": _why_no_check(now),
        "compareButton": both or views,
        "agreementTable": both,
        "jumpButton": both or views or same,
        "differenceButton": both or same,
        "spectrumButton": result or _gone(now, "spectrum") or views,
        "evidenceTable": result,
        "exportDicomCheckBox": "" if now.from_dicom else _("The volume does not come from DICOM files."),
        "exportReportCheckBox": result or _no_report(now),
        "reportButton": result or _no_report(now),
        "exportButton": result or _why_no_export(now),
        "calibrateButton": _why_no_calibration(now),
        "cleanFolderPathLineEdit": busy,
        "calibrationOutputPathLineEdit": busy,
        "installButton": busy or ("" if now.missing_packages else _("All that is needed is installed.")),
        "removeButton": busy or ("" if now.removable_packages else _("MedShield has downloaded nothing.")),
    }


_HEATMAP_CONTROLS = ("showHeatmapCheckBox", "bandComboBox", "opacitySlider", "thresholdSlider")


def _why_no_check(now: Situation) -> str:
    if now.stopping:
        return _("Stopping.")
    if now.checking:
        return ""  # the button cancels
    if now.calibrating:
        return _("Wait until the calibration has ended, or cancel it.")
    return "" if now.has_input else _("Choose a volume first.")


def _why_no_calibration(now: Situation) -> str:
    if now.stopping:
        return _("Stopping.")
    if now.calibrating:
        return ""
    if now.checking:
        return _("Wait until the check has ended, or cancel it.")
    return "" if now.has_clean_folder else _("Choose a folder of clean volumes first.")


def _why_no_export(now: Situation) -> str:
    if not now.export_chosen:
        return _("Choose at least one kind of file.")
    return "" if now.has_export_folder else _("Choose a folder for the files first.")


def _no_report(now: Situation) -> str:
    missing = _("There is none: it was deleted, or its packages were missing when the volume was checked.")
    return "" if "report" in now.parts else missing


def _no_result(now: Situation) -> str:
    return "" if now.has_result else _("Check the volume first.")


def _gone(now: Situation, *roles: str) -> str:
    missing = set(roles) - now.parts
    return _("It was deleted from the scene; check the volume again.") if missing else ""


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _p(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}".rstrip("0").rstrip(".") if value >= 0.0005 else "<0.001"


def _rate(data: Mapping[str, Any]) -> str:
    percent = f"{100 * data['alpha']:.3g}"
    return _("about {percent} in 100 clean scans raise a false alarm").format(percent=percent)
