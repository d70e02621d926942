"""What people see in a terminal: progress while a job runs, and its outcome in plain words.

Nothing is computed here; the report in HTML is in `export/report.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from MedShieldLib.errors import InputError
from MedShieldLib.export.folder import REPORT
from MedShieldLib.result import CheckResult, Verdict
from MedShieldLib.volume import Volume
from MedShieldLib.words import p_sentences, words_for

if TYPE_CHECKING:
    from MedShieldLib.attacks.base import AttackResult
    from MedShieldLib.calibration import Calibration
    from MedShieldLib.demo import Finding
    from MedShieldLib.targets import Target

# Results go to standard output, all that is said on the way to standard error.
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_COLORS = {Verdict.CLEAN: "green", Verdict.OUT_OF_DISTRIBUTION: "yellow", Verdict.SUSPECTED_ATTACK: "red"}


@contextmanager
def progress_line() -> Iterator[Callable[[float, str], None]]:
    """A progress callback: a bar with the step's name on a terminal, one line a step elsewhere."""
    if not err.is_terminal:
        yield _plain_lines()
        return
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("Starting", total=1.0)
        yield lambda fraction, step: bar.update(task, completed=fraction, description=step)


def _plain_lines() -> Callable[[float, str], None]:
    last = ""

    def report(fraction: float, step: str) -> None:
        nonlocal last
        if step != last:
            last = step
            err.print(f"{fraction:4.0%} {step}", markup=False)

    return report


def show_check(result: CheckResult, folder: Path) -> None:
    """The verdict in plain words, a table per structure, and where the report is."""
    words = words_for(result)
    title = f"{_name(result.verdict)}: {words.title}" if words.look is result.verdict else words.title
    out.print(Panel(_banner(result), title=title, title_align="left", border_style=_COLORS[words.look]))
    for note in result.notes:
        out.print(f"Note: {note}", markup=False)
    out.print(_agreement(result))
    if (folder / REPORT).exists():
        out.print(f"Report: {folder / REPORT}", markup=False, soft_wrap=True)
    else:
        out.print(
            f"Results: {folder} (for a report: pip install 'medshield[report]')", markup=False, soft_wrap=True
        )
    out.print("Not for clinical use.", style="dim")


def show_attack(result: AttackResult, path: Path) -> None:
    """How far the attack went and what it did."""
    out.print(
        f"{result.attack.name} on {result.target}: largest change {result.linf * 255:.2f}/255 of the "
        f"intensity window (bound {result.eps * 255:.2f}/255), L2 {result.l2:.3g} windows, "
        f"SSIM {result.ssim:.3f}, mean Dice against the clean answer {1 - result.dice_drop:.3f}."
    )
    out.print(f"Attacked volume: {path}", markup=False, soft_wrap=True)


def show_demo(findings: tuple[Finding, ...]) -> None:
    """The verdicts side by side, and where the reports are."""
    table = Table(caption="Dice: mean of the tissues, against the segmentation of the clean volume")
    for heading in ("Volume", "Verdict", "p (attack)"):
        table.add_column(heading)
    for heading in ("Original Dice", "Defended Dice"):
        table.add_column(heading, justify="right")
    for found in findings:
        verdict = found.result.verdict
        words = f"[{_COLORS[verdict]}]{_name(verdict)}[/]"
        p = f"{found.result.p_attack:.3g}"
        table.add_row(found.title, words, p, f"{found.original_dice:.3f}", f"{found.defended_dice:.3f}")
    out.print(table)
    for found in findings:
        out.print(f"Report, {found.title.lower()}: {found.folder / REPORT}", markup=False, soft_wrap=True)
    out.print("MNI152 was also used to train this target; README.md has figures on heads never seen.")
    out.print("Not for clinical use.", style="dim")


def show_volume(volume: Volume) -> None:
    """Size, geometry and intensities, and whether it can be checked."""
    table = Table(show_header=False)
    table.add_row("Voxels (i, j, k)", " x ".join(map(str, volume.voxels.shape[::-1])))
    table.add_row("Spacing (mm)", " x ".join(f"{length:.4g}" for length in volume.spacing))
    table.add_row("Origin (LPS, mm)", ", ".join(f"{length:.4g}" for length in volume.origin))
    rows = (volume.direction[n : n + 3] for n in (0, 3, 6))
    table.add_row("Direction", "\n".join(" ".join(f"{cosine:7.4f}" for cosine in row) for row in rows))
    table.add_row("Data type", str(volume.voxels.dtype))
    low, mean, high = volume.voxels.min(), volume.voxels.mean(), volume.voxels.max()
    table.add_row("Intensities", f"{low:g} to {high:g}, mean {mean:.4g}")
    try:
        volume.require_checkable()
        table.add_row("Can be checked", "yes")
    except InputError as error:
        table.add_row("Can be checked", f"no: {escape(str(error))}")
    out.print(table)


def show_target(target: Target) -> None:
    """One line: name, structures, voxel size, weights."""
    names = ", ".join(structure.name for structure in target.structures)
    text = f"{target.name}: {names}; voxels of {target.finest_mm:g} mm; weights {target.sha256[:12]}"
    out.print(text, markup=False, soft_wrap=True)


def show_calibration(calibration: Calibration, path: Path) -> None:
    """What was learned and where it is."""
    from MedShieldLib import outliers

    kinds = ", ".join(version.kind.replace("_", " ") for version in calibration.versions)
    out.print(f"{calibration.n_subjects} volumes, {len(calibration.subjects)} scores; versions: {kinds}.")
    if second := calibration.second:
        usual = zip(second.structures, second.usual, strict=True)
        names = ", ".join(
            f"{name} (misses {missed:.2f}, adds {added:.2f})" for name, (missed, added) in usual
        )
        out.print(f"Second opinion: {second.target_name} on {names}.", markup=False)
    doubt = second.support() if second else None
    for note in (calibration.support(0.05), doubt, *outliers.notes(calibration, 0.05)):
        if note:
            out.print(f"Note: {note}", markup=False)
    out.print(f"Calibration: {path}", markup=False, soft_wrap=True)


def _name(verdict: Verdict) -> str:
    return verdict.value.replace("_", " ").upper()


def _banner(result: CheckResult) -> str:
    """What was found, what to do, and how sure the shield is."""
    words, (tampering, novelty) = words_for(result), p_sentences(result)
    return (
        f"{words.meaning}\n{words.advice}\n\n"
        f"Tampering: p = {result.p_attack:.3g}. {tampering}\n"
        f"Novelty: p = {result.p_novelty:.3g}. {novelty}\n"
        f"Alarm at p <= {result.alpha:g}, which {100 * result.alpha:g} % of such clean scans raise too."
    )


def _agreement(result: CheckResult) -> Table:
    table = Table(title="Original against defended segmentation", title_justify="left")
    table.add_column("Structure")
    for heading in ("Dice", "HD95 (mm)", "Original (ml)", "Defended (ml)"):
        table.add_column(heading, justify="right")
    for row in result.structures:
        distance = "-" if math.isnan(row.hd95_mm) else f"{row.hd95_mm:.1f}"
        table.add_row(
            escape(row.name), f"{row.dice:.3f}", distance, f"{row.original_ml:.1f}", f"{row.defended_ml:.1f}"
        )
    return table
