"""The converter against closed forms: plane waves, white noise, bursts, and PyWavelets' own transform."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pywt

from MedShieldLib import converter, slabs
from MedShieldLib.converter import Spectrum
from MedShieldLib.volume import Volume

# Anisotropic: 64, 48 and 20 mm along (k, j, i), so that 1/mm differs from 1/voxel on every axis.
SHAPE = (32, 48, 40)
SPACING = (0.5, 1.0, 2.0)
EXTENT_MM = (64.0, 48.0, 20.0)
EDGES = np.linspace(0.004, 0.504, 41)  # on none of the frequencies below


def wave(cycles: tuple[int, int, int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A plane wave of amplitude 1 with whole numbers of cycles along (k, j, i)."""
    phase = sum(c * g / n for c, g, n in zip(cycles, np.indices(shape), shape, strict=True))
    return np.sin(2 * np.pi * phase + 0.3).astype(np.float32)


def frequency(cycles: tuple[int, int, int]) -> float:
    """Its frequency in cycles/mm."""
    return float(np.linalg.norm(np.divide(cycles, EXTENT_MM)))


def spectrum(voxels: np.ndarray) -> Spectrum:
    return Spectrum.of(Volume(voxels, SPACING))


@pytest.mark.parametrize("cycles", [(6, 0, 0), (0, 6, 0), (0, 0, 6), (3, -5, 2), (-9, 4, 7)])
def test_a_plane_wave_is_in_the_shell_of_its_frequency_in_mm(cycles: tuple[int, int, int]) -> None:
    profile = converter.radial_profile(spectrum(wave(cycles)), EDGES)
    shell = int(np.nanargmax(profile))
    assert EDGES[shell] <= frequency(cycles) < EDGES[shell + 1]
    others = np.delete(profile, shell)
    assert profile[shell] > 6 + np.nanmax(others)  # decades


def test_radius_is_the_distance_from_the_zero_frequency() -> None:
    radius = spectrum(wave((1, 0, 0))).radius()
    assert radius.shape == (32, 48, 21)
    assert radius[0, 0, 0] == 0
    assert radius[1, 0, 0] == radius[-1, 0, 0] == pytest.approx(1 / 64)
    assert radius[16, 24, 20] == pytest.approx(np.linalg.norm([0.25, 0.5, 1.0]))


def test_the_profile_of_white_noise_is_flat_and_is_its_variance() -> None:
    noise = np.random.default_rng(0).normal(0, 20, (64, 64, 64)).astype(np.float32)
    profile = converter.radial_profile(Spectrum.of(Volume(noise)), np.linspace(0.1, 0.8, 15))
    np.testing.assert_allclose(profile, np.log10(400), atol=0.03)


def test_empty_shells_have_no_power_rather_than_none() -> None:
    profile = converter.radial_profile(spectrum(wave((1, 2, 3))), np.array([0.3, 0.4, 5.0, 6.0]))
    assert np.isfinite(profile[0]) and np.isnan(profile[-1])


def test_log_power_of_a_constant_is_finite() -> None:
    power = converter.log_power(spectrum(np.full(SHAPE, 7, np.float32)))
    assert np.isfinite(power).all() and power.argmax() == 0


def test_low_pass_keeps_slow_waves_and_removes_fast_ones() -> None:
    slow, fast = (2, 2, 1), (8, 6, 5)
    assert frequency(slow) < 0.085 < 0.1 < 0.115 < frequency(fast)
    kept = converter.low_pass(spectrum(wave(slow) + wave(fast) + 5), 0.1)
    np.testing.assert_allclose(kept, wave(slow) + 5, atol=1e-5)


def test_low_pass_halves_a_wave_at_its_cutoff() -> None:
    cycles = (4, 5, 2)
    kept = converter.low_pass(spectrum(wave(cycles)), frequency(cycles))
    np.testing.assert_allclose(kept, wave(cycles) / 2, atol=1e-5)


def test_band_stop_removes_its_band_and_nothing_else() -> None:
    slow, inside, fast = (3, 0, 0), (0, 7, 1), (0, 0, 9)
    assert frequency(slow) < 0.08 < 0.12 < frequency(inside) < 0.2 < 0.3 < frequency(fast)
    kept = converter.band_stop(spectrum(wave(slow) + wave(inside) + wave(fast)), 0.1, 0.25)
    np.testing.assert_allclose(kept, wave(slow) + wave(fast), atol=1e-5)


def test_angular_stop_removes_the_directions_of_its_cones_and_keeps_slow_waves() -> None:
    along, across, slow = (12, 0, 0), (0, 9, 4), (3, 0, 0)
    assert frequency(slow) < 0.08 < 0.12 < frequency(along)
    voxels = wave(along) + wave(across) + wave(slow)
    kept = converter.angular_stop(spectrum(voxels), np.array([[1.0, 0.0, 0.0]]), np.deg2rad(30), 0.1)
    np.testing.assert_allclose(kept, wave(across) + wave(slow), atol=1e-5)


