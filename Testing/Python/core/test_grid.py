"""The working grid: canonical orientation and spacing, and the way back, for every way a scan can lie."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch

from MedShieldLib.errors import InputError
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.volume import Volume

SIZES = (10, 12, 16)  # voxels along (i, j, k)
SPACING = (2.0, 1.5, 1.0)  # mm along (i, j, k)
# All 48: six orders of the axes, eight combinations of signs, half of them left-handed.
AXIS_DIRECTIONS = [
    np.eye(3)[:, order] * np.array(signs)
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]


def _rotation(degrees: float, axis: tuple[float, float, float]) -> np.ndarray:
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _positions_mm(direction: np.ndarray) -> np.ndarray:
    """LPS mm of every voxel, (3, K, J, I)."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in SIZES[::-1]), indexing="ij")
    return np.tensordot(direction * SPACING, np.stack([i, j, k]), axes=1)


def _volume(direction: np.ndarray, voxels: np.ndarray) -> Volume:
    return Volume(voxels, SPACING, direction=tuple(direction.ravel()))


def _noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("tilt", [0, 25])
@pytest.mark.parametrize("straight", AXIS_DIRECTIONS, ids=lambda d: str(d.astype(int).ravel()))
def test_grid_axes_run_as_the_orientation_says(straight: np.ndarray, tilt: int) -> None:
    rotation = _rotation(tilt, (1, 2, 3))
    direction = rotation @ straight
    positions = _positions_mm(direction)
    unturned = rotation.T @ positions.reshape(3, -1)
    left, posterior, superior = unturned.reshape(positions.shape).astype(np.float32)
    for orientation, (along_i, along_j, along_k) in {
        "LPS": (left, posterior, superior),
        "RAS": (-left, -posterior, superior),
        "LIA": (left, -superior, -posterior),
    }.items():
        grid = WorkingGrid.native(_volume(direction, left), orientation)
        for axis, coordinate in zip((2, 1, 0), (along_i, along_j, along_k), strict=True):
            steps = torch.diff(grid.to_grid(coordinate), dim=axis)
            assert (steps > 0.9).all()


@pytest.mark.parametrize("direction", AXIS_DIRECTIONS, ids=lambda d: str(d.astype(int).ravel()))
def test_native_grid_there_and_back_is_exact(direction: np.ndarray) -> None:
    volume = _volume(_rotation(10, (0, 1, 1)) @ direction, _noise(SIZES[::-1]))
    grid = WorkingGrid.native(volume, "RAS")
    x = grid.to_grid(volume.voxels)
    assert np.array_equal(grid.from_grid(x).numpy(), volume.voxels)
    assert np.array_equal(grid.spread(x).numpy(), volume.voxels)


@pytest.mark.parametrize("direction", AXIS_DIRECTIONS, ids=lambda d: str(d.astype(int).ravel()))
def test_anatomy_comes_back_to_where_it_was(direction: np.ndarray) -> None:
    k, j, i = np.meshgrid(*(np.linspace(0, 1, n) for n in SIZES[::-1]), indexing="ij")
    smooth = (np.sin(2 * i) + np.cos(3 * j) + k * j).astype(np.float32)
    volume = _volume(direction, smooth)
    for spacing in ((0.8, 0.8, 0.8), (2.5, 2.5, 2.5)):
        grid = WorkingGrid.of(volume, "LPS", spacing)
        back = grid.from_grid(grid.to_grid(smooth)).numpy()
        assert np.abs(back - smooth)[1:-1, 1:-1, 1:-1].max() < 0.1
        assert np.abs(back - smooth).max() < 0.2


def test_spacing_is_met_and_extent_is_kept() -> None:
    volume = Volume(_noise((40, 50, 60)), (1.0, 1.0, 1.5))
    assert WorkingGrid.of(volume, "LPS", (2.0, 2.0, 2.0)).shape == (30, 25, 30)
    assert WorkingGrid.of(volume, "LIA", (1.0, 1.0, 1.0)).shape == (50, 60, 60)


def test_a_constant_stays_that_constant() -> None:
    volume = Volume(np.full((23, 31, 37), 1234.0, np.float32), (0.9, 1.1, 1.3))
    for spacing in (0.7, 1.0, 2.0, 3.3):
        grid = WorkingGrid.of(volume, "LPS", (spacing,) * 3)
        x = grid.to_grid(volume.voxels)
        assert torch.allclose(x, torch.tensor(1234.0), rtol=1e-6)
        assert torch.allclose(grid.from_grid(x), torch.tensor(1234.0), rtol=1e-6)


def test_coarser_cells_are_means_of_whole_voxels() -> None:
    voxels = _noise((16, 12, 20))
    volume = Volume(voxels, (1.0, 1.0, 1.0))
    means = voxels.reshape(8, 2, 6, 2, 10, 2).mean(axis=(1, 3, 5))
    x = WorkingGrid.of(volume, "LPS", (2.0, 2.0, 2.0)).to_grid(voxels)
    assert np.allclose(x.numpy(), means, atol=1e-6)


