"""The heatmap: in the input's geometry, in [0, 1], hot where the answer is unstable and the band strong."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from MedShieldLib import heatmap
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.versions import Source
from MedShieldLib.volume import Volume

ORIENTATIONS = [
    np.eye(3)[list(order)] * signs for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]


def source(voxels: np.ndarray | None = None, direction: np.ndarray | None = None) -> Source:
    if voxels is None:
        voxels = np.random.default_rng(0).uniform(0, 500, (30, 40, 36)).astype(np.int16)
    oriented = np.eye(3) if direction is None else direction
    volume = Volume(voxels, (1.5, 1.0, 2.0), (5.0, -6.0, 7.0), tuple(oriented.ravel()))
    return Source(volume, WorkingGrid.of(volume, "LPS", (2.0, 2.0, 2.0)), 2.0)


def test_a_heatmap_lies_in_the_input_and_between_zero_and_one() -> None:
    seen = source()
    unrest = np.random.default_rng(1).uniform(0, 1, seen.grid.shape).astype(np.float32)
    heat = heatmap.combined(seen, unrest)
    assert heat.same_geometry(seen.volume) and heat.voxels.dtype == np.float32
    assert heat.voxels.min() >= 0 and 0.5 < heat.voxels.max() <= 1
    assert not (256 * heat.voxels % 1).any()  # few values, so that a file of them is small


def test_an_answer_that_never_changed_is_cold_everywhere() -> None:
    seen = source()
    assert not heatmap.combined(seen, np.zeros(seen.grid.shape, np.float32)).voxels.any()


@pytest.mark.parametrize("direction", ORIENTATIONS, ids=lambda d: "".join(f"{int(x):+d}" for x in d.sum(0)))
def test_a_hot_cell_is_hot_at_its_place_in_the_body(direction: np.ndarray) -> None:
    seen = source(direction=direction)
    hot = np.array(seen.volume.voxels.shape) // 3
    marked = np.zeros(seen.volume.voxels.shape, np.float32)
    marked[tuple(slice(n - 1, n + 2) for n in hot)] = 1
    unrest = seen.grid.to_grid(marked).numpy()
    heat = heatmap.instability(seen, unrest).voxels
    weights = heat / heat.sum()
    centre = [float((weights * g).sum()) for g in np.indices(heat.shape)]
    np.testing.assert_allclose(centre, hot, atol=0.5)


def test_equal_instability_is_stressed_where_the_upper_band_is_strong() -> None:
    k, _, i = np.indices((32, 48, 64))
    anatomy = 400 * (1 + np.cos(2 * np.pi * 2 * k / 32))
    fine = 20 * np.sin(2 * np.pi * 0.3 * i)  # 0.2 cycles/mm: 0.8 of what a target of 2 mm can see
    voxels = anatomy + np.where(i < 32, fine, 0)
    seen = source(voxels.astype(np.float32))
    heat = heatmap.combined(seen, np.full(seen.grid.shape, 0.8, np.float32)).voxels
    attacked, plain = heat[:, :, 8:24], heat[:, :, 46:60]
    assert attacked.mean() == pytest.approx(0.8, rel=0.1)
    assert plain.mean() == pytest.approx(0.4, rel=0.1)


def test_band_energy_is_scaled_by_the_volume_itself() -> None:
    voxels = np.random.default_rng(0).normal(0, 5, (32, 40, 36)).astype(np.float32)
    one, brighter = (heatmap.band_energy(source(v), 0.4, 1.0).voxels for v in (voxels, 1000 * voxels))
    np.testing.assert_allclose(one, brighter, atol=1e-4)
    assert one.max() == 1 and 0.3 < one.mean() < 0.95