def test_angular_stop_takes_the_angle_in_mm_not_in_voxels() -> None:
    """30 degrees off the k axis in mm; in voxels of 1 x 2 mm it would be 16."""
    cycles = (8, 0, 0)
    tilted = (8, round(8 / 64 * np.tan(np.deg2rad(30)) * 48), 0)
    axis = np.array([[np.cos(np.deg2rad(30)), np.sin(np.deg2rad(30)), 0.0]])
    kept = converter.angular_stop(spectrum(wave(cycles) + wave(tilted)), axis, np.deg2rad(15), 0.05)
    np.testing.assert_allclose(kept, wave(cycles), atol=1e-3)


@pytest.mark.parametrize("family", ["haar", "db2", "sym4", "bior2.2"])
@pytest.mark.parametrize("shape", [(32, 40, 48), (33, 47, 51), (17, 16, 60)])
def test_wavelets_without_a_threshold_change_nothing(family: str, shape: tuple[int, int, int]) -> None:
    voxels = np.random.default_rng(0).normal(0, 100, shape).astype(np.float32)
    for shift in ((0, 0, 0), (3, 5, 6)):
        kept = converter.wavelet_shrinkage(voxels, 0.0, 3, family, shift)
        assert kept.shape == shape
        np.testing.assert_allclose(kept, voxels, atol=2e-3)


@pytest.mark.filterwarnings("ignore:Level value")
@pytest.mark.parametrize("family", ["haar", "db2", "sym4", "bior2.2"])
@pytest.mark.parametrize("shape", [(64, 64, 64), (65, 57, 71)])
def test_shrinkage_is_that_of_the_multilevel_transform_of_pywavelets(
    family: str, shape: tuple[int, int, int]
) -> None:
    voxels = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    approximation, *details = pywt.wavedecn(voxels, family, mode="periodization", level=3)
    shrunk = [{k: pywt.threshold(band, 0.7, "soft") for k, band in level.items()} for level in details]
    expected = pywt.waverecn([approximation, *shrunk], family, mode="periodization")
    box = tuple(slice(n) for n in shape)
    np.testing.assert_allclose(converter.wavelet_shrinkage(voxels, 0.7, 3, family), expected[box], atol=2e-5)


@pytest.mark.parametrize("family", ["haar", "db2", "sym4", "bior2.2"])
def test_shrinkage_is_the_same_whether_padding_is_filtered_or_not(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = np.full((96, 40, 48), 7.0, np.float32)
    voxels[40:60, 10:30, 8:40] += np.random.default_rng(3).normal(0, 1, (20, 20, 32)).astype(np.float32)
    monkeypatch.setattr(slabs, "_VOXELS", 5000)
    skipped: list[bool] = []
    is_flat = slabs.is_flat
    monkeypatch.setattr(slabs, "is_flat", lambda x: skipped.append(is_flat(x)) or skipped[-1])
    quick = converter.wavelet_shrinkage(voxels, 0.7, 3, family, (1, 2, 5))
    assert any(skipped) and not all(skipped)
    monkeypatch.setattr(slabs, "is_flat", lambda x: False)
    np.testing.assert_allclose(
        quick, converter.wavelet_shrinkage(voxels, 0.7, 3, family, (1, 2, 5)), atol=2e-5
    )


def test_a_huge_threshold_leaves_the_means_of_haar_blocks_on_the_shifted_grid() -> None:
    voxels = np.random.default_rng(2).normal(0, 1, (32, 24, 16)).astype(np.float32)
    shift = (1, 2, 5)
    kept = converter.wavelet_shrinkage(voxels, 1e6, 3, "haar", shift)
    blocks = np.roll(voxels, shift, (0, 1, 2)).reshape(4, 8, 3, 8, 2, 8).mean((1, 3, 5))
    means = np.roll(np.kron(blocks, np.ones((8, 8, 8))), [-s for s in shift], (0, 1, 2))
    np.testing.assert_allclose(kept, means, atol=1e-5)


def test_band_energy_of_a_wave_is_its_root_mean_square_everywhere() -> None:
    cycles = (6, 7, 2)
    f = frequency(cycles)
    energy = converter.local_band_energy(spectrum(3 * wave(cycles)), 0.7 * f, 1.5 * f, 6.0)
    np.testing.assert_allclose(energy, 3 / np.sqrt(2), rtol=0.03)


def test_band_energy_is_where_the_burst_is_and_as_strong() -> None:
    cycles, size = 20, 64
    k, j, i = np.indices((size,) * 3)
    place = (20, 40, 30)
    distance = sum((g - p) ** 2 for g, p in zip((k, j, i), place, strict=True))
    burst = 5 * np.exp(-distance / (2 * 8**2)) * np.sin(2 * np.pi * cycles * i / size)
    anatomy = 100 * np.cos(2 * np.pi * 2 * k / size)
    energy = converter.local_band_energy(
        Spectrum.of(Volume((burst + anatomy).astype(np.float32))), 0.2, 0.45, 2.0
    )
    assert np.linalg.norm(np.subtract(np.unravel_index(energy.argmax(), energy.shape), place)) <= 2
    # The squared envelope (deviation 8 / sqrt 2) is blurred by 2: its peak sinks by this much.
    peak = np.sqrt(0.5 * 25 * (32 / (32 + 4)) ** 1.5)
    assert energy.max() == pytest.approx(peak, rel=0.05)
    assert energy[52, 8, 62] < 0.02 * energy.max()


def test_band_energy_of_a_volume_smaller_than_its_reach_is_one_average() -> None:
    voxels = np.random.default_rng(0).standard_normal((16, 20, 24)).astype(np.float32)
    small = Spectrum.of(Volume(voxels, (0.1, 0.1, 0.1)))
    energy = converter.local_band_energy(small, 0.0, 100.0, 4.0)
    np.testing.assert_allclose(energy, np.sqrt(np.mean(voxels**2)), rtol=0.05)


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 2, 3), (-3, 0, 7), (16, -12, 40)])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_rolling_is_that_of_numpy(
    shift: tuple[int, int, int], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = np.random.default_rng(8).uniform(0, 200, (16, 12, 10)).astype(dtype)
    monkeypatch.setattr(slabs, "_VOXELS", 500)
    rolled = converter._rolled(voxels, shift)
    assert rolled.dtype == np.float32
    np.testing.assert_array_equal(rolled, np.roll(voxels, shift, axis=(0, 1, 2)))


FILTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "low_pass": lambda x: converter.low_pass(spectrum(x), 0.2),
    "band_stop": lambda x: converter.band_stop(spectrum(x), 0.1, 0.2),
    "angular_stop": lambda x: converter.angular_stop(spectrum(x), np.eye(3), 0.5, 0.1),
    "wavelet_shrinkage": lambda x: converter.wavelet_shrinkage(x, 30.0, 3, "db2", (1, 2, 3)),
    "local_band_energy": lambda x: converter.local_band_energy(spectrum(x), 0.1, 0.3, 4.0),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64"])
def test_filters_answer_in_float32_and_leave_their_input_alone(name: str, dtype: str) -> None:
    voxels = np.random.default_rng(3).uniform(0, 200, SHAPE).astype(dtype)
    voxels.setflags(write=False)
    answer = FILTERS[name](voxels)
    assert answer.dtype == np.float32 and answer.shape == SHAPE
    assert spectrum(voxels).coefficients.dtype == np.complex64
    assert spectrum(voxels).radius().dtype == np.float32


@pytest.mark.parametrize("name", FILTERS)
def test_slabs_leave_no_seams(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = np.random.default_rng(4).normal(0, 50, (33, 48, 41)).astype(np.float32)
    whole = FILTERS[name](voxels)
    monkeypatch.setattr(slabs, "_VOXELS", 5000)
    monkeypatch.setattr(slabs, "workers", lambda: 2)
    np.testing.assert_allclose(FILTERS[name](voxels), whole, atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 20, 18), (17, 21, 19), (16, 2, 3), (16, 1, 16)])
