"""What the benchmark's rows mean: alarms, what the user is given, which failures are silent.

Derived from measured rows alone, so that it can be derived anew for another alarm rate.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from MedShieldLib.detector import p_value
from MedShieldLib.evaluation.baselines import write_text
from MedShieldLib.evaluation.plan import ALPHA, Kind

# An attack that takes less Dice than this has not done anything that a detector must see.
EFFECTIVE = 0.05

Group = TypeVar("Group", bound=Hashable)


@dataclass(frozen=True)
class Row:
    """One volume in one state, as one defence saw it.

    Dice is against the target's answer to the clean volume; for shifted ones, to the shifted volume itself.

    Attributes:
        target, subject, kind, name, eps, draw, defence: which cell; see `plan.Cell`.
        score: larger is more suspicious; NaN if the defence has no detector.
        p_attack: the defence's own, or conformal against its scores on calibration heads.
        p_novelty: NaN for defences that have none.
        dice_original: of the target alone.
        dice_defended: of the defence, always on; NaN if it has no reformer.
        extra_inferences, target_s, own_s: its cost beyond the plain answer.
        facts: of the attack: linf, l2, ssim, passes, attack_s; of one made elsewhere, not all.
    """

    target: str
    subject: str
    kind: Kind
    name: str
    eps: float
    draw: int
    defence: str
    score: float
    p_attack: float
    p_novelty: float
    dice_original: float
    dice_defended: float
    extra_inferences: int
    target_s: float
    own_s: float
    facts: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def alarm(self) -> bool:
        """Whether the defence suspects an attack."""
        return self.p_attack <= ALPHA

    @property
    def unusual(self) -> bool:
        """Whether it calls the volume out of distribution instead."""
        return not self.alarm and self.p_novelty <= ALPHA

    @property
    def dice_given(self) -> float:
        """Of what the user is given: the defence's segmentation once it is alarmed, the target's own else."""
        gated = self.alarm or self.unusual
        return self.dice_defended if gated and not math.isnan(self.dice_defended) else self.dice_original

    @property
    def effective(self) -> bool:
        """Whether an attack did any harm to the target alone."""
        return 1 - self.dice_original >= EFFECTIVE

    def fact(self, name: str) -> float:
        """One of the attack's facts; NaN if it is not known."""
        return self.facts.get(name, math.nan)

    def silent_failure(self, drop: float) -> bool:
        """No suspicion of an attack, and more than `drop` of Dice lost in what the user is given."""
        return not self.alarm and 1 - self.dice_given > drop


_FACTS = ("linf", "l2", "ssim", "passes", "attack_s")
_CELL = ("target", "subject", "kind", "name", "eps", "draw", "defence")
_MEASURED = ("score", "p_attack", "p_novelty", "dice_original", "dice_defended")
_COSTS = ("extra_inferences", "target_s", "own_s")


def rows_of(measured: Iterable[dict]) -> tuple[list[Row], list[str]]:
    """Rows, with p-values wherever there is a detector; and why cells were skipped, one sentence each."""
    measured = list(measured)
    skipped = sorted({f"{m['target']}, {m['subject']}: {m['skipped']}" for m in measured if "skipped" in m})
    rows = [_row(m) for m in measured if "skipped" not in m]
    clean = grouped((r for r in rows if r.kind is Kind.CALIBRATION), lambda r: (r.target, r.defence))
    return [_with_p(row, clean.get((row.target, row.defence), [])) for row in rows], skipped


def grouped(rows: Iterable[Row], by: Callable[[Row], Group]) -> dict[Group, list[Row]]:
    """Rows by a key, in the order in which the keys come."""
    groups: dict[Group, list[Row]] = defaultdict(list)
    for row in rows:
        groups[by(row)].append(row)
    return dict(groups)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line a row: what was measured and what follows from it."""
    out = io.StringIO()
    derived = ("alarm", "unusual", "dice_given")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_CELL, *_MEASURED, *derived, *_COSTS, *_FACTS])
    for row in rows:
        values = [getattr(row, name) for name in (*_CELL, *_MEASURED, *derived, *_COSTS)]
        writer.writerow([_text(v) for v in [*values, *(row.facts.get(name, "") for name in _FACTS)]])
    write_text(path, out.getvalue())


def _row(measured: dict) -> Row:
    facts = {name: measured[name] for name in _FACTS if name in measured}
    fields = {name: measured.get(name, math.nan) for name in (*_CELL, *_MEASURED, *_COSTS)}
    return Row(**{**fields, "kind": Kind(fields["kind"])}, facts=facts)


def _with_p(row: Row, clean: list[Row]) -> Row:
    if not math.isnan(row.p_attack) or math.isnan(row.score) or not clean:
        return row
    scores = np.array([r.score for r in clean])
    return replace(row, p_attack=p_value(row.score, scores, [r.subject for r in clean]))


def _text(value: object) -> object:
    if isinstance(value, Kind):
        return value.value
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value
