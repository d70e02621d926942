"""Training subjects for the reference target: T1 heads with tissue labels on its 2 mm grid.

Reads a folder laid out as volumes/*_T1.nii.gz + labels/*_DLMUSE.nii.gz, and MNI152 from nilearn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from MedShieldLib.errors import InputError
from MedShieldLib.targets.brain_tissue import ORIENTATION, SPACING_MM, STRUCTURES
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.volume import Volume

MNI = "MNI152"
CSF, GREY, WHITE = (s.value for s in STRUCTURES)

# DLMUSE region codes (the MUSE list of regions); every other region above 0 is grey matter.
_CSF_REGIONS = (1, 4, 11, 46, 49, 50, 51, 52)
_WHITE_REGIONS = (35, 40, 41, 61, 62, 69, *range(81, 96))


@dataclass(frozen=True)
class Subject:
    """One head on the network's grid: `image` float32 and `labels` uint8, both (K', J', I')."""

    name: str
    image: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    volume: Volume = field(repr=False)


def load_subjects(folder: Path, with_mni: bool = True) -> list[Subject]:
    """All labelled heads of `folder` by name, then MNI152.

    Raises:
        InputError: if the folder has no labelled head.
    """
    heads = sorted((folder / "labels").glob("*_DLMUSE.nii.gz"))
    subjects = []
    for labels in heads:
        name = labels.name.removesuffix("_DLMUSE.nii.gz")
        volume = Volume.read(folder / "volumes" / f"{name}_T1.nii.gz")
        regions = sitk.GetArrayFromImage(sitk.ReadImage(str(labels)))
        subjects.append(_on_grid(name, volume, tissues_of_regions(regions)))
    if not subjects:
        raise InputError(
            f"{folder} has no labels/*_DLMUSE.nii.gz with volumes/*_T1.nii.gz; see docs/training.md."
        )
    return [*subjects, mni152()] if with_mni else subjects


def tissues_of_regions(regions: np.ndarray) -> np.ndarray:
    """DLMUSE region codes to tissue labels (uint8, same shape)."""
    tissues = np.where(regions > 0, GREY, 0).astype(np.uint8)
    tissues[np.isin(regions, _CSF_REGIONS)] = CSF
    tissues[np.isin(regions, _WHITE_REGIONS)] = WHITE
    return tissues


def mni152() -> Subject:
    """The skull-stripped MNI152 template (1 mm): what is neither in nilearn's GM nor WM map is CSF."""
    from nilearn import datasets

    image = datasets.load_mni152_template(resolution=1)
    grey = _array(datasets.load_mni152_gm_template(resolution=1))
    white = _array(datasets.load_mni152_wm_template(resolution=1))
    voxels = _array(image)
    brain = voxels > 0
    tissues = np.argmax(np.stack([np.zeros_like(grey), 1 - grey - white, grey, white]), axis=0)
    return _on_grid(MNI, from_nibabel(image), np.where(brain, tissues, 0).astype(np.uint8))


def from_nibabel(image) -> Volume:
    """A nibabel image (RAS affine) as a Volume (LPS geometry)."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    i, j, k = spacing.tolist()
    left, posterior, superior = lps[:3, 3].tolist()
    direction = tuple((lps[:3, :3] / spacing).ravel().tolist())
    return Volume(np.ascontiguousarray(_array(image)), (i, j, k), (left, posterior, superior), direction)


def _array(image) -> np.ndarray:
    return image.get_fdata(dtype=np.float32).transpose(2, 1, 0)


def _on_grid(name: str, volume: Volume, tissues: np.ndarray) -> Subject:
    grid = WorkingGrid.of(volume, ORIENTATION, (SPACING_MM,) * 3)
    image = grid.to_grid(volume.voxels)
    shares = torch.stack([grid.to_grid((tissues == n).astype(np.float32)) for n in range(4)])
    return Subject(name, image, shares.argmax(0).to(torch.uint8), volume)
