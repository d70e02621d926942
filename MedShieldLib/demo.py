"""The demonstration: the MNI152 brain, attacked and checked before and after.

What it prints is what `medshield attack` and `medshield check` answer. Needs the extra `train`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from MedShieldLib.control import Control
from MedShieldLib.evaluation.metrics import mean_dice
from MedShieldLib.export.folder import require_output_folder
from MedShieldLib.jobs import AttackJob, CheckJob, make_folder
from MedShieldLib.result import CheckResult
from MedShieldLib.volume import Segmentation, Volume

TARGET = "brain-tissue"
EPS = 8 / 255
SEED = 1


@dataclass(frozen=True)
class Finding:
    """One checked volume: Dice of its two segmentations against the target's answer to the clean volume."""

    title: str
    folder: Path
    result: CheckResult
    original_dice: float
    defended_dice: float


def run(folder: Path, control: Control) -> tuple[Finding, Finding]:
    """Write, attack and check the brain in `folder`; what an earlier run left there is replaced.

    Returns:
        The finding for the clean and for the attacked volume.

    Raises:
        InputError: if `folder` cannot be written.
    """
    require_output_folder(folder, force=True)
    control.progress(0.0, "Writing the MNI152 brain")
    clean, attacked = folder / "mni152.nii.gz", folder / "mni152_attacked.nii.gz"
    volume = mni152()
    with control.writing():
        make_folder(folder)
        volume.write(clean)
    AttackJob(clean, TARGET, EPS, attacked, force=True).run(control.stage(0.02, 0.6, "Attack"))
    before = _check(clean, folder / "check_clean", control.stage(0.6, 0.8, "Clean volume"))
    after = _check(attacked, folder / "check_attacked", control.stage(0.8, 1.0, "Attacked volume"))
    return (
        _finding("Clean", folder / "check_clean", before, before.original),
        _finding("Attacked", folder / "check_attacked", after, before.original),
    )


def mni152() -> Volume:
    """The MNI152 T1 template (Fonov et al. 2011), 1 mm, skull-stripped, as the package nilearn ships it."""
    from nilearn.datasets import load_mni152_template

    from MedShieldLib.training.data import from_nibabel

    volume = from_nibabel(load_mni152_template(resolution=1))
    # An even number of voxels, so that the target's 2 mm cells fit: an attack is weaker where they do not.
    k, j, i = (n // 2 * 2 for n in volume.voxels.shape)
    return volume.with_voxels(volume.voxels[:k, :j, :i].copy())


def _check(volume: Path, out: Path, control: Control) -> CheckResult:
    return CheckJob(volume, TARGET, out, seed=SEED, force=True).run(control)


def _finding(title: str, folder: Path, result: CheckResult, reference: Segmentation) -> Finding:
    original, defended = mean_dice(result.original, reference), mean_dice(result.defended, reference)
    return Finding(title, folder, result, original, defended)
