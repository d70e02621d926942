"""What a benchmark run covers: targets, heads, attacks, bounds, shifts and defences, and the cells they make.

How a cell is measured is in `benchmark.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from MedShieldLib import shifts
from MedShieldLib.attacks import ADAPTIVE, ATTACKS, PREPARED, load_attack
from MedShieldLib.errors import InputError
from MedShieldLib.evaluation.benign import SHIFTS
from MedShieldLib.evaluation.heads import Head, Role
from MedShieldLib.evaluation.split import heads_for
from MedShieldLib.targets.brain_tissue import ROBUST_NAME

TARGETS = ("brain-tissue", "torchio-unet", "deepbet-coarse", "meshnet-model5", "meshnet-model11", "deepbet")
# The shield with so many versions; None takes all of its calibration. The last two have the learned reformer
# among them, and a second opinion.
SHIELDS: dict[str, int | None] = {
    "shield-quick": 2,
    "shield-4": 4,
    "shield": None,
    "shield-learned": None,
    "shield-second": None,
}
DEFENCES = (
    "none",
    "gaussian",
    "median",
    "bit-depth",
    "jpeg",
    "low-pass",
    "visu-shrink",
    "frequency-refinement",
    "magnet",
    "spectrum-only",
    "park-2020",
    *SHIELDS,
)
QUICK_DEFENCES = ("none", "gaussian", "frequency-refinement", "spectrum-only", "shield-quick", "shield")
# The alarm rate of every figure.
ALPHA = 0.05
# Attackers who know one of the shields; joint loss over its weight, the last and strongest over its budget.
KNOWING = (
    "adaptive-reformed",
    *(f"adaptive-joint:weight={weight}" for weight in (0.1, 0.25)),
    "adaptive-joint",  # weight 0.5
    *(f"adaptive-joint:weight={weight}" for weight in (1.0, 2.0)),
    "adaptive-selective",
    "adaptive-orthogonal",
    "adaptive-stability:steps=10",
    "adaptive-stability",
    "adaptive-stability:steps=100",
)


class Kind(str, Enum):
    """What was done to a volume before the defences saw it."""

    CALIBRATION = "calibration"
    CLEAN = "clean"
    SHIFT = "shift"
    ATTACK = "attack"
    ADAPTIVE = "adaptive"

    @property
    def attacked(self) -> bool:
        """Whether somebody tampered with the volume."""
        return self in (Kind.ATTACK, Kind.ADAPTIVE)


@dataclass(frozen=True)
class Cell:
    """One volume in one state, to be shown to all defences.

    Attributes:
        kind: what kind of state.
        head: the volume.
        name: of the shift or attack (see `parse_attack`); "" when clean.
        eps: the attack's bound in 255ths of the target's window.
        draw: which of several random draws of a shift.
        against: the shield that the attacker knows, the only one that the cell is shown to; "" for all.
    """

    kind: Kind
    head: Head
    name: str = ""
    eps: float = 0.0
    draw: int = 0
    against: str = ""

    @property
    def title(self) -> str:
        """For people."""
        bound = f" {self.eps:g}/255" if self.kind.attacked else ""
        return f"{self.head.subject}, {self.name or self.kind.value}{bound}"

    def cost(self, defences: int) -> float:
        """Roughly, in inferences."""
        searched = self.kind.attacked and not self.head.attack
        passes = expected_passes(self.name) if searched else 0
        return 3 * passes + 2 * defences


@dataclass(frozen=True)
class Plan:
    """One benchmark run.

    Attributes:
        data: folder with volumes (see `split.py`) and models; None uses MNI152 alone.
        work: for finished cells, attacked volumes and what defences learned.
        targets: names, see `TARGETS`, or JSON files that describe a model.
        attacks: as for `parse_attack`; adaptive ones are run against every shield of `defences`.
        eps: L-infinity bounds in 255ths of the target's window.
        defences: names, see `DEFENCES`.
        shifts: benign shifts by name, see `benign.SHIFTS`.
        draws: of each shift on each head.
        heads: subjects to test on; empty for all.
        seed: of everything random.
        second_opinion: the target that `shield-second` asks as well, by name or JSON file.
    """

    data: Path | None
    work: Path
    targets: tuple[str, ...] = TARGETS
    attacks: tuple[str, ...] = (*ATTACKS, *KNOWING)
    eps: tuple[float, ...] = (2, 4, 8)
    defences: tuple[str, ...] = DEFENCES
    shifts: tuple[str, ...] = tuple(SHIFTS)
    draws: int = 2
    heads: tuple[str, ...] = field(default=())
    seed: int = 0
    second_opinion: str = ROBUST_NAME

    def __post_init__(self) -> None:
        for kind, names, known in (
            ("defence", self.defences, DEFENCES),
            ("shift", self.shifts, SHIFTS),
        ):
            for name in names:
                if name not in known:
                    raise InputError(f"There is no {kind} '{name}'; use some of {', '.join(known)}.")
        for attack in self.attacks:
            expected_passes(attack)

    @classmethod
    def quick(cls, work: Path, seed: int = 0) -> Plan:
        """A run of minutes that needs nothing but the package: it shows that all works, not how well."""
        return cls(
            data=None,
            work=work,
            targets=("brain-tissue",),
            attacks=("fgsm", "pgd:steps=10"),
            eps=(4, 8),
            defences=QUICK_DEFENCES,
            shifts=("rician-noise-3", "gamma", "jpeg"),
            draws=1,
            seed=seed,
        )

    def with_choices(self, **choices: str | None) -> Plan:
        """This plan with other targets, attacks, eps, defences, shifts or heads: words separated by spaces.

        What is None stays.

        Raises:
            InputError: if there is no such attack, defence or shift, or a bound is no number above 0.
        """
        chosen: dict = {name: tuple(text.split()) for name, text in choices.items() if text is not None}
        if "eps" in chosen:
            chosen["eps"] = tuple(_bound(word) for word in chosen["eps"])
        return replace(self, **chosen)

    def cells(self, target_name: str) -> tuple[Cell, ...]:
        """All cells of one target, those of one head together."""
        heads = heads_for(target_name, self.data, self.heads)
        # In a trial run one head plays all roles: it shall not count twice in a threshold.
        twice = {h.subject for h in heads if h.role is Role.CALIBRATE}
        once = (h for h in heads if h.role is not Role.LEARN or h.subject not in twice)
        return tuple(cell for head in once for cell in self._cells_of(head))

    def _cells_of(self, head: Head) -> Iterator[Cell]:
        if head.role is not Role.TEST:
            yield from (Cell(Kind.CALIBRATION, head, shift.__name__) for shift in shifts.CALIBRATION)
        elif head.shift:
            yield Cell(Kind.SHIFT, head, head.shift)
        elif head.attack:
            yield from self._brought(head)
        else:
            yield Cell(Kind.CLEAN, head)
            for name in self.attacks:
                yield from self._attacks_of(head, name)
            for name in self.shifts:
                yield from (Cell(Kind.SHIFT, head, name, draw=draw) for draw in range(self.draws))

    def _brought(self, head: Head) -> Iterator[Cell]:
        """An attack made elsewhere; one that knows a shield is for that one alone."""
        if not head.against:
            yield Cell(Kind.ATTACK, head, head.attack, head.eps)
        elif head.against not in SHIELDS:
            raise InputError(f"{head.path}: there is no shield '{head.against}'; use {', '.join(SHIELDS)}.")
        elif head.against in self.defences:
            yield Cell(Kind.ADAPTIVE, head, head.attack, head.eps, against=head.against)

    def _attacks_of(self, head: Head, name: str) -> Iterator[Cell]:
        for eps in self.eps:
            if is_adaptive(name):
                known = (shield for shield in SHIELDS if shield in self.defences)
                yield from (Cell(Kind.ADAPTIVE, head, name, eps, against=shield) for shield in known)
            else:
                yield Cell(Kind.ATTACK, head, name, eps)


def is_adaptive(text: str) -> bool:
    """Whether an attack needs a shield to attack."""
    return parse_attack(text)[0] in ADAPTIVE


def parse_attack(text: str) -> tuple[str, dict]:
    """Name and parameters of an attack written as "name" or "name:parameter=value,...".

    Raises:
        InputError: if it is written otherwise.
    """
    name, _, rest = text.partition(":")
    parameters: dict = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"'{text}' is no attack; write it like pgd:steps=100,restarts=2.")
        parameters[key] = _number(value)
    return name, parameters


def expected_passes(text: str) -> int:
    """About how often an attack runs the target's network; an adaptive one as if its shield had six versions.

    Raises:
        InputError: if there is no such attack, or it has no such parameter.
    """
    name, parameters = parse_attack(text)
    if name in ADAPTIVE:
        shield: Any = SimpleNamespace(calibration=SimpleNamespace(versions=(None,) * 6), second=None)
        return load_attack(name, shield=shield, **parameters).expected_passes
    return 40 if name in PREPARED else load_attack(name, **parameters).expected_passes


def _bound(text: str) -> float:
    bound = _number(text)
    if isinstance(bound, str) or not 0 < bound <= 255:
        raise InputError(f"'{text}' is no bound for an attack in 255ths of the window; use some like 2 4 8.")
    return bound


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
