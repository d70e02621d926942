"""The calibration that ships with the reference target, from the heads that it was trained on.

Run as `python -m MedShieldLib.training.calibrate DATA`; DATA is laid out as for training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from MedShieldLib.calibration import Calibration, calibrate
from MedShieldLib.observation import Progress
from MedShieldLib.reformer import choose
from MedShieldLib.targets.base import Target
from MedShieldLib.targets.brain_tissue import SPACING_MM
from MedShieldLib.training import data
from MedShieldLib.training.augment import brain
from MedShieldLib.training.data import Subject, load_subjects
from MedShieldLib.volume import Volume

SHIPPED = Path(__file__).parents[1] / "data" / "brain-tissue.calibration.json"
_TO_CHOOSE = 5
# Every second head is seen without its skull as well.
_STRIPPED_EVERY = 2


def clean_volumes(folder: Path) -> list[tuple[str, Volume]]:
    """(Subject, volume): all heads, some of them once more without the skull, and MNI152."""
    subjects = load_subjects(folder)
    volumes = [(s.name, s.volume) for s in subjects]
    heads = [s for s in subjects if s.name != data.MNI]
    return volumes + [(s.name, stripped(s)) for s in heads[::_STRIPPED_EVERY]]


def stripped(subject: Subject) -> Volume:
    """A head without its skull, cut along its labels, on the network's grid."""
    return Volume((subject.image * brain(subject.labels, 1)).numpy(), (SPACING_MM,) * 3)


def calibrate_reference(
    target: Target, folder: Path, progress: Progress = lambda fraction, step: None
) -> Calibration:
    """Choose the versions on a few heads, then calibrate on all."""
    volumes = clean_volumes(folder)
    spread = volumes[:: max(1, len(volumes) // _TO_CHOOSE)]
    versions = choose(target, [v for _, v in spread], progress=progress)
    name = f"{len({s for s, _ in volumes})} T1 heads, with and without skull"
    return calibrate(target, volumes, versions, name=name, progress=progress)


def main() -> None:
    """Command line."""
    from MedShieldLib.targets import load_target

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with volumes/ and labels/")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    arguments = parser.parse_args()

    def say(fraction: float, step: str) -> None:
        print(f"{fraction:6.1%}  {step}", flush=True)

    calibration = calibrate_reference(load_target("brain-tissue"), arguments.data, say)
    calibration.save(arguments.out)
    for version in calibration.versions:
        print(version)


if __name__ == "__main__":
    main()
