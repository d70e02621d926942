"""Dice, surface distance and volume between two label maps, against closed forms and against MONAI."""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest
from scipy import ndimage

from MedShieldLib.agreement import compare, dice, hd95
from MedShieldLib.volume import Segmentation, Structure, Volume

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.5, 0.8), (0.7, 2.5, 1.3)]


def _blob(seed: int, shape: tuple[int, int, int] = (24, 30, 27)) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return ndimage.gaussian_filter(noise, 3) > 0


def _box(k: slice, j: slice, i: slice) -> np.ndarray:
    mask = np.zeros((20, 20, 20), bool)
    mask[k, j, i] = True
    return mask


def _monai_hd95(first: np.ndarray, second: np.ndarray, spacing: tuple[float, ...]) -> float:
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_hausdorff_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = (torch.from_numpy(mask)[None, None] for mask in (first, second))
        return float(compute_hausdorff_distance(*tensors, percentile=95, spacing=spacing))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(3))
def test_surface_distance_equals_that_of_monai(seed: int, spacing: tuple[float, float, float]) -> None:
    first, second = _blob(seed), _blob(seed + 10)
    assert hd95(first, second, spacing) == pytest.approx(_monai_hd95(first, second, spacing), rel=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_masks_that_fill_the_volume_have_surfaces_at_its_border(spacing: tuple[float, float, float]) -> None:
    full, half = np.ones((16, 18, 20), bool), np.zeros((16, 18, 20), bool)
    half[:, :9] = True
    assert hd95(full, half, spacing) == pytest.approx(_monai_hd95(full, half, spacing), rel=1e-5)


def test_a_moved_plane_is_as_far_away_as_it_was_moved() -> None:
    here, there = _box(slice(4, 5), slice(None), slice(None)), _box(slice(9, 10), slice(None), slice(None))
    assert hd95(here, there, (2.5, 1.0, 1.0)) == pytest.approx(12.5)


def test_a_few_stray_voxels_do_not_count_but_a_twentieth_does() -> None:
    plane = _box(slice(4, 5), slice(None), slice(None))
    stray = plane.copy()
    stray[15, 0, :5] = True
    assert hd95(plane, stray, (1, 1, 1)) == 0
    stray[15, :3] = True
    assert hd95(plane, stray, (1, 1, 1)) == pytest.approx(11)


def test_agreement_is_symmetric() -> None:
    first, second = _blob(1), _blob(2)
    assert hd95(first, second, SPACINGS[1]) == hd95(second, first, SPACINGS[1])
    assert dice(first, second) == dice(second, first)


def test_empty_structures() -> None:
    empty, blob = np.zeros((8, 8, 8), bool), np.ones((8, 8, 8), bool)
    assert (dice(empty, empty), hd95(empty, empty, (1, 1, 1))) == (1.0, 0.0)
    assert dice(empty, blob) == dice(blob, empty) == 0
    assert math.isnan(hd95(empty, blob, (1, 1, 1))) and math.isnan(hd95(blob, empty, (1, 1, 1)))


def test_every_structure_is_compared_in_millilitres_and_in_order() -> None:
    first, second = np.zeros((10, 10, 10), np.uint8), np.zeros((10, 10, 10), np.uint8)
    first[:4], first[4:6] = 7, 3
    second[:2] = 7
    structures = tuple(Structure(value, f"s{value}", (1, 0, 0)) for value in (7, 3, 9))
    volume = Volume(first, spacing=(0.5, 2.0, 4.0))
    found = compare(Segmentation(volume, structures), Segmentation(volume.with_voxels(second), structures))
    assert [row.label for row in found] == [7, 3, 9]
    assert (found[0].original_ml, found[0].defended_ml) == pytest.approx((1.6, 0.8))
    assert found[0].dice == pytest.approx(2 * 200 / 600)
    assert found[0].hd95_mm == pytest.approx(8)  # two slices of 4 mm
    assert (found[1].dice, found[1].defended_ml) == (0, 0) and math.isnan(found[1].hd95_mm)
    assert (found[2].dice, found[2].hd95_mm) == (1, 0)


def test_a_single_structure_is_compared_as_it_is_among_others() -> None:
    first, second = (_blob(seed).astype(np.uint8) for seed in (1, 2))
    volume, brain, absent = (
        Volume(first, spacing=(0.8, 2.0, 1.5)),
        *(Structure(value, f"s{value}", (1, 0, 0)) for value in (1, 5)),
    )
    alone, among = (
        compare(Segmentation(volume, structures), Segmentation(volume.with_voxels(second), structures))
        for structures in ((brain,), (brain, absent))
    )
    assert alone == among[:1] and alone[0].hd95_mm > 0


def test_label_maps_of_different_shapes_are_not_compared() -> None:
    structures = (Structure(1, "s", (1, 0, 0)),)
    maps = [Segmentation(Volume(np.zeros((n, 4, 4), np.uint8)), structures) for n in (4, 5)]
    with pytest.raises(ValueError, match="shape"):
        compare(*maps)


def test_a_large_head_takes_seconds() -> None:
    k, j, i = np.ogrid[:192, :192, :192]
    ball = (k - 96) ** 2 + (j - 96) ** 2 + (i - 96) ** 2
    start = time.process_time()
    assert hd95(ball < 80**2, ball < 76**2, (1, 1, 1)) == pytest.approx(4, abs=1)
    assert time.process_time() - start < 20  # two distance maps; minutes would be an all-pairs search
