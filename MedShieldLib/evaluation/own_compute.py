"""What a check costs beside the target's inferences, and in memory, measured on one real check with deepbet.

Run as `python -m MedShieldLib.evaluation.own_compute [VOLUME]`. Says nothing about how well the check judges.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from MedShieldLib import families, heap, shifts
from MedShieldLib.calibration import Calibration, calibrate
from MedShieldLib.errors import InputError
from MedShieldLib.result import CheckResult
from MedShieldLib.shield import Shield
from MedShieldLib.slabs import workers
from MedShieldLib.study import exit_code
from MedShieldLib.targets import Target, load_target
from MedShieldLib.volume import Volume

SIZE = 256
# Names of `CheckResult.timings_s` that are our own.
_PARTS = {
    "versions": "drawing versions",
    "evidence": "evidence and votes",
    "labels": "label maps of the target",
    "agreement": "agreement per structure",
    "heatmap": "heatmap",
    "hash": "hash of the input",
}


def padded_mni152() -> Volume:
    """The MNI152 template at 1 mm in the middle of 256^3 voxels."""
    from nilearn.datasets import load_mni152_template

    from MedShieldLib.training.data import from_nibabel

    volume = from_nibabel(load_mni152_template(resolution=1))
    before = [(SIZE - n) // 2 for n in volume.voxels.shape]
    after = [SIZE - n - b for n, b in zip(volume.voxels.shape, before, strict=True)]
    return volume.with_voxels(np.pad(volume.voxels, list(zip(before, after, strict=True))))


def shields(target: Target, volume: Volume) -> tuple[Shield, Shield]:
    """A shield whose checks of a volume end in an alarm, which cost more, and one that finds it clean.

    The calibration is the target's own, or made on the spot of this one volume, with its clean evidence set
    to 0, so that all evidence stands out, or to much more, so that none does.
    """
    try:
        calibration = Calibration.shipped(target)
    except InputError:
        versions = families.choose(target, [volume])
        calibration = calibrate(target, [("the volume", volume)], versions, augmentations=[shifts.none])
    else:
        target.probabilities(volume)  # the first inference of a TorchScript network compiles it
    still = replace(calibration, disagreements=0 * calibration.disagreements)
    restless = replace(calibration, disagreements=calibration.disagreements + 1)
    return Shield(target, still, alpha=0.5, seed=1), Shield(target, restless, alpha=1e-9, seed=1)


def table(result: CheckResult) -> str:
    """Seconds and shares of the whole check, a line for each part."""
    seconds = result.timings_s
    total, inferences = seconds["total"], seconds["target"]
    rows = {title: seconds[name] for name, title in _PARTS.items()}
    rows["anything else"] = total - inferences - sum(rows.values())
    rows |= {"own compute": total - inferences, "inferences": inferences, "the whole check": total}
    return "\n".join(f"{title:<26}{s:8.2f} s{s / total:8.1%}" for title, s in rows.items())


def peak_gb() -> float:
    """Most memory that this process has held so far, in GB; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    kilobytes = 1e-3 if sys.platform == "darwin" else 1  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes / 1e6


@exit_code
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("volume", type=Path, nargs="?", help="MNI152 padded to 256^3 when none is given")
    parser.add_argument("--target", default="deepbet")
    parser.add_argument("--checks", type=int, default=5, help="the middle one counts (default: 5)")
    arguments = parser.parse_args()
    if arguments.checks < 1:
        parser.error(f"--checks is {arguments.checks}; give 1 or more")
    heap.keep_for_reuse()  # as a check does
    volume = Volume.read(arguments.volume) if arguments.volume else padded_mni152()
    size = " x ".join(map(str, volume.voxels.shape[::-1]))
    alarmed, clean = shields(load_target(arguments.target), volume)
    alarmed.check_and_segment(volume)
    print(f"Target {arguments.target}, {size} voxels, {workers()} threads, peak memory {peak_gb():.1f} GB")
    for shield in (alarmed, clean):
        checks = [shield.check_and_segment(volume) for _ in range(arguments.checks)]
        middle = sorted(checks, key=lambda check: check.timings_s["total"])[arguments.checks // 2]
        print(f"\nVerdict {middle.verdict.value}\n{table(middle)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
