"""What tests share: real volumes that packages ship, and the development data where it is present."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from MedShieldLib.errors import InputError
from MedShieldLib.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def dev_data() -> Path:
    """The folder of development data (volumes/, labels/, models/); skips where it is absent."""
    folder = Path(os.environ.get("MEDSHIELD_DEV_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "volumes").is_dir():
        pytest.skip(f"needs the development data, not in {folder}; set MEDSHIELD_DEV_DATA")
    return folder


@pytest.fixture(scope="session")
def mni_2mm() -> Volume:
    """MNI152 T1 (skull-stripped), float32 in [0, 1], (95, 117, 99) voxels of 2 mm; voxels are read-only."""
    return _mni152(2)


@pytest.fixture(scope="session")
def mni_4mm() -> Volume:
    """The same head, (48, 59, 50) voxels of 4 mm: for what must be quick."""
    return _mni152(4)


def _mni152(resolution_mm: int) -> Volume:
    datasets = pytest.importorskip("nilearn.datasets", reason="needs nilearn for the MNI152 template")
    image = datasets.load_mni152_template(resolution=resolution_mm)
    right, anterior, superior = (float(mm) for mm in image.affine[:3, 3])
    voxels = np.ascontiguousarray(image.get_fdata(dtype=np.float32).T)
    voxels.setflags(write=False)
    return Volume(
        voxels,
        spacing=(float(resolution_mm),) * 3,
        origin=(-right, -anterior, superior),
        direction=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    )


@pytest.fixture
def refusal(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Reads a path that must be refused: one plain sentence that names it, and nothing on the terminal."""

    def read(path: Path, **choices: object) -> str:
        with pytest.raises(InputError) as caught:
            Volume.read(path, **choices).require_checkable()  # type: ignore[arg-type]
        message = str(caught.value)
        assert path.name in message
        assert message.endswith(".") and "\n" not in message and "ITK" not in message and len(message) < 400
        assert capfd.readouterr() == ("", "")
        return message

    return read


@pytest.fixture(scope="session")
def multi_frame() -> Callable[..., Dataset]:
    """Makes one multi-frame image of the slices of an MR series, as an archive does; frames in any order."""
    legacy = pytest.importorskip("highdicom.legacy", reason="needs highdicom to make multi-frame images")
    from pydicom.uid import generate_uid

    def make(slices: Sequence[Dataset], order: Sequence[int] | None = None) -> Dataset:
        uids = {"series_instance_uid": generate_uid(), "sop_instance_uid": generate_uid()}
        image = legacy.LegacyConvertedEnhancedMRImage(slices, series_number=7, instance_number=1, **uids)
        if order is not None:
            groups = list(image.PerFrameFunctionalGroupsSequence)
            image.PerFrameFunctionalGroupsSequence = [groups[n] for n in order]
            size = len(image.PixelData) // len(groups)
            image.PixelData = b"".join(image.PixelData[n * size : (n + 1) * size] for n in order)
        return image

    return make
