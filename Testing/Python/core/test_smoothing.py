"""The median and the diffusion: what they remove, what they keep, and that tiles leave no seams."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from MedShieldLib import slabs, smoothing

SHAPE = (33, 40, 27)


def noise(sigma: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sigma, SHAPE).astype(np.float32)


def step_edge() -> np.ndarray:
    """0 and 1000, an edge along each axis."""
    k, j, i = np.indices(SHAPE)
    return np.where((k > 15) ^ (j > 20) ^ (i > 12), 1000, 0).astype(np.float32)


@pytest.mark.parametrize("step", [1, 2])
def test_median_is_that_of_three_taps_along_each_axis_in_turn(step: int) -> None:
    expected = noise()
    for axis in range(3):
        taps = np.zeros(2 * step + 1, bool)
        taps[[0, step, -1]] = True
        footprint = np.moveaxis(taps[:, None, None], 0, axis)
        filtered = ndimage.median_filter(expected, footprint=footprint)
        inside = tuple(slice(step, -step) if a == axis else slice(None) for a in range(3))
        expected = expected.copy()
        expected[inside] = filtered[inside]  # the ends keep their values
    np.testing.assert_array_equal(smoothing.median(noise(), step), expected)


def test_median_removes_single_voxels_and_keeps_edges() -> None:
    edge = step_edge()
    spiked = edge.copy()
    spiked[5, 6, 7] = 5000
    np.testing.assert_array_equal(smoothing.median(spiked), edge)


def test_median_reaches_as_far_as_its_step() -> None:
    layer = np.zeros(SHAPE, np.float32)
    layer[10:12] = 1
    np.testing.assert_array_equal(smoothing.median(layer, 1), layer)
    assert not smoothing.median(layer, 2).any()


def test_diffusion_keeps_the_sum_and_stays_within_the_range() -> None:
    voxels = step_edge() + noise(40)
    smooth = smoothing.diffusion(voxels, edge=100, passes=10)
    assert smooth.sum(dtype=float) == pytest.approx(voxels.sum(dtype=float), rel=1e-6)
    assert voxels.min() <= smooth.min() and smooth.max() <= voxels.max()


def test_diffusion_evens_out_noise_below_the_edge_and_keeps_edges_above() -> None:
    smooth = smoothing.diffusion(step_edge() + noise(10), edge=50, passes=5)
    left = (smooth - step_edge())[3:13, 3:17, 3:9]
    assert left.std() < 0.4 * 10
    # A difference of 1000 flows as one of 1000 / (1 + 20^2) would: 2.5 of 7 parts, five times.
    assert np.abs(smoothing.diffusion(step_edge(), edge=50, passes=5) - step_edge()).max() < 6


def test_diffusion_of_small_differences_is_the_heat_equation() -> None:
    """A wave of f cycles per voxel loses 2 (1 - cos 2 pi f) / 7 of itself with each pass."""
    wave = np.cos(2 * np.pi * 5 * (np.arange(40) + 0.5) / 40)  # mirrored at the border, as the diffusion is
    voxels = np.broadcast_to(wave[None, :, None], SHAPE).astype(np.float32)
    remains = 1 - 2 * (1 - np.cos(2 * np.pi * 5 / 40)) / 7
    smooth = smoothing.diffusion(voxels, edge=1e4, passes=4)
    np.testing.assert_allclose(smooth, remains**4 * voxels, atol=1e-5)


def test_diffusion_with_a_step_links_only_voxels_that_far_apart() -> None:
    voxels = np.zeros(SHAPE, np.float32)
    voxels[::2] = 1
    np.testing.assert_array_equal(smoothing.diffusion(voxels, 10.0, 3, step=2), voxels)
    assert smoothing.diffusion(voxels, 10.0, 3, step=1).std() < 0.2 * voxels.std()


@pytest.mark.parametrize("shape", [(4, 40, 27), (40, 3, 2)])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_axes_shorter_than_the_taps_are_left_alone(shape: tuple[int, int, int], step: int) -> None:
    voxels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for smooth in (smoothing.median(voxels, step), smoothing.diffusion(voxels, 1.0, 2, step)):
        assert smooth.shape == shape and np.isfinite(smooth).all()


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 20])
def test_tiles_leave_no_seams(monkeypatch: pytest.MonkeyPatch, step: int, padding: int) -> None:
    voxels = np.pad((step_edge() + noise(60)).astype(np.int16), padding)

    def smoothed(voxels_in_a_slab: int, rows: int, voxels_in_a_tile: int) -> tuple[np.ndarray, np.ndarray]:
        monkeypatch.setattr(slabs, "_VOXELS", voxels_in_a_slab)
        monkeypatch.setattr(smoothing, "_TILE_ROWS", rows)
        monkeypatch.setattr(smoothing, "_TILE_VOXELS", voxels_in_a_tile)
        return smoothing.median(voxels, step), smoothing.diffusion(voxels, 100, 5, step)

    monkeypatch.setattr(slabs, "workers", lambda: 2)
    whole = smoothed(voxels.size, 1000, voxels.size * 1000)
    for sizes in ((1, 1, 1), (9000, 1, 9000), (1, 10, 1)):
        for tiled, expected in zip(smoothed(*sizes), whole, strict=True):
            np.testing.assert_array_equal(tiled, expected)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64"])
def test_filters_answer_in_float32_and_leave_their_input_alone(dtype: str) -> None:
    voxels = np.random.default_rng(3).uniform(0, 200, SHAPE).astype(dtype)
    voxels.setflags(write=False)
    assert smoothing.median(voxels).dtype == smoothing.diffusion(voxels, 50, 2).dtype == np.float32
