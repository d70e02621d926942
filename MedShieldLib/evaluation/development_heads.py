"""The heads of the development data (volumes/*.nii.gz, by name) and how they are split."""

from __future__ import annotations

from pathlib import Path

from MedShieldLib.calibration import Calibration
from MedShieldLib.evaluation.headline import HELD_OUT
from MedShieldLib.evaluation.heads import MNI152, Head, Role

# All of these are in the calibrations that ship, and so are the templates and the head with contrast agent:
# targets that come with one are tested on others.
_LABELLED = tuple(f"nichart_Subj{n}" for n in range(1, 13))
# The rest leave so many of these heads for testing.
_LABELLED_TESTS = 4
_TEMPLATES = ("mricron_ch2", "nv_spm152")
_WITH_AGENT = "nv_MR_Gd"


def found(target_name: str, data: Path) -> list[Head]:
    """Those that are there, for one target; none if there is nothing to test on."""
    calibrated = Calibration.ships_for(target_name)
    tests, templates = (0, ()) if calibrated else (_LABELLED_TESTS, _TEMPLATES)
    heads = [Head(s, _file(data, f"{s}_T1"), Role.TEST) for s in _LABELLED[:tests]]
    heads += [Head(s, _file(data, s), Role.TEST) for s in (*HELD_OUT, *templates)]
    heads += _real_shifts(data, _LABELLED[:tests], with_agent=not calibrated)
    clean = [Head(s, _file(data, f"{s}_T1"), Role.LEARN) for s in _LABELLED[tests:]]
    clean.append(Head(MNI152, None, Role.CALIBRATE))
    # Every second one: what a defence has learned from would look too good to its threshold.
    heads += [Head(h.subject, h.path, (Role.LEARN, Role.CALIBRATE)[n % 2]) for n, h in enumerate(clean)]
    if calibrated:  # the shield's calibration holds them, so the baselines' thresholds shall
        heads += [Head(s, _file(data, s), Role.CALIBRATE) for s in (*_TEMPLATES, _WITH_AGENT)]
    heads = [head for head in heads if head.path is None or head.path.exists()]
    return heads if any(head.role is Role.TEST for head in heads) else []


def _real_shifts(data: Path, subjects: tuple[str, ...], with_agent: bool) -> list[Head]:
    """Real volumes of another contrast, and one with contrast agent where nothing was calibrated on it."""
    flair = [Head(s, _file(data, f"{s}_FL"), Role.TEST, "real-flair") for s in subjects]
    flair.append(Head("nv_FLAIR", _file(data, "nv_FLAIR"), Role.TEST, "real-flair"))
    agent = Head(_WITH_AGENT, _file(data, _WITH_AGENT), Role.TEST, "real-contrast-agent")
    return [*flair, agent] if with_agent else flair


def _file(data: Path, name: str) -> Path:
    return data / "volumes" / f"{name}.nii.gz"
