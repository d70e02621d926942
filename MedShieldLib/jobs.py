"""The jobs behind the commands: from file names to files, one small class each.

The command line, the worker and the demo share them; nothing is printed here.
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from MedShieldLib.control import Control
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.refusals import require_plain_name
from MedShieldLib.volume import Volume

if TYPE_CHECKING:
    from MedShieldLib.attacks.base import AttackResult
    from MedShieldLib.calibration import Calibration
    from MedShieldLib.result import CheckResult

# Benign shifts of every volume: this many, and more of them where there are few volumes.
_LEAST_SHIFTS, _ENOUGH_SCORES = 4, 60


@dataclass(frozen=True)
class CheckJob:
    """Check one volume and save the results in a folder.

    Attributes:
        volume: file or DICOM folder.
        target: built-in name or JSON path.
        out: folder for the results.
        calibration: file; None takes the one that ships for the target.
        alpha: rate of false alarms that is accepted, in (0, 1).
        seed: makes the random versions repeatable; None draws fresh ones.
        series: which series of a DICOM folder.
        component: which component of a vector or 4D image.
        force: replace results that `out` already holds.
        versions: how many versions of the volume; fewer are faster, and easier to fool. None takes all.
        second_opinion: another target, by built-in name or JSON path, that is asked as well.
    """

    volume: Path
    target: str
    out: Path
    calibration: Path | None = None
    alpha: float = 0.05
    seed: int | None = None
    series: str | None = None
    component: int | None = None
    force: bool = False
    versions: int | None = None
    second_opinion: str | None = None

    def run(self, control: Control) -> CheckResult:
        """Raises InputError or Cancelled; writes all results or nothing."""
        from MedShieldLib.export.folder import require_output_folder
        from MedShieldLib.shield import Shield
        from MedShieldLib.targets import load_target

        require_output_folder(self.out, self.force)
        control.progress(0.0, "Reading the volume")
        volume = Volume.read(self.volume, series=self.series, component=self.component)
        volume.require_checkable()
        control.progress(0.02, "Loading the target")
        shield = Shield.for_target(
            load_target(self.target),
            self.calibration,
            alpha=self.alpha,
            seed=self.seed,
            versions=self.versions,
            second=None if self.second_opinion is None else load_target(self.second_opinion),
        )
        result = shield.check_and_segment(volume, control.part(0.05, 0.9), control.cancelled)
        control.progress(0.9, "Writing the results")
        with control.writing():
            result.save(self.out, force=self.force)
        control.progress(1.0, "Done")
        return result


@dataclass(frozen=True)
class CalibrateJob:
    """Calibrate a target on a folder of clean volumes, one of each subject.

    Attributes:
        folder: with the volumes.
        target: built-in name or JSON path.
        out: file for the calibration.
        seed: of the benign shifts and of the versions.
        force: replace what is there.
        second_opinion: another target that is asked as well, so that checks can ask it.
        learned: the learned reformer may be among the versions, see `families.choose`.
    """

    folder: Path
    target: str
    out: Path
    seed: int = 0
    force: bool = False
    second_opinion: str | None = None
    learned: bool = False

    def run(self, control: Control) -> Calibration:
        """Raises InputError or Cancelled; writes the whole file or nothing."""
        from MedShieldLib.calibration import calibrate
        from MedShieldLib.families import choose
        from MedShieldLib.targets import load_target

        require_new_file(self.out, self.force)
        volumes = _volumes_in(self.folder, control.stage(0.0, 0.05))
        target = load_target(self.target)
        second = None if self.second_opinion is None else load_target(self.second_opinion)
        versions = choose(
            target,
            [volume for _, volume in volumes],
            learned=self.learned,
            seed=self.seed,
            progress=control.part(0.05, 0.2),
            cancelled=control.cancelled,
        )
        calibration = calibrate(
            target,
            volumes,
            versions,
            per_volume=max(_LEAST_SHIFTS, math.ceil(_ENOUGH_SCORES / len(volumes))),
            second=second,
            seed=self.seed,
            progress=control.part(0.2, 0.99),
            cancelled=control.cancelled,
        )
        with control.writing():
            make_folder(self.out.parent)
            calibration.save(self.out)
        control.progress(1.0, "Done")
        return calibration


@dataclass(frozen=True)
class HardenJob:
    """Train a hardened copy of a target, to be asked for second opinions; a stopped job goes on where it was.

    Attributes:
        folder: with clean volumes; a calibration of the copy's opinions has to be of others.
        target: built-in name or JSON path.
        out: JSON file that describes the copy; its weights go beside it.
        work: folder for checkpoints.
        iterations: None takes the recipe's, as does `seed`.
        force: replace what is there.
        begin: a copy made before, whose weights are trained on; None begins with the target's own.
    """

    folder: Path
    target: str
    out: Path
    work: Path
    iterations: int | None = None
    seed: int | None = None
    force: bool = False
    begin: str | None = None

    def run(self, control: Control) -> Path:
        """The file of the weights. Raises InputError or Cancelled; writes both files whole or neither."""
        from MedShieldLib.targets import hardened, load_target
        from MedShieldLib.training import copies

        require_new_file(self.out, self.force, (".json",))
        require_new_file(hardened.weights_beside(self.out), self.force)
        target = hardened.require_trainable(load_target(self.target))
        copy = hardened.require_copy(load_target(self.begin or self.target), target)
        volumes = _volumes_in(self.folder, control.stage(0.0, 0.02))
        chosen = {"iterations": self.iterations, "seed": self.seed}
        recipe = copies.Recipe(**{key: value for key, value in chosen.items() if value is not None})
        for folder in (self.out.parent, self.work):
            make_folder(folder)
        network = copies.harden(
            target,
            copy,
            [volume for _, volume in volumes],
            self.work / copies.identity(target, copy, [name for name, _ in volumes], recipe),
            recipe,
            progress=control.part(0.02, 0.99),
            cancelled=control.cancelled,
        )
        with control.writing():
            weights = hardened.save(network, self.target, self.out)
        control.progress(1.0, "Done")
        return weights


@dataclass(frozen=True)
class AttackJob:
    """Attack one volume through a target and write the attacked volume.

    Attributes:
        eps: L-infinity bound in units of the target's [0, 1] window.
        attack: its name in `MedShieldLib.attacks`.
        steps: gradient steps; None takes the attack's own default.
    """

    volume: Path
    target: str
    eps: float
    out: Path
    attack: str = "pgd"
    steps: int | None = None
    seed: int = 0
    series: str | None = None
    component: int | None = None
    force: bool = False

    def run(self, control: Control) -> AttackResult:
        """Raises InputError or Cancelled; writes the whole file or nothing."""
        from MedShieldLib.attacks import load_attack
        from MedShieldLib.attacks.base import require_room
        from MedShieldLib.reading import EXTENSIONS
        from MedShieldLib.targets import DifferentiableTarget, load_target

        require_new_file(self.out, self.force, EXTENSIONS)
        attack = load_attack(self.attack, **({} if self.steps is None else {"steps": self.steps}))
        control.progress(0.0, "Reading the volume")
        volume = Volume.read(self.volume, series=self.series, component=self.component)
        volume.require_checkable()
        target = load_target(self.target)
        if not isinstance(target, DifferentiableTarget):
            raise InputError(f"Target '{self.target}' shows no gradients, which '{self.attack}' needs.")
        require_room(target, volume, self.eps)
        result = attack(
            target,
            volume,
            self.eps,
            seed=self.seed,
            progress=control.part(0.02, 0.95),
            cancelled=control.cancelled,
        )
        with control.writing():
            make_folder(self.out.parent)
            result.volume.write(self.out)
        control.progress(1.0, "Done")
        return result


@dataclass(frozen=True)
class TrainJob:
    """Train the reference target; a stopped training goes on where it was.

    Attributes:
        data: folder with volumes/*_T1.nii.gz and labels/*_DLMUSE.nii.gz.
        work: folder for checkpoints and validation figures.
        folds: leave-subjects-out folds; 0 for none.
        iterations: None takes the recipe of the shipped weights, as does `seed`.
    """

    data: Path
    work: Path
    out: Path
    folds: int = 3
    iterations: int | None = None
    seed: int | None = None
    force: bool = False

    def run(self, control: Control) -> None:
        """Raises InputError or Cancelled."""
        from MedShieldLib.training.reference import train_and_validate
        from MedShieldLib.training.train import Recipe

        require_new_file(self.out, self.force, (".safetensors",))
        recipe = Recipe() if self.seed is None else Recipe(seed=self.seed)
        if self.iterations is not None:
            recipe = recipe.of_length(self.iterations)

        def progress(fraction: float, step: str) -> None:
            control.progress(fraction, step)
            if control.cancelled():
                raise Cancelled

        for folder in (self.out.parent, self.work):
            make_folder(folder)
        train_and_validate(self.data, self.work, self.out, recipe, self.folds, progress)


def _volumes_in(folder: Path, control: Control) -> list[tuple[str, Volume]]:
    """(Name, volume) of every volume in a folder."""
    paths, volumes = find_volumes(folder), []
    for n, path in enumerate(paths):
        control.progress(n / len(paths), f"Reading {path.name}")
        if control.cancelled():
            raise Cancelled
        volume = Volume.read(path)
        volume.require_checkable()
        volumes.append((path.name, volume))
    return volumes


def find_volumes(folder: Path) -> list[Path]:
    """The image files directly in `folder`, and its sub-folders as DICOM series, by name.

    Raises:
        InputError: if the folder is missing or holds none.
    """
    from MedShieldLib.reading import EXTENSIONS, extension_of

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that holds the clean volumes.")
    try:
        visible = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}.") from error
    found = [p for p in visible if p.is_dir() or extension_of(p)]
    if not found:
        raise InputError(f"{folder} holds neither {', '.join(EXTENSIONS)} files nor folders of DICOM series.")
    return found


def make_folder(folder: Path) -> None:
    """Make `folder`, and those around it, where they are not there.

    Raises:
        InputError: if it is a file, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); choose another folder.") from error


def require_new_file(path: Path, force: bool, suffixes: tuple[str, ...] = ()) -> None:
    """Make sure, before any computation, that `path` can be written.

    Raises:
        InputError: if it exists and `force` is False, has another ending, or cannot be written.
    """
    require_plain_name(path)
    if suffixes and not path.name.lower().endswith(suffixes):
        raise InputError(f"{path} needs one of these endings: {', '.join(suffixes)}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file name.")
    if path.exists() and not force:
        raise InputError(f"{path} exists already; choose another name or allow replacing it with --force.")
    folder = next(p for p in path.absolute().parents if p.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written: {os.strerror(error.errno or 0)}.") from error
