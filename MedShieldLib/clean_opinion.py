"""What a second target says about the clean volumes of a calibration; see `second_opinion.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import numpy as np

from MedShieldLib.digits import rounded, stored
from MedShieldLib.second_opinion import matches
from MedShieldLib.targets.base import Target

# A copy that contradicts its model by .03 at most held off who attacked both, those from .05 on did not.
_CLOSE = 0.05


@dataclass(frozen=True)
class SecondOpinion:
    """What a second target said about the N clean volumes of a calibration.

    Attributes:
        target_name, target_sha256: the second target.
        structures: what both targets draw, see `second_opinion.matches`.
        contradictions: (N, M, 2), see `second_opinion.contradictions`.
    """

    target_name: str
    target_sha256: str
    structures: tuple[str, ...]
    contradictions: np.ndarray = field(repr=False)

    @classmethod
    def of_targets(
        cls, target: Target, second: Target, contradictions: Sequence[np.ndarray | None]
    ) -> SecondOpinion:
        """From the contradictions (M, 2) of every clean volume."""
        structures = tuple(name for name, _, _ in matches(target.structures, second.structures))
        return cls(second.name, second.sha256, structures, stored(np.array(contradictions)))

    @classmethod
    def read(cls, data: dict) -> SecondOpinion:
        """From what `plain` gave; ValueError, KeyError or TypeError if it is something else."""
        contradictions = np.array(data.pop("contradictions"), dtype=float)
        return cls(structures=tuple(data.pop("structures")), contradictions=contradictions, **data)

    def plain(self) -> dict:
        """For JSON."""
        return {**asdict(self), "contradictions": rounded(self.contradictions)}

    def of(self, rows: np.ndarray) -> SecondOpinion:
        """That about some of the volumes, by a boolean array (N,)."""
        return replace(self, contradictions=self.contradictions[rows])

    @cached_property
    def usual(self) -> np.ndarray:
        """(M, 2) contradictions that are usual on clean volumes: their means."""
        return self.contradictions.mean(0)

    def support(self) -> str | None:
        """A sentence on what the opinion cannot see, if the two contradict each other much as it is."""
        worst = self.usual.max(1)
        if worst.max() < _CLOSE:
            return None
        return (
            f"On clean volumes '{self.target_name}' contradicts the target by {worst.max():.0%} of "
            f"{self.structures[worst.argmax()]}. An attack on both can hide in what they differ by anyway; "
            "the opinion of a target that agrees more closely is worth more."
        )
