"""What a calibration is made of: clean volumes under benign shifts, in order, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from MedShieldLib import shifts
from MedShieldLib.errors import InputError
from MedShieldLib.observation import Progress
from MedShieldLib.targets.base import Target
from MedShieldLib.volume import Volume


@dataclass(frozen=True)
class Row:
    """One clean volume under one shift, who answers to it, and the seed of the draws."""

    target: Target
    volume: Volume
    seed: int


class Rows:
    """The rows of a calibration; the same ones for the same arguments.

    Args:
        target: the target that answers.
        volumes: (subject, volume) pairs; volumes of one subject share its name.
        augmentations: the benign shifts, with `shifts.none` for the volume as it is.
        per_volume: how many of them each volume is seen under: the first one always, the others in turn.
            None takes all. Subjects differ more than the shifts of one subject, so a slow target needs few.
        stand_ins: by subject, targets that answer in place of `target`: alike, but trained without that
            subject. A target is steadier on what it was trained on than on anything new.
        seed: of the shifts and of the draws.

    Raises:
        InputError: if there are no volumes.
    """

    def __init__(
        self,
        target: Target,
        volumes: Sequence[tuple[str, Volume]],
        *,
        augmentations: Sequence[shifts.Shift] = shifts.CALIBRATION,
        per_volume: int | None = None,
        stand_ins: Mapping[str, Target] | None = None,
        seed: int = 0,
    ) -> None:
        if not volumes:
            raise InputError("There is no clean volume to calibrate on; name a folder with at least one.")
        self.target, self._stand_ins, self._seed = target, stand_ins or {}, seed
        self._jobs = [
            (subject, volume, shift)
            for n, (subject, volume) in enumerate(volumes)
            for shift in _in_turn(augmentations, per_volume, n)
        ]
        self.subjects = tuple(subject for subject, _, _ in self._jobs)
        self.shift_names = tuple(shift.__name__ for _, _, shift in self._jobs)

    def each(self, progress: Progress = lambda fraction, step: None) -> Iterator[Row]:
        """The rows, made one at a time."""
        for n, (subject, volume, shift) in enumerate(self._jobs):
            progress(n / len(self._jobs), f"{subject}: {shift.__name__.replace('_', ' ')}")
            shifted = shifts.apply(shift, volume, self._seed + n)
            yield Row(self._stand_ins.get(subject, self.target), shifted, self._seed + 7919 * n)


def _in_turn(augmentations: Sequence[shifts.Shift], count: int | None, turn: int) -> list[shifts.Shift]:
    """The first one and `count` - 1 others, from where the turn before has stopped."""
    first, *others = augmentations
    if count is None or count > len(others):
        return [first, *others]
    return [first, *(others[(turn * (count - 1) + n) % len(others)] for n in range(count - 1))]
