"""The job behind `medshield benchmark`: measure a plan, and write its report after every head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from MedShieldLib.control import Control
from MedShieldLib.evaluation import benchmark, report
from MedShieldLib.evaluation.plan import Plan


@dataclass(frozen=True)
class BenchmarkJob:
    """One benchmark run.

    Attributes:
        plan: what it covers.
        out: folder for BENCHMARK.md, benchmark.csv and the plots; older ones are replaced.
        command: how it was called, which stands above the figures.
    """

    plan: Plan
    out: Path
    command: str

    def run(self, control: Control) -> Path:
        """Raises InputError or Cancelled; what was measured until then is kept in the plan's work folder.

        Returns:
            BENCHMARK.md.
        """

        def write(rows: list[dict]) -> None:
            with control.writing():
                report.write_report(rows, self.plan, self.out, self.command)

        benchmark.run(self.plan, control.progress, control.cancelled, write)
        return self.out / "BENCHMARK.md"
