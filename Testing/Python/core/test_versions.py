"""Versions: plain data and back, draws by seed, geometry kept, and answers moved back exactly."""

from __future__ import annotations

import json
from itertools import permutations, product

import numpy as np
import pytest
from scipy import ndimage

from MedShieldLib.converter import Spectrum, radial_profile
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.versions import (
    AngularStop,
    Denoiser,
    Diffusion,
    LowPass,
    Median,
    Moved,
    Nudge,
    Probe,
    Source,
    Version,
    WaveletShrinkage,
    from_json,
    to_json,
)
from MedShieldLib.volume import Volume

FILTERS = (LowPass(0.5), WaveletShrinkage(0.08), Diffusion(0.09, 3), Median(2), AngularStop(40.0, 0.3))
MOVED = (Moved(3, False), Moved(3, True), *(Moved(2, n % 2 == 0, f) for n, f in enumerate(FILTERS)))
NUDGES = (Nudge(0.03, False), Nudge(0.03, True))
VERSIONS: tuple[Version, ...] = (*FILTERS, *MOVED, Probe(Diffusion(0.03)), *NUDGES)
RANDOM = [version for version in VERSIONS if not isinstance(version, Median | Nudge)]

# All 48 ways in which the axes of a volume can lie along those of the body.
ORIENTATIONS = [
    np.eye(3)[list(order)] * signs for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]


def source(spacing: tuple[float, float, float] = (1.5, 1.0, 2.0), finest_mm: float = 2.0) -> Source:
    shape = (36, 44, 32)
    voxels = np.random.default_rng(0).uniform(0, 900, shape)
    volume = Volume(ndimage.gaussian_filter(voxels, 1).astype(np.int16), spacing, (3.0, -4.0, 5.0))
    return Source(volume, WorkingGrid.of(volume, "LPS", (finest_mm,) * 3), finest_mm)


@pytest.mark.parametrize("version", (*VERSIONS, Denoiser(0.05), Moved(3, True, Denoiser(0.03))), ids=repr)
def test_a_version_survives_its_file(version: Version) -> None:
    assert from_json(json.loads(json.dumps(to_json(version)))) == version


@pytest.mark.parametrize("data", [{}, {"type": "Nonsense"}, {"type": "LowPass"}, {"type": "LowPass", "x": 1}])
def test_what_is_no_version_is_not_read_as_one(data: dict) -> None:
    with pytest.raises((KeyError, TypeError)):
        from_json(data)


def test_kinds_are_distinct_and_name_the_filter_inside() -> None:
    kinds = [version.kind for version in VERSIONS]
    assert len(set(kinds)) == len(kinds)
    assert Moved(3, True, LowPass(0.5)).kind == "mirrored_low_pass"


@pytest.mark.parametrize("version", VERSIONS, ids=repr)
def test_every_draw_keeps_the_geometry_and_changes_the_voxels(version: Version) -> None:
    seen = source()
    before = seen.volume.voxels.copy()
    draw = version.draw(seen, np.random.default_rng(1))
    assert draw.volume.same_geometry(seen.volume)
    assert np.isfinite(draw.volume.voxels).all()
    assert np.abs(draw.volume.voxels - before.astype(float)).max() > 1
    np.testing.assert_array_equal(seen.volume.voxels, before)
    assert (draw.restore is not None) == isinstance(version, Moved)


@pytest.mark.parametrize("version", RANDOM, ids=repr)
def test_draws_are_a_matter_of_the_seed(version: Version) -> None:
    first, again, *others = (
        version.draw(source(), np.random.default_rng(seed)).volume.voxels for seed in (1, 1, 2, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert any(not np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda d: "".join(f"{int(x):+d}" for x in d.sum(0)))
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 2.0, 1.0), (1.5, 2.0, 4.0), (0.8, 1.2, 2.5)])
def test_an_answer_is_moved_back_to_where_the_anatomy_is(
    orientation: np.ndarray, mirror: bool, spacing: tuple[float, float, float]
) -> None:
    """The answer of this target is what it sees: moved back, it must be what it saw of the volume itself."""
    shape = tuple(round(60 / mm) for mm in reversed(spacing))
    k, j, i = (n * mm for n, mm in zip(np.indices(shape), reversed(spacing), strict=True))
    ramp = 3 * k + 5 * j + 7 * i  # by how much it is off tells by how far
    volume = Volume(ramp.astype(np.float32), spacing, direction=tuple(orientation.ravel()))
    grid = WorkingGrid.of(volume, "LPS", (2.0, 2.0, 2.0))
    answer = grid.to_grid(volume.voxels).numpy()[None]
    for seed in range(4):
        draw = Moved(3, mirror).draw(Source(volume, grid, 2.0), np.random.default_rng(seed))
        assert draw.restore is not None
        back = draw.restore(grid.to_grid(draw.volume.voxels).numpy()[None])
        assert np.abs(draw.volume.voxels - volume.voxels).max() > 1
        inside = (0, *(slice(5, -5),) * 3)  # edges are repeated where anatomy came in
        off = np.abs(back - answer)[inside].max()
        allowed = sum(s * 0.125 * 2.0 for s in (3, 5, 7) if spacing == (0.8, 1.2, 2.5))  # an eighth of a cell
        assert off <= allowed + 1e-3


