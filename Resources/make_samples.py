"""Makes the sample data of the module: the MNI152 brain, clean and attacked, with pictures and checksums.

    python Resources/make_samples.py      needs the extra `train` (nilearn) and the reference target; minutes

The same brain as in `medshield demo`, as 16-bit numbers. The attack is reproducible: a fixed seed, and its
change is at most 8/255 of the target's intensity window in every voxel.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
SAMPLES = REPOSITORY / "MedShield" / "Resources" / "SampleData"
NAMES = {"MedShield-clean": "MNI152 clean", "MedShield-attacked": "MNI152 attacked"}
_LEVELS = 4000


def main() -> None:
    """Write both volumes, their thumbnails and samples.json."""
    from MedShieldLib.control import Control
    from MedShieldLib.demo import EPS, SEED, TARGET, mni152
    from MedShieldLib.jobs import AttackJob

    SAMPLES.mkdir(parents=True, exist_ok=True)
    clean, attacked = (SAMPLES / f"{stem}.nii.gz" for stem in NAMES)
    brain = mni152()
    scale = _LEVELS / float(brain.voxels.max())
    brain.with_voxels(np.round(brain.voxels * scale).astype(np.int16)).write(clean)
    AttackJob(clean, TARGET, EPS, attacked, seed=SEED, force=True).run(Control())
    entries = [_entry(stem, name) for stem, name in NAMES.items()]
    (SAMPLES / "samples.json").write_text(json.dumps(entries, indent=2) + "\n", "utf-8")


def _entry(stem: str, name: str) -> dict[str, str]:
    from MedShieldLib.volume import Volume

    file, thumbnail = SAMPLES / f"{stem}.nii.gz", SAMPLES / f"{stem}.png"
    _draw(Volume.read(file).voxels, thumbnail)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"name": name, "file": file.name, "thumbnail": thumbnail.name, "sha256": digest}


def _draw(voxels: np.ndarray, file: Path) -> None:
    """The middle axial slice, 128 pixels wide and high."""
    from PIL import Image

    middle = np.clip(voxels[voxels.shape[0] // 2, ::-1] / voxels.max() * 255, 0, 255).astype(np.uint8)
    side = max(middle.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = ((side - n) // 2 for n in middle.shape)
    square[top : top + middle.shape[0], left : left + middle.shape[1]] = middle
    Image.fromarray(square).resize((128, 128)).save(file)


if __name__ == "__main__":
    main()
