"""A volume of the benchmark, and what it is used for.

Which volumes there are, and how they are split, is in `split.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from MedShieldLib.volume import Volume

MNI152 = "MNI152"
MNI152_MM = 2


class Role(str, Enum):
    """LEARN: for what a defence learns; CALIBRATE: for its alarm threshold; TEST: for the figures.

    A defence that learns nothing takes its threshold from those to learn from as well.
    """

    LEARN = "learn"
    CALIBRATE = "calibrate"
    TEST = "test"


@dataclass(frozen=True)
class Head:
    """One volume of one subject.

    Attributes:
        subject: unit of the split and of the bootstrap.
        path: file; None is MNI152 from nilearn.
        role: what it is used for.
        shift: name of the benign shift that it shows by itself; "" for an ordinary volume.
        attack: name of the attack that somebody made on the subject's ordinary volume; "" for none.
        eps: the bound of that attack, in 255ths of the target's window.
        against: the shield that whoever made it knew, such as "shield"; "" for none.
    """

    subject: str
    path: Path | None
    role: Role
    shift: str = ""
    attack: str = ""
    eps: float = 0.0
    against: str = ""

    @property
    def ordinary(self) -> bool:
        """Whether it is neither shifted nor attacked, so that attacks and shifts can be made of it."""
        return not self.shift and not self.attack

    def read(self) -> Volume:
        """The volume."""
        if self.path is not None:
            return Volume.read(self.path)
        from nilearn.datasets import load_mni152_template

        from MedShieldLib.training.data import from_nibabel

        return from_nibabel(load_mni152_template(resolution=MNI152_MM))
