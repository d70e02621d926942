"""Versions of a volume: the same anatomy, drawn through a random filter or seen from another place.

A version is a kind with a strength; each draw takes its own random parameters from the check's seed, which
an attacker does not know. The target's answer to a draw is mapped back before it is compared or voted on.
Most versions change a volume as much as the target tolerates, and their answers vote. Probes and nudges
change it as little as an attack does, or more than the target bears: their answers are evidence alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import torch

from MedShieldLib import converter, denoiser, slabs, smoothing
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.volume import Volume

Restore = Callable[[np.ndarray], np.ndarray]

# No voxel of the reformed volume is further from the volume's own, as a share of the intensity range: most of
# what an attack that no eye sees may have changed, and less than half of the contrast of faint lesions. With
# 8/255, an attack's whole bound, one lesion in 120 lost half of it; see `evaluation/lesions.py`.
MOST_CHANGE = 6 / 255
_FINEST_CHANGE = 2**-10
# How far, in cells of the working grid, a shift by whole voxels may be from one by whole cells: what is moved
# back to another place looks like instability at every border.
_MISFIT_CELLS = 0.125
# Sets what nudges draw apart from what other versions draw.
_OF_NUDGES = 1


@dataclass(frozen=True)
class Source:
    """What all versions of one volume share, computed once.

    Attributes:
        volume: the volume under check.
        grid: the target's working grid for it.
        finest_mm: the smallest voxel size that the target sees; filters act on what lies above it.
        seed: of what several versions draw in common.
    """

    volume: Volume
    grid: WorkingGrid
    finest_mm: float
    seed: int = 0

    @cached_property
    def spectrum(self) -> converter.Spectrum:
        """The FFT of the volume."""
        return converter.Spectrum.of(self.volume)

    @cached_property
    def range(self) -> tuple[float, float]:
        """The 0.5 and 99.5 % percentiles of the volume."""
        return converter.intensity_range(self.volume.voxels)

    @property
    def width(self) -> float:
        """The intensity range, the unit of all strengths."""
        low, high = self.range
        return high - low

    def cap(self, reformed: np.ndarray) -> None:
        """Move voxels, float32 (K, J, I), back to within `MOST_CHANGE` of the volume's own, in place.

        They differ from those in whole steps of 2^-10 of the intensity range or less. Nobody sees them, and a
        file takes half of the room.
        """
        step = np.float32(2.0 ** np.floor(np.log2(_FINEST_CHANGE * self.width)))
        most = np.float32(MOST_CHANGE * self.width) / step

        def clip(rows: slice) -> None:
            own, voxels = np.asarray(self.volume.voxels[rows], np.float32), reformed[rows]
            voxels -= own
            voxels *= 1 / step
            np.maximum(voxels, -most, out=voxels)  # np.clip takes four times as long
            np.minimum(voxels, most, out=voxels)
            np.trunc(voxels, out=voxels)
            voxels *= step
            voxels += own

        slabs.each(reformed, clip)

    @property
    def seen_mm(self) -> float:
        """The finest detail that the volume has and the target sees, in mm."""
        return max(self.finest_mm, min(self.volume.spacing))

    @property
    def voxels_per_cell(self) -> np.ndarray:
        """Voxels of the volume in one cell of the working grid, along each grid axis."""
        return np.array([self.grid.volume_shape[a] for a in self.grid.axes]) / self.grid.shape

    @property
    def step(self) -> int:
        """Voxels of the volume in one seen voxel, at least 1."""
        return max(1, round(self.seen_mm / min(self.volume.spacing)))

    @property
    def nyquist(self) -> float:
        """Its frequency in cycles/mm."""
        return 0.5 / self.seen_mm


@dataclass(frozen=True)
class Draw:
    """One drawn version: a volume in the source's geometry, and how to map an answer to it back.

    `restore` takes and returns (C, K', J', I') on the target's working grid; None where nothing moved.
    """

    volume: Volume
    restore: Restore | None = None


@dataclass(frozen=True)
class LowPass:
    """FFT low-pass at `cutoff` of the Nyquist frequency that the target sees, +-10 % by the draw."""

    cutoff: float
    kind = "low_pass"

    def draw(self, source: Source, rng: np.random.Generator) -> Draw:
        """One draw."""
        cutoff = self.cutoff * source.nyquist * rng.uniform(0.9, 1.1)
        return Draw(source.volume.with_voxels(converter.low_pass(source.spectrum, cutoff)))


@dataclass(frozen=True)
class WaveletShrinkage:
    """Wavelet soft threshold of `strength` times the intensity range; family and grid shift by the draw."""

    strength: float
    kind = "wavelet"

    def draw(self, source: Source, rng: np.random.Generator) -> Draw:
        """One draw."""
        # Where voxels are finer than what the target sees, a change must fill whole cells of the target's
        # grid to matter, and its orthonormal coefficients grow by sqrt(8) a level.
        extra = max(0.0, np.log2(source.seen_mm / min(source.volume.spacing)))
        threshold = self.strength * source.width * 8 ** (extra / 2) * rng.uniform(0.85, 1.15)
        family = ("haar", "db2", "sym4", "bior2.2")[rng.integers(4)]
        k, j, i = rng.integers(0, 8, 3).tolist()
        levels = 3 + round(extra)
        voxels = converter.wavelet_shrinkage(source.volume.voxels, threshold, levels, family, (k, j, i))
        return Draw(source.volume.with_voxels(voxels))


@dataclass(frozen=True)
class Median:
    """Separable median with taps one seen voxel apart, repeated `passes` times."""

    passes: int = 1
    kind = "median"

    def draw(self, source: Source, rng: np.random.Generator) -> Draw:
        """One draw (the same each time)."""
        voxels = source.volume.voxels
        for _ in range(self.passes):
            voxels = smoothing.median(voxels, source.step)
        return Draw(source.volume.with_voxels(voxels))


@dataclass(frozen=True)
class Diffusion:
    """Edge-preserving diffusion that evens out differences below `edge` times the intensity range, +-20 %."""

    edge: float
    passes: int = 5
    kind = "diffusion"

    def draw(self, source: Source, rng: np.random.Generator) -> Draw:
        """One draw."""
        edge = self.edge * source.width * rng.uniform(0.8, 1.2)
        voxels = smoothing.diffusion(source.volume.voxels, edge, self.passes, source.step)
        return Draw(source.volume.with_voxels(voxels))


@dataclass(frozen=True)
class AngularStop:
    """Random double cones of directions removed above `above` of the seen Nyquist frequency.

    Three cones along random orthogonal axes, each of `half_angle` degrees.
    """

    half_angle: float = 35.0
    above: float = 0.35
    kind = "angular_stop"

    def draw(self, source: Source, rng: np.random.Generator) -> Draw:
        """One draw."""
        axes, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        transfer_angle, above = np.deg2rad(self.half_angle), self.above * source.nyquist
        voxels = converter.angular_stop(source.spectrum, axes, transfer_angle, above)
        return Draw(source.volume.with_voxels(voxels))


@dataclass(frozen=True)
class Denoiser:
    """What the learned reformer (`denoiser.py`) takes for noise of `level` times the intensity range removed.

    The draw takes the level (+-30 %), the orientation in which the network sees the volume (one of 48), where
    its cells begin, and which of its deep channels are left out.

    Attributes:
        level: root mean square of that noise, 1/255 to 32/255: the higher, the smoother.
        cap: no voxel changes by more than this share of the intensity range.
    """

    level: float
    cap: float = 0.05
    kind = "denoiser"

    def draw(self, source: Source, rng: np.random.Generator) -> Draw:
        """One draw."""
        voxels = torch.from_numpy(np.array(source.volume.voxels, dtype=np.float32))
        with torch.inference_mode():
            return Draw(source.volume.with_voxels((voxels - self.change(source, voxels, rng)).numpy()))

    def change(self, source: Source, voxels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """What a draw takes away from voxels (K, J, I), which are a function of others; differentiable."""
        level = self.level * rng.uniform(0.7, 1.3)
        return denoiser.change(voxels, source.grid, source.range, level, self.cap, rng)


Filter = LowPass | WaveletShrinkage | Median | Diffusion | AngularStop | Denoiser


@dataclass(frozen=True)
class Moved:
    """The volume, or a filtered version of it, seen from another place.

    Shifted by an odd number of cells of the working grid, `reach` at most, along every axis, and mirrored
    left-right if `mirror`. The network meets the same anatomy on other cells of its strides (powers of two,
    so an odd shift never falls on them); the answer is moved back.
    """

    reach: int
    mirror: bool
    inner: Filter | None = None

    @property
    def kind(self) -> str:
        """Moved or mirrored, with the kind of the filter inside."""
        base = "mirrored" if self.mirror else "moved"
        return f"{base}_{self.inner.kind}" if self.inner else base

    def draw(self, source: Source, rng: np.random.Generator) -> Draw:
        """One draw."""
        volume = source.volume if self.inner is None else self.inner.draw(source, rng).volume
        picks, signs = rng.integers(0, (self.reach + 1) // 2, 3), rng.choice((-1, 1), 3)
        fitting = [
            self._fitting(ratio, size)
            for ratio, size in zip(source.voxels_per_cell, source.grid.shape, strict=True)
        ]
        k, j, i = (
            int(sign) * counts[pick % len(counts)]
            for counts, pick, sign in zip(fitting, picks, signs, strict=True)
        )
        return _move(volume, source.grid, (k, j, i), self.mirror)

    def _fitting(self, voxels_per_cell: float, size: int) -> list[int]:
        """Shifts in cells that whole voxels can follow: odd ones if any do; else none, which is in place.

        The axis has `size` cells; a shift leaves at least one of them, and one voxel, inside.
        """
        fitting = []
        for cells in range(1, min(self.reach, size - 1) + 1):
            voxels = cells * voxels_per_cell
            inside = 0 < round(voxels) < round(size * voxels_per_cell)
            if inside and abs(round(voxels) - voxels) <= _MISFIT_CELLS * voxels_per_cell:
                fitting.append(cells)
        return [cells for cells in fitting if cells % 2] or fitting or [0]


@dataclass(frozen=True)
class Probe:
    """A version without a vote: evidence alone.

    A filter too weak to repair anything upsets what a small attack has built on, and no anatomy. A place that
    costs too much to repair anything may still show that an answer does not hold.
    """

    inner: Filter | Moved

    @property
    def kind(self) -> str:
        """A probe, and the kind of what is inside."""
        return f"probe_{self.inner.kind}"

    def draw(self, source: Source, rng: np.random.Generator) -> Draw:
        """One draw."""
        return self.inner.draw(source, rng)


@dataclass(frozen=True)
class Nudge:
    """A small step: what a pass of diffusion evens out below `edge` of the intensity range, or the opposite.

    Two of them, one `against` the other, take the same step of a check either way, see `symmetry.py`. Its
    size is drawn, +-20 %.
    """

    edge: float
    against: bool

    @property
    def kind(self) -> str:
        """A nudge, and which way."""
        return "nudge_against" if self.against else "nudge"

    def shared(self, source: Source) -> tuple[Diffusion, np.random.Generator]:
        """What makes the step, and the generator that both nudges of a check draw from."""
        return Diffusion(self.edge, passes=1), np.random.default_rng((source.seed, _OF_NUDGES))

    def draw(self, source: Source, rng: np.random.Generator) -> Draw:
        """One draw, by the seed of the source alone."""
        diffusion, rng = self.shared(source)
        draw = diffusion.draw(source, rng)
        if not self.against:
            return draw
        own, opposite = source.volume.voxels, draw.volume.voxels

        def reflect(rows: slice) -> None:
            np.subtract(np.float32(2) * own[rows], opposite[rows], out=opposite[rows])

        slabs.each(opposite, reflect)
        return draw


Version = Filter | Moved | Probe | Nudge
_CLASSES = {
    c.__name__: c
    for c in (LowPass, WaveletShrinkage, Median, Diffusion, AngularStop, Denoiser, Moved, Probe, Nudge)
}


def votes(version: Version) -> bool:
    """Whether the answer to a version has a say in the defended segmentation."""
    return not isinstance(version, Probe | Nudge)


def nudges(family: Sequence[Version]) -> int:
    """How many of a family are nudges: the last two, or none. The others are compared among themselves.

    Raises:
        ValueError: if it has any other nudges.
    """
    places = [n for n, version in enumerate(family) if isinstance(version, Nudge)]
    if not places:
        return 0
    along, against = family[-2:] if len(family) > 1 else (None, None)
    if len(places) != 2 or not isinstance(along, Nudge) or against != replace(along, against=True):
        raise ValueError("nudges come last, and two: one, and the one against it")
    return 2


def to_json(version: Version) -> dict:
    """A version as plain data."""
    parameters = {k: v for k, v in asdict(version).items() if k != "inner"}
    if isinstance(version, Moved | Probe) and version.inner is not None:
        parameters["inner"] = to_json(version.inner)
    return {"type": type(version).__name__, **parameters}


def from_json(data: dict) -> Version:
    """The inverse of `to_json`.

    Raises:
        KeyError, TypeError: if `data` is not a version.
    """
    parameters = {k: v for k, v in data.items() if k != "type"}
    if parameters.get("inner") is not None:
        parameters["inner"] = from_json(parameters["inner"])
    return _CLASSES[data["type"]](**parameters)


def _move(volume: Volume, grid: WorkingGrid, cells: tuple[int, int, int], mirror: bool) -> Draw:
    """Shift by whole cells of the working grid (edges repeated) and mirror along its last axis."""
    mirrored = grid.axes[2]
    steps = [0, 0, 0]
    for g, cell in enumerate(cells):
        axis = grid.axes[g]
        sign = -1 if g in grid.flips else 1
        steps[axis] = sign * round(cell * grid.volume_shape[axis] / grid.shape[g])
    voxels = volume.voxels
    if mirror:
        voxels = np.flip(voxels, mirrored)
    moved = _shift(voxels, tuple(steps))

    def restore(answer: np.ndarray) -> np.ndarray:
        k, j, i = (-n for n in cells)
        return _shift(np.flip(answer, 3), (0, k, j, -i)) if mirror else _shift(answer, (0, k, j, i))

    return Draw(volume.with_voxels(moved), restore)


def _shift(x: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
    """Whole-voxel shift along each axis; what comes in repeats the edge."""
    out = np.empty(x.shape, x.dtype)
    source = tuple(slice(max(0, -n), size - max(0, n)) for n, size in zip(steps, x.shape, strict=True))
    place = tuple(slice(max(0, n), size - max(0, -n)) for n, size in zip(steps, x.shape, strict=True))
    moved, kept, axis = out[place], x[source], x.ndim - 3

    def copy(rows: slice) -> None:
        index = (slice(None),) * axis + (rows,)
        moved[index] = kept[index]

    slabs.each(kept, copy, axis)
    for axis, n in enumerate(steps):
        line = np.moveaxis(out, axis, 0)
        if n > 0:
            line[:n] = line[n]
        elif n < 0:
            line[n:] = line[n - 1]
    return out
