"""The target of the independent test: what it is made of meets the shield as anybody's model would."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

pytest.importorskip("nilearn")

from MedShieldLib.errors import InputError
from MedShieldLib.evaluation import fresh_target
from MedShieldLib.evaluation.heads import Role
from MedShieldLib.evaluation.split import heads_for
from MedShieldLib.targets import DifferentiableTarget, load_target
from MedShieldLib.volume import Volume


class Steps(torch.nn.Module):
    """As many classes as the target has, by brightness."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centres = torch.linspace(0, 1, 1 + len(fresh_target.STRUCTURES)).reshape(1, -1, 1, 1, 1)
        return -100 * (x - centres) ** 2


@pytest.fixture
def head(mni_2mm: Volume) -> Volume:
    """A head with air above it, and more below it than one field of view holds."""
    voxels = np.pad(mni_2mm.voxels, ((30, 20), (12, 3), (0, 0)))
    return Volume(voxels, mni_2mm.spacing, mni_2mm.origin, mni_2mm.direction)


def test_the_model_that_is_written_is_a_target(head, tmp_path):
    target = load_target(fresh_target.write(Steps(), tmp_path))
    assert isinstance(target, DifferentiableTarget) and target.name == "fresh"
    assert [s.name for s in target.structures] == list(fresh_target.STRUCTURES)
    answer = target.probabilities(head)
    assert answer.shape[0] == 6 and np.allclose(answer.sum(0), 1, atol=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fresh.json", "fresh.pt"]


def test_a_field_of_view_holds_the_top_of_the_head_and_fits_one_patch(head):
    seen = Volume.from_sitk(fresh_target._field_of_view(head.to_sitk()))
    assert seen.voxels.shape == (84, 96, 84)  # of 2 mm, and one patch of 3 mm
    bright = head.voxels > head.voxels.mean()
    top = np.flatnonzero(bright.mean((1, 2)) > 0.02).max()
    assert (seen.voxels[-1] > head.voxels.mean()).any() and top < len(head.voxels) - 15
    kept = np.isin(seen.voxels[seen.voxels > 0], head.voxels).mean()
    assert kept == 1 and (seen.voxels > head.voxels.mean()).sum() > 0.9 * bright[top - 83 : top + 1].sum()


def test_heads_that_are_there_are_written_and_listed(head, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    for folder in (data / "volumes", out):
        folder.mkdir(parents=True)
    with pytest.raises(InputError, match="none of the heads"):
        fresh_target.write_heads(data, out)
    for name in ("mricron_ch2", "nv_spm152", "trio_b17_mprage"):
        head.write(data / "volumes" / f"{name}.nii.gz")
    fresh_target.write_heads(data, out)
    assert [(h.subject, h.role) for h in heads_for("fresh", out)] == [
        ("mricron_ch2", Role.CALIBRATE),
        ("trio_b17_mprage", Role.TEST),
    ]
    with (out / "heads.csv").open() as file:
        assert all((out / line["file"]).exists() for line in csv.DictReader(file))
    assert [path.name for path in (out / "harden").iterdir()] == ["nv_spm152.nii.gz"]


def test_a_copy_learns_from_no_head_that_the_shield_is_calibrated_or_tested_on():
    assert not {*fresh_target._HARDEN} & {*fresh_target._CALIBRATE, *fresh_target._TEST}


def test_a_patch_is_a_function_of_its_number():
    image, labels = torch.rand(1, 50, 80, 60), torch.randint(0, 6, (1, 50, 80, 60))
    patches = [fresh_target._patch(image, labels, np.random.default_rng([17, n])) for n in (3, 3, 4)]
    (x, y), (again, _), (other, _) = patches
    assert x.shape == y.shape == (1, *fresh_target._PATCH) and x.min() >= 0 and x.max() <= 1
    assert torch.equal(x, again) and not torch.equal(x, other)