def test_spread_never_exceeds_and_comes_back_exactly_where_grids_fit() -> None:
    volume = Volume(_noise((24, 24, 24)), (1.0, 1.0, 1.0))
    for spacing in (1.0, 2.0, 3.0):
        grid = WorkingGrid.of(volume, "RAS", (spacing,) * 3)
        change = torch.from_numpy(_noise(grid.shape))
        spread = grid.spread(change)
        assert float(spread.abs().max()) <= float(change.abs().max())
        assert torch.allclose(grid.to_grid(spread), change, atol=1e-6)
    for spacing in (0.7, 1.7, 2.6):
        grid = WorkingGrid.of(volume, "RAS", (spacing,) * 3)
        change = torch.from_numpy(_noise(grid.shape))
        assert float(grid.spread(change).abs().max()) <= float(change.abs().max()) * (1 + 1e-6)


def test_rows_are_slices_of_the_whole() -> None:
    direction = np.eye(3)[:, [2, 0, 1]] * (1, -1, -1)
    volume = _volume(direction, _noise(SIZES[::-1]))
    for spacing in (1.2, 3.0):
        grid = WorkingGrid.of(volume, "LPS", (spacing,) * 3)
        x = torch.from_numpy(_noise(grid.shape))
        whole = grid.from_grid(x)
        for rows in (slice(0, 5), slice(5, 99), slice(3, 4)):
            assert torch.allclose(grid.from_grid(x, rows), whole[rows], atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i2", "uint16", "int32", "uint32", "float64"])
def test_every_number_type_is_read(dtype: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, (70, 20, 20)).astype(dtype)
    grid = WorkingGrid.of(Volume(voxels), "LPS", (2.0, 2.0, 2.0))
    expected = grid.to_grid(torch.from_numpy(voxels.astype(np.float32)))
    assert torch.equal(grid.to_grid(voxels), expected)
    assert torch.equal(grid.to_grid(voxels[::-1]), grid.to_grid(np.ascontiguousarray(voxels[::-1])))


def test_all_steps_are_differentiable() -> None:
    volume = Volume(_noise((9, 10, 11)), (1.0, 1.3, 0.8))
    grid = WorkingGrid.of(volume, "RAS", (1.6, 1.6, 1.6))
    x = torch.from_numpy(volume.voxels.copy()).requires_grad_()
    (gradient,) = torch.autograd.grad(grid.to_grid(x).sum(), x)
    cells_per_voxel = np.prod(grid.shape) / volume.voxels.size
    assert float(gradient.mean()) == pytest.approx(cells_per_voxel, rel=1e-5)
    y = torch.from_numpy(_noise(grid.shape)).requires_grad_()
    for back in (grid.from_grid, grid.spread):
        (gradient,) = torch.autograd.grad(back(y).sum(), y)
        assert float(gradient.sum()) == pytest.approx(volume.voxels.size, rel=1e-5)


def test_a_grid_beyond_all_memory_is_refused() -> None:
    volume = Volume(np.zeros((20, 20, 20), np.uint8), (1000.0, 1000.0, 1000.0))
    with pytest.raises(InputError, match="20000 x 20000 x 20000 mm is too large .* check the file's spacing"):
        WorkingGrid.of(volume, "LPS", (1.0, 1.0, 1.0))


@pytest.mark.parametrize("direction", AXIS_DIRECTIONS[::7])
def test_one_grid_maps_onto_another_of_the_same_volume(direction: np.ndarray) -> None:
    """Positions in mm, which are linear, arrive where the other grid's own cells are; but for the edges."""
    volume = _volume(direction, np.zeros(SIZES[::-1], np.float32))
    fine = WorkingGrid.of(volume, "LPS", (1.0, 1.0, 2.0))
    coarse = WorkingGrid.of(volume, "AIR", (4.0, 2.0, 4.0))
    inner = (slice(1, -1),) * 3
    for position in _positions_mm(direction):
        here, there = (grid.to_grid(position) for grid in (fine, coarse))
        torch.testing.assert_close(fine.onto(here, coarse)[inner], there[inner], atol=0.3, rtol=0)
        torch.testing.assert_close(coarse.onto(there, fine)[inner], here[inner], atol=1.5, rtol=0)


@pytest.mark.parametrize("direction", AXIS_DIRECTIONS)
def test_the_voxels_in_the_middle_of_cells_are_found_however_a_scan_lies(direction: np.ndarray) -> None:
    voxels = np.random.default_rng(0).normal(size=SIZES[::-1]).astype(np.float32)
    volume = _volume(direction, voxels)
    same = WorkingGrid.native(volume, "LPS")
    found = same.nearest_voxels(voxels, [np.arange(n) for n in same.shape])
    np.testing.assert_array_equal(found, same.to_grid(voxels).numpy())
    # A cell of three voxels along every axis has one in the middle, which a local mean sees as well.
    thrice = voxels.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    coarse = WorkingGrid(same.axes, same.flips, thrice.shape, same.shape)
    np.testing.assert_array_equal(coarse.nearest_voxels(thrice, [np.arange(n) for n in same.shape]), found)
