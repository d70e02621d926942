"""The benchmark: every cell of a plan is measured once, remembered, and never measured again.

What a run covers is in `plan.py`, what is made of the rows in `report.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

from MedShieldLib import shifts
from MedShieldLib.attacks.base import change_between
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.evaluation import dev_targets
from MedShieldLib.evaluation.benign import SHIFTS
from MedShieldLib.evaluation.defence import Asked, Defence, Setting
from MedShieldLib.evaluation.heads import Head, Role
from MedShieldLib.evaluation.ledger import Ledger, key_of, seed_of
from MedShieldLib.evaluation.metrics import mean_dice
from MedShieldLib.evaluation.plan import Cell, Kind, Plan
from MedShieldLib.evaluation.preparation import Preparation, prepare
from MedShieldLib.evaluation.split import heads_for
from MedShieldLib.observation import IsCancelled, Progress
from MedShieldLib.stopwatch import duration
from MedShieldLib.targets import DifferentiableTarget, Target, load_target
from MedShieldLib.volume import Segmentation, Volume

Say = Callable[[str], None]

_LEDGER = "cells.jsonl"
# An attack made elsewhere may have rounded its bound up by so much.
_ROUNDED = 1.05


def run(
    plan: Plan,
    progress: Progress = lambda fraction, step: None,
    cancelled: IsCancelled = lambda: False,
    report: Callable[[list[dict]], None] = lambda rows: None,
) -> list[dict]:
    """Measure what is missing of a plan; returns the rows of the whole plan.

    A target or a defence that cannot be had here is left out, and `progress` hears why.

    Args:
        plan: what to cover.
        progress: called as progress(fraction, step), with an estimate of the time left.
        cancelled: asked before every cell and every pass of an attack.
        report: called with all rows so far, whenever a head is finished and in the end.

    Raises:
        InputError: if no target of the plan can be loaded.
        Cancelled: when asked to stop; the next run goes on where this one was.
    """
    benches = _benches(plan, progress, cancelled)
    watch, rows = _Forecast(benches), []
    for bench in benches:

        def say(step: str, bench: Bench = bench) -> None:
            progress(*watch.before(bench, step))

        defences = bench.defences(say)
        for cell in bench.cells:
            began = time.perf_counter()
            new = bench.measure(cell, defences, say)
            watch.after(bench, cell, time.perf_counter() - began if new else None)
            rows += bench.rows(cell, defences)
            if new and bench.completes_head(cell):
                report(rows)
    report(rows)
    return rows


def _benches(plan: Plan, progress: Progress, cancelled: IsCancelled) -> list[Bench]:
    ledger, benches = Ledger(plan.work / _LEDGER), []
    for name in plan.targets:
        try:
            benches.append(Bench(plan, load(name, plan.data), ledger, cancelled))
        except InputError as error:
            progress(0.0, f"Left out: {error}")
    if not benches:
        raise InputError("None of the targets can be loaded here; name others with --targets.")
    return benches


def load(name: str, data: Path | None) -> Target:
    """A target by name: built in, or one of the development data's models.

    Raises:
        InputError: if it is not here.
    """
    if name in dev_targets.NAMES:
        if data is None:
            raise InputError(f"Target '{name}' comes with the development data; name its folder with --data.")
        return dev_targets.load(name, data / "models")
    return load_target(name)


@dataclass
class Bench:
    """All that is measured on one target."""

    plan: Plan
    target: Target
    ledger: Ledger
    cancelled: IsCancelled
    say: Say = lambda step: None  # of what is being prepared
    _volumes: dict[Head, Volume] = field(default_factory=dict)
    _hashes: dict[Head, str] = field(default_factory=dict)
    _answers: dict[Head, Segmentation] = field(default_factory=dict)
    _ready: dict[str, Defence] = field(default_factory=dict)

    @cached_property
    def _asked(self) -> Asked:
        return Asked(self.target)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The plan's cells for this target; no search for attacks on one that shows no gradients."""
        cells = self.plan.cells(self.target.name)
        if isinstance(self.target, DifferentiableTarget):
            return cells
        return tuple(cell for cell in cells if not cell.kind.attacked or cell.head.attack)

    def completes_head(self, cell: Cell) -> bool:
        """Whether the next cell is of another head."""
        after = self.cells.index(cell) + 1
        return after == len(self.cells) or self.cells[after].head != cell.head

    def rows(self, cell: Cell, defences: list[Defence]) -> list[dict]:
        """What was measured of a cell."""
        return [self.ledger.rows[self._key(cell, defence)] for defence in _seeing(cell, defences)]

    def measure(self, cell: Cell, defences: list[Defence], say: Say) -> bool:
        """Measure a cell where that was not done yet; whether there was anything to do.

        Raises:
            Cancelled: when asked to stop.
        """
        missing = [d for d in _seeing(cell, defences) if self._key(cell, d) not in self.ledger.rows]
        if missing:
            say(cell.title)
            self._measure(cell, missing, say)
        return bool(missing)

    def _measure(self, cell: Cell, defences: list[Defence], say: Say) -> None:
        """Show one volume to the defences that have not seen it."""
        asked = self._asked
        try:
            volume = self.volume(cell.head)
            facts: dict = {}
            if cell.kind.attacked:
                reference = self._clean_answer(self._ordinary(cell.head))
                volume, facts = self._given(cell) if cell.head.attack else self._attacked(cell)
            elif cell.name and not cell.head.shift:
                volume = self._shifted(cell)
            plain = asked.segmentation(asked.about(volume), volume)
        except InputError as error:  # the target finds nothing to attack, or cannot segment what a shift left
            for defence in defences:
                self._add(cell, defence, {"skipped": str(error)})
            return
        if not cell.kind.attacked:
            reference = plain
        facts["dice_original"] = mean_dice(plain, reference)
        for defence in defences:
            if self.cancelled():
                raise Cancelled
            say(f"{cell.title}: {defence.name}")
            self._add(cell, defence, facts | self._judged(cell, defence, volume, reference))

    def _judged(self, cell: Cell, defence: Defence, volume: Volume, reference: Segmentation) -> dict:
        asked = self._asked
        asked.about(volume)
        began = time.perf_counter()
        opinion = defence.judge(asked, volume, self._seed(cell))
        own = time.perf_counter() - began - asked.seconds
        dice = float("nan")
        if opinion.defended is not None and cell.kind is not Kind.CALIBRATION:
            dice = mean_dice(opinion.defended(), reference)
        return {
            "score": opinion.score,
            "p_attack": opinion.p_attack,
            "p_novelty": opinion.p_novelty,
            "dice_defended": dice,
            "extra_inferences": asked.extra,
            "target_s": asked.seconds,
            "own_s": own,
        }

    def volume(self, head: Head) -> Volume:
        """A head's volume; those attacked elsewhere may be many, and are read again when they are needed."""
        if head not in self._volumes:
            volume = head.read()
            volume.require_checkable()
            if head.attack:
                return volume
            self._volumes[head] = volume
        return self._volumes[head]

    def _hash(self, head: Head) -> str:
        if head not in self._hashes:
            self._hashes[head] = self.volume(head).sha256()
        return self._hashes[head]

    def _clean_answer(self, head: Head) -> Segmentation:
        if head not in self._answers:
            volume = self.volume(head)
            self._answers = {head: self._asked.segmentation(self._asked.about(volume), volume)}
        return self._answers[head]

    def _shifted(self, cell: Cell) -> Volume:
        if cell.kind is Kind.CALIBRATION:
            shift = next(s for s in shifts.CALIBRATION if s.__name__ == cell.name)
        else:
            shift = SHIFTS[cell.name]
        return shifts.apply(shift, self.volume(cell.head), self._seed(cell))

    def _attacked(self, cell: Cell) -> tuple[Volume, dict]:
        """The attacked volume, from the work folder if it is there, and facts about the attack."""
        key = key_of("attacked", *self._identity(cell))
        path = self.plan.work / "attacked" / f"{key}.nrrd"
        row = self.ledger.rows.get(key)
        if row is None or not path.exists():
            attack = self.preparation.attack(cell.name, cell.eps / 255, self._ready.get(cell.against))
            clean = self.volume(cell.head)
            result = attack(
                cast(DifferentiableTarget, self.target),
                clean,
                cell.eps / 255,
                seed=self._seed(cell),
                cancelled=self.cancelled,
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            result.volume.write(path)
            row = self.ledger.add(
                key,
                {
                    "linf": result.linf,
                    "l2": result.l2,
                    "ssim": result.ssim,
                    "passes": result.passes,
                    "attack_s": result.seconds,
                },
            )
        return Volume.read(path), {name: value for name, value in row.items() if name != "key"}

    def _ordinary(self, head: Head) -> Head:
        """Of the same subject, the volume that nobody has touched."""
        clean = (cell.head for cell in self.cells if cell.kind is Kind.CLEAN)
        return head if head.ordinary else next(h for h in clean if h.subject == head.subject)

    def _given(self, cell: Cell) -> tuple[Volume, dict]:
        """A volume that was attacked elsewhere, and how far it lies from the clean one.

        Raises:
            InputError: if it does not lie on the same voxels, or further from them than its bound.
        """
        volume, clean = self.volume(cell.head), self.volume(self._ordinary(cell.head))
        if not volume.same_geometry(clean):
            raise InputError(f"{cell.head.path} does not lie on the voxels of the volume that was attacked.")
        if not isinstance(self.target, DifferentiableTarget):
            return volume, {}
        change = change_between(self.target, clean, volume)
        if 255 * change.linf > _ROUNDED * cell.eps:
            raise InputError(
                f"{cell.head.path} is {255 * change.linf:.3g}/255 of the window away from the clean volume, "
                f"more than its eps of {cell.eps:g}/255; correct eps, which counts in 255ths."
            )
        return volume, asdict(change)

    @cached_property
    def preparation(self) -> Preparation:
        """Defences and attacks of this target."""
        heads = [h for h in heads_for(self.target.name, self.plan.data) if h.role is not Role.TEST]
        learn = [h.subject for h in heads if h.role is Role.LEARN]
        clean = {h.subject: self.volume(h) for h in heads}
        volumes = key_of(*(f"{h.subject} {h.role.value} {self._hash(h)}" for h in heads))
        made_for = f"{self.target.name}-{self.target.sha256[:8]}-{volumes[:8]}"
        setting = Setting(
            self.target,
            tuple(clean.items()),
            self.plan.work / "prepared" / made_for,
            self.plan.seed,
            progress=lambda fraction, step: self.say(f"{step} ({fraction:.0%})"),
            cancelled=self.cancelled,
        )
        return prepare(setting, learn, self.plan.second_opinion)

    def defences(self, say: Say) -> list[Defence]:
        """The plan's defences, ready for this target, but for those that cannot be had here.

        Raises:
            Cancelled: when asked to stop.
        """
        self.say = say
        for name in self.plan.defences:
            say(f"preparing {name}")
            try:
                self._ready[name] = self.preparation.defence(name)
            except InputError as error:
                say(f"left out {name}: {error}")
        return list(self._ready.values())

    def _add(self, cell: Cell, defence: Defence, facts: dict) -> None:
        described = {
            "target": self.target.name,
            "subject": cell.head.subject,
            "kind": cell.kind.value,
            "name": cell.name,
            "eps": cell.eps,
            "draw": cell.draw,
            "defence": defence.name,
        }
        self.ledger.add(self._key(cell, defence), described | facts)

    def _identity(self, cell: Cell) -> tuple:
        """All that decides which volume the defences see."""
        head = self._hash(cell.head)
        known = self._ready[cell.against].identity if cell.against else ""
        attack: tuple[str, ...] = ()
        if cell.head.attack:
            attack = (self._hash(self._ordinary(cell.head)),)
        elif cell.kind.attacked:
            attack = self.preparation.version(cell.name)
        return (
            self.target.sha256,
            head,
            cell.kind.value,
            cell.name,
            cell.eps,
            cell.draw,
            self.plan.seed,
            known,
            *attack,
        )

    def _key(self, cell: Cell, defence: Defence) -> str:
        return key_of(*self._identity(cell), defence.identity)

    def _seed(self, cell: Cell) -> int:
        """The same for all bounds, so that the curve over eps compares like with like.

        The attack or shift and the check of its result are seeded with the same number. They draw by other
        means or for another purpose, and an attacker never looks at the number; a stream of its own for the
        check would make all rows measured so far unrepeatable. Give it one with the shield's next revision.
        """
        return seed_of(self.plan.seed, cell.head.subject, cell.kind.value, cell.name, cell.draw)


def _seeing(cell: Cell, defences: list[Defence]) -> list[Defence]:
    """Those that a cell is shown to."""
    if cell.against:
        return [d for d in defences if d.name == cell.against]
    if cell.kind is not Kind.CALIBRATION:
        return defences
    learnt = cell.head.role is Role.LEARN
    return [d for d in defences if d.wants_threshold and not (d.learns and learnt)]


class _Forecast:
    """How far a run is, and how long the rest takes, from the cells measured so far."""

    def __init__(self, benches: list[Bench]) -> None:
        self.left = {
            bench.target.name: sum(cell.cost(len(bench.plan.defences)) for cell in bench.cells)
            for bench in benches
        }
        self.total = sum(self.left.values())
        self.pace: dict[str, tuple[float, float]] = {}

    def before(self, bench: Bench, step: str) -> tuple[float, str]:
        """Progress and what is under way."""
        fraction = 1 - sum(self.left.values()) / self.total
        return fraction, f"{bench.target.name}: {step}{self._rest()}"

    def after(self, bench: Bench, cell: Cell, seconds: float | None) -> None:
        """A cell is done; `seconds` is None if it was known already."""
        cost, name = cell.cost(len(bench.plan.defences)), bench.target.name
        self.left[name] -= cost
        if seconds is not None:
            spent, done = self.pace.get(name, (0.0, 0.0))
            self.pace[name] = spent + seconds, done + cost

    def _rest(self) -> str:
        """What is left of the targets whose pace is known, and how many are not."""
        if not self.pace:
            return ""
        known = {name: spent / done for name, (spent, done) in self.pace.items()}
        seconds = sum(known[name] * cost for name, cost in self.left.items() if name in known)
        unknown = sum(1 for name, cost in self.left.items() if name not in known and cost > 0)
        more = f", and {unknown} targets more" if unknown else ""
        return f" ({duration(seconds)} left{more})"
