"""Which volumes the benchmark uses, and for what: split by subject, so that none is on both sides.

Knows the layout of the development data (volumes/*.nii.gz); without it, MNI152 alone serves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from MedShieldLib.calibration import Calibration
from MedShieldLib.errors import InputError
from MedShieldLib.evaluation.headline import HELD_OUT
from MedShieldLib.volume import Volume

MNI152 = "MNI152"
MNI152_MM = 2
# All of these are in the calibrations that ship, and so are the templates and the head with contrast agent:
# targets that come with one are tested on others.
_LABELLED = tuple(f"nichart_Subj{n}" for n in range(1, 13))
# The rest leave so many of these heads for testing.
_LABELLED_TESTS = 4
_TEMPLATES = ("mricron_ch2", "nv_spm152")
_WITH_AGENT = "nv_MR_Gd"


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
        shift: name of the benign shift that it shows by itself; "" for an ordinary T1 head.
    """

    subject: str
    path: Path | None
    role: Role
    shift: str = ""

    def read(self) -> Volume:
        """The volume."""
        if self.path is not None:
            return Volume.read(self.path)
        from nilearn.datasets import load_mni152_template

        from MedShieldLib.training.data import from_nibabel

        return from_nibabel(load_mni152_template(resolution=MNI152_MM))


def heads_for(target_name: str, data: Path | None, only: Iterable[str] = ()) -> tuple[Head, ...]:
    """The heads for one target.

    Without data, MNI152 plays all roles: good for trying out, worthless as a figure.

    Args:
        target_name: one that comes with a calibration is tested on fewer heads.
        data: folder with volumes/.
        only: subjects to test on; empty for all.

    Raises:
        InputError: if the folder holds no head to test on.
    """
    if data is None:
        return tuple(Head(MNI152, None, role) for role in Role)
    calibrated = Calibration.ships_for(target_name)
    tests, templates = (0, ()) if calibrated else (_LABELLED_TESTS, _TEMPLATES)
    found = [Head(s, _file(data, f"{s}_T1"), Role.TEST) for s in _LABELLED[:tests]]
    found += [Head(s, _file(data, s), Role.TEST) for s in (*HELD_OUT, *templates)]
    found += _real_shifts(data, _LABELLED[:tests], with_agent=not calibrated)
    found = [head for head in found if not only or head.subject in only]
    clean = [Head(s, _file(data, f"{s}_T1"), Role.LEARN) for s in _LABELLED[tests:]]
    clean.append(Head(MNI152, None, Role.CALIBRATE))
    # Every second one: what a defence has learned from would look too good to its threshold.
    found += [Head(h.subject, h.path, (Role.LEARN, Role.CALIBRATE)[n % 2]) for n, h in enumerate(clean)]
    if calibrated:  # the shield's calibration holds them, so the baselines' thresholds shall
        found += [Head(s, _file(data, s), Role.CALIBRATE) for s in (*_TEMPLATES, _WITH_AGENT)]
    found = [head for head in found if head.path is None or head.path.exists()]
    if not any(head.role is Role.TEST and not head.shift for head in found):
        raise InputError(f"{data} has no volumes/*.nii.gz to test on; give the folder of development data.")
    return tuple(found)


def _real_shifts(data: Path, subjects: tuple[str, ...], with_agent: bool) -> list[Head]:
    """Real volumes of another contrast, and one with contrast agent where nothing was calibrated on it."""
    flair = [Head(s, _file(data, f"{s}_FL"), Role.TEST, "real-flair") for s in subjects]
    flair.append(Head("nv_FLAIR", _file(data, "nv_FLAIR"), Role.TEST, "real-flair"))
    agent = Head(_WITH_AGENT, _file(data, _WITH_AGENT), Role.TEST, "real-contrast-agent")
    return [*flair, agent] if with_agent else flair


def _file(data: Path, name: str) -> Path:
    return data / "volumes" / f"{name}.nii.gz"
