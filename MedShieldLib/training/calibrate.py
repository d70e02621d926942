"""The calibrations that ship, computed from the heads of the development data.

Run as `python -m MedShieldLib.training.calibrate DATA --work WORK` for the reference target, with the WORK of
`training.validate`, or with `--target deepbet`; DATA is laid out as for training. With `--second-opinion`
another target is asked as well; `--onto FILE` adds its opinion to a calibration made by the same arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from MedShieldLib.calibration import Calibration, calibrate
from MedShieldLib.clean_rows import Rows
from MedShieldLib.families import choose
from MedShieldLib.observation import Progress
from MedShieldLib.recalibration import with_second_opinion
from MedShieldLib.study import exit_code
from MedShieldLib.targets import brain_tissue
from MedShieldLib.targets.base import Target
from MedShieldLib.targets.brain_tissue import SPACING_MM
from MedShieldLib.training import data
from MedShieldLib.training.augment import brain
from MedShieldLib.training.data import Subject, load_subjects
from MedShieldLib.training.train import Recipe
from MedShieldLib.training.validate import left_out
from MedShieldLib.volume import Volume

_SHIPPED = Path(__file__).parents[1] / "data"
_TO_CHOOSE = 3
# Every fourth head is seen without its skull as well, if the target knows such heads.
_STRIPPED_EVERY = 4
# Benign shifts of each head.
_SHIFTS_PER_HEAD = 4
# T1 heads of other scanners, without labels. A target is steadier on what it has seen in training, so its
# calibration needs heads that it has not.
_UNSEEN = ("mricron_ch2", "nv_spm152", "nv_MR_Gd")


def clean_volumes(folder: Path, with_stripped: bool) -> list[tuple[str, Volume]]:
    """(Subject, volume): all labelled heads and some unseen ones; MNI152 and some heads without the skull."""
    subjects = load_subjects(folder, with_mni=with_stripped)
    volumes = [(s.name, s.volume) for s in subjects]
    files = [folder / "volumes" / f"{name}.nii.gz" for name in _UNSEEN]
    volumes += [(file.name.removesuffix(".nii.gz"), Volume.read(file)) for file in files if file.exists()]
    if with_stripped:
        heads = [s for s in subjects if s.name != data.MNI]
        volumes += [(s.name, stripped(s)) for s in heads[::_STRIPPED_EVERY]]
    return volumes


def stripped(subject: Subject) -> Volume:
    """A head without its skull, cut along its labels, on the network's grid."""
    return Volume((subject.image * brain(subject.labels, 1)).numpy(), (SPACING_MM,) * 3)


def calibrate_shipped(
    target: Target,
    volumes: Sequence[tuple[str, Volume]],
    stand_ins: Mapping[str, Target],
    second: Target | None = None,
    alike: bool = True,
    progress: Progress = lambda fraction, step: None,
) -> Calibration:
    """Choose the versions on a few heads, then calibrate on all; `alike` as in `with_opinion`."""
    # Heads of different sources come first, because filters are tried on the first few.
    step = max(1, len(volumes) // _TO_CHOOSE)
    mixed = [volume for first in range(step) for _, volume in volumes[first::step]]
    versions = choose(target, mixed, progress=progress)
    name = f"{len({s for s, _ in volumes})} T1 heads"
    calibration = calibrate(
        target,
        volumes,
        versions,
        name=name,
        per_volume=_SHIFTS_PER_HEAD,
        stand_ins=stand_ins,
        second=second,
        progress=progress,
    )
    return _with_new_heads_contradictions(calibration) if alike else calibration


def with_opinion(
    calibration: Calibration,
    rows: Rows,
    second: Target,
    alike: bool = True,
    progress: Progress = lambda fraction, step: None,
) -> Calibration:
    """A calibration of `calibrate_shipped` with a second opinion of the same volumes, nothing redone.

    Args:
        calibration: without it.
        rows: its volumes.
        second: who is asked.
        alike: whether both targets learned from the heads with labels, and from the same ones.
        progress: called with the share done and what is going on.
    """
    asked = with_second_opinion(calibration, rows, second, progress=progress)
    return _with_new_heads_contradictions(asked) if alike else asked


def _with_new_heads_contradictions(calibration: Calibration) -> Calibration:
    if calibration.second is None:
        return calibration
    learned = ~np.isin(calibration.subjects, _UNSEEN)
    expected = as_if_new(calibration.second.contradictions, learned)
    return replace(calibration, second=replace(calibration.second, contradictions=expected))


def as_if_new(contradictions: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """What a second opinion would say of heads that no network has learned from.

    Two networks that were trained on the same heads contradict each other less on these. Their spread is
    kept, and their mean made that of the others, for each structure and side.

    Args:
        contradictions: (N, M, 2).
        learned: (N,) whether a network has learned from the head.

    Returns:
        (N, M, 2); as given where all heads were learned from, or none.
    """
    if learned.all() or not learned.any():
        return contradictions
    ours, others = contradictions[learned].mean(0), contradictions[~learned].mean(0)
    share = np.divide(others, ours, out=np.ones_like(ours), where=ours > 0)
    return np.where(learned[:, None, None], contradictions * share, contradictions)


def trained_without(data: Path, work: Path, only: Sequence[int], progress: Progress) -> dict[str, Target]:
    """By subject: the reference target of leave-subjects-out that has not seen it. Trains what is missing."""
    found = left_out(load_subjects(data), work, Recipe(), only=only, progress=progress)
    return {subject.name: target for _, subjects, target in found for subject in subjects}


@exit_code
def main() -> None:
    """Command line."""
    from MedShieldLib.targets import load_target

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with volumes/ and labels/")
    parser.add_argument("--target", default=brain_tissue.NAME, help="a built-in target")
    parser.add_argument("--out", type=Path, help="default: where the shipped one is")
    parser.add_argument(
        "--work", type=Path, help="checkpoints of leave-subjects-out; missing ones are trained"
    )
    parser.add_argument("--only", type=int, nargs="+", default=(), help="folds to use, from 0; default: all")
    parser.add_argument("--second-opinion", metavar="TARGET", help="another target to ask as well")
    parser.add_argument(
        "--unlike", action="store_true", help="the second opinion did not learn what the target learned"
    )
    parser.add_argument("--onto", type=Path, help="a calibration to which its opinion is added")
    arguments = parser.parse_args()

    if arguments.onto and not arguments.second_opinion:
        parser.error("--onto adds a second opinion; name who gives it with --second-opinion.")
    if arguments.work and arguments.target != brain_tissue.NAME:
        parser.error(f"--work holds networks of {brain_tissue.NAME}; leave it out for {arguments.target}.")

    def say(fraction: float, step: str) -> None:
        print(f"{fraction:6.1%}  {step}", flush=True)

    volumes = clean_volumes(arguments.data, with_stripped=arguments.target == brain_tissue.NAME)
    others = trained_without(arguments.data, arguments.work, arguments.only, say) if arguments.work else {}
    target = load_target(arguments.target)
    second = load_target(arguments.second_opinion) if arguments.second_opinion else None
    if arguments.onto and second:
        rows = Rows(target, volumes, per_volume=_SHIFTS_PER_HEAD, stand_ins=others)
        calibration = with_opinion(Calibration.load(arguments.onto), rows, second, not arguments.unlike, say)
    else:
        calibration = calibrate_shipped(target, volumes, others, second, not arguments.unlike, say)
    calibration.save(arguments.out or _SHIPPED / f"{arguments.target}.calibration.json")
    for version in calibration.versions:
        print(version)


if __name__ == "__main__":
    sys.exit(main())