def test_the_profile_is_the_mean_power_of_all_frequencies_in_a_shell(shape: tuple[int, int, int]) -> None:
    noise = spectrum(np.random.default_rng(6).normal(0, 50, shape).astype(np.float32))
    shell, power = converter._shells(noise.radius(), EDGES), noise.power().astype(float)
    means = [power[shell == n].mean() if (shell == n).any() else np.nan for n in range(1, len(EDGES))]
    np.testing.assert_allclose(converter.radial_profile(noise, EDGES), np.log10(means), rtol=1e-6)


def test_the_profile_does_not_depend_on_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = spectrum(np.random.default_rng(5).normal(0, 50, SHAPE).astype(np.float32))
    whole = converter.radial_profile(noise, EDGES)
    monkeypatch.setattr(slabs, "_VOXELS", 5000)
    np.testing.assert_allclose(converter.radial_profile(noise, EDGES), whole, rtol=1e-6)


def test_intensity_range_is_that_of_nearly_all_voxels() -> None:
    voxels = np.random.default_rng(6).permutation(np.linspace(0, 1000, 64**3)).reshape(64, 64, 64)
    assert converter.intensity_range(voxels) == pytest.approx((5, 995), abs=0.1)
    assert converter.intensity_range(voxels, most=5000) == pytest.approx((5, 995), abs=4)


def test_intensity_range_of_a_few_bright_voxels_is_not_empty() -> None:
    voxels = np.zeros((32, 32, 32), np.int16)
    voxels[3, 4, 5] = 900
    assert converter.intensity_range(voxels) == (0.0, 900.0)


@pytest.mark.parametrize(
    "edges", [np.linspace(0, 0.5, 41), np.linspace(0.1, 0.3, 4), np.array([0, 0.1, 0.4])]
)
def test_shells_are_those_of_digitize_wherever_rounding_does_not_decide(edges: np.ndarray) -> None:
    radius = np.random.default_rng(0).uniform(0, 0.87, 20_000).astype(np.float32)
    clear = np.abs(radius[:, None] - edges).min(1) > 1e-4
    found = converter._shells(radius, edges)
    np.testing.assert_array_equal(found[clear], np.digitize(radius, edges)[clear])
    on_edges = converter._shells(edges.astype(np.float32), edges)
    np.testing.assert_array_equal(on_edges, np.arange(1, len(edges) + 1))