def test_mirroring_swaps_left_and_right_and_nothing_else() -> None:
    """The volume's second axis runs to the left."""
    direction = (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    voxels = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
    volume = Volume(voxels, (2.0, 2.0, 2.0), direction=direction)
    seen = Source(volume, WorkingGrid.of(volume, "LPS", (2.0, 2.0, 2.0)), 2.0)
    moved = Moved(1, True).draw(seen, np.random.default_rng(0)).volume.voxels
    by_one = [np.roll(voxels[:, ::-1], steps, (0, 1, 2)) for steps in product((1, -1), repeat=3)]
    inside = (slice(1, -1),) * 3
    assert sum(np.array_equal(moved[inside], candidate[inside]) for candidate in by_one) == 1


@pytest.mark.parametrize(
    ("voxels_per_cell", "shifts"),
    [
        (1, [1, 3]),
        (2, [1, 3]),
        (3 / 2, [2]),
        (5 / 3, [3]),
        (1 / 2, [2]),
        (2 / 3, [3]),
        (0.8, [0]),
        (0.2, [0]),
    ],
)
def test_shifts_are_those_that_whole_voxels_can_follow(voxels_per_cell: float, shifts: list[int]) -> None:
    assert Moved(3, False)._fitting(voxels_per_cell, 32) == shifts


@pytest.mark.parametrize(("size", "shifts"), [(1, [0]), (2, [1]), (3, [1]), (4, [1, 3])])
def test_shifts_stay_below_the_axis(size: int, shifts: list[int]) -> None:
    assert Moved(3, False)._fitting(1.0, size) == shifts


@pytest.mark.parametrize("spacing", [(0.1, 0.1, 0.1), (1.0, 1.0, 0.3), (0.05, 0.05, 0.05)])
def test_volumes_thinner_than_a_shift_are_moved_less_or_not_at_all(spacing: tuple[float, ...]) -> None:
    volume = Volume(np.random.default_rng(0).uniform(0, 900, (16, 32, 32)), spacing)
    grid = WorkingGrid.of(volume, "LPS", (2.0,) * 3)
    answer = np.random.default_rng(1).random((2, *grid.shape))
    for seed in range(8):
        draw = Moved(3, True).draw(Source(volume, grid, 2.0), np.random.default_rng(seed))
        assert draw.volume.voxels.shape == volume.voxels.shape
        assert draw.restore is not None and draw.restore(answer).shape == answer.shape


def test_strengths_are_in_what_the_target_sees_not_in_voxels() -> None:
    """On voxels of 0.5 mm under a target of 2 mm, half of the seen Nyquist frequency is 0.125 cycles/mm."""
    voxels = np.random.default_rng(0).normal(0, 100, (64, 64, 64)).astype(np.float32)
    volume = Volume(voxels, (0.5, 0.5, 0.5))
    fine = Source(volume, WorkingGrid.of(volume, "LPS", (2.0, 2.0, 2.0)), 2.0)
    assert (fine.seen_mm, fine.step, fine.nyquist) == (2.0, 4, 0.25)
    kept = Spectrum.of(LowPass(0.5).draw(fine, np.random.default_rng(0)).volume)
    below, above = radial_profile(kept, np.array([0.02, 0.09, 0.16, 0.9]))[[0, 2]]
    assert below > 6 + above


def test_voxels_coarser_than_the_target_are_taken_as_they_are() -> None:
    coarse = source(spacing=(4.0, 4.0, 4.0))
    assert (coarse.seen_mm, coarse.step, coarse.nyquist) == (4.0, 1, 0.125)


def test_two_passes_of_the_median_are_the_median_of_the_median() -> None:
    seen, rng = source(), np.random.default_rng(0)
    once = Median(1).draw(seen, rng).volume
    twice = Median(1).draw(Source(once, seen.grid, seen.finest_mm), rng).volume
    np.testing.assert_array_equal(Median(2).draw(seen, rng).volume.voxels, twice.voxels)
