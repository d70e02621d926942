"""BENCHMARK.md: the tables and plots of a run, and the command that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from MedShieldLib import __version__
from MedShieldLib.evaluation import tables
from MedShieldLib.evaluation.baselines import write_text
from MedShieldLib.evaluation.figures import SECOND, deciding
from MedShieldLib.evaluation.goals import goals
from MedShieldLib.evaluation.metrics import LEAST_SUBJECTS
from MedShieldLib.evaluation.plan import ALPHA, Kind, Plan
from MedShieldLib.evaluation.plots import draw_all
from MedShieldLib.evaluation.rows import EFFECTIVE, Row, grouped, rows_of, write_csv
from MedShieldLib.targets.brain_tissue import ROBUST_NAME
from MedShieldLib.targets.deepbet import HARDENED_NAME

# What those that ship have learned from.
_LEARNED = {
    ROBUST_NAME: "nichart_Subj1 to 12 and MNI152",
    HARDENED_NAME: "nichart_Subj2 to 4, mricron_ch2, nv_spm152, nv_MR_Gd and nv_FLAIR",
}
_FLATTERED = (
    " It was trained on {} and draws these better than other heads: tests on them flatter it, and where they "
    "are in the calibration, false alarms on other heads are more likely than that tells."
)


def write_report(measured: list[dict], plan: Plan, folder: Path, command: str) -> Path:
    """Write benchmark.csv, the plots and BENCHMARK.md to `folder`; returns the last.

    Args:
        measured: what `benchmark.run` returned.
        plan: that it ran.
        folder: what is there already is replaced.
        command: stands above the figures.
    """
    rows, skipped = rows_of(measured)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(rows, folder / "benchmark.csv")
    pictures = draw_all(rows, folder)
    path = folder / "BENCHMARK.md"
    write_text(path, rendered(rows, skipped, plan, pictures, command))
    return path


def rendered(rows: list[Row], skipped: list[str], plan: Plan, pictures: dict[str, str], command: str) -> str:
    """The text of BENCHMARK.md; `pictures` are titles and file names."""
    tests = [r for r in rows if r.kind is not Kind.CALIBRATION]
    shield = deciding(tests)
    parts = [
        "# Benchmark",
        _preamble(tests, plan, command),
        "## Goals",
        goals(tests),
        "## Attacks",
        "Dice of the target alone on attacked volumes, against its answer to the clean ones. L-infinity and "
        "L2 of the change are as achieved, in 255ths of the target's window and in whole windows. Effective: "
        f"Dice drop of at least {EFFECTIVE:g}; only these count in the figures of detection.",
        tables.attacks(tests),
        "## Detection",
        f"Share of effective attacks that raise an alarm at {ALPHA:.0%}; AUROC against clean and shifted "
        "volumes of the same target (mean and worst over pairs of attack and target), and against clean "
        "ones alone.",
        tables.detection(tests),
        tables.thresholds(rows),
        f"By attack, {shield}:",
        tables.detection_by_attack(tests),
        "## Defended segmentation",
        "Dice on effectively attacked volumes against the clean answer, always on and gated by the detector. "
        "The last columns say how many of the attacks were effective.",
        tables.defended(tests),
        "On clean volumes, points of Dice lost:",
        tables.harm(tests),
        "## False alarms",
        f"Share of benign volumes that {shield} calls an attack, or out of distribution, at {ALPHA:.0%}; and "
        "of the other detectors, attack alarms alone.",
        tables.false_alarms(tests),
        "## Attackers who know the shield",
        "Dice on volumes attacked by those who know everything but the seed of a check: of the target alone, "
        "of the shield's recommendation, and of what the user is given.",
        tables.knowing(tests),
        "## Silent failures",
        "No attack alarm, and more Dice lost in what the user is given than .05 (.10 at 8/255).",
        tables.silent_failures(tests),
        "## Cost",
        tables.cost(tests),
    ]
    for title, name in pictures.items():
        parts += [f"## {title}", f"![{title}]({name})"]
    if skipped:
        parts += ["## Left out", "\n".join(f"- {reason}" for reason in skipped)]
    return "\n\n".join(parts) + "\n"


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
        second = plan.second_opinion
        flattered = _FLATTERED.format(_LEARNED[second]) if second in _LEARNED else ""
        lines += ["", f"{SECOND} asks {second} for its second opinion.{flattered}"]
    if plan.data is None:
        lines += ["", "**A trial run on one head that the target was trained on: it shows that all works.**"]
    return "\n".join(lines)
