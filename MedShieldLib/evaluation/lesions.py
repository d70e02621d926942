"""Do small lesions survive the reformer? They are simulated in the white matter of clean heads, and measured.

Run as `python -m MedShieldLib.evaluation.lesions [DATA]`. Only their contrast counts, no segmentation; where
the white matter lies, the reference target says.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from MedShieldLib import converter
from MedShieldLib.calibration import Calibration
from MedShieldLib.errors import InputError
from MedShieldLib.evaluation.denoising import filters
from MedShieldLib.evaluation.heads import Role
from MedShieldLib.evaluation.metrics import Estimate, over_subjects
from MedShieldLib.evaluation.split import heads_for
from MedShieldLib.study import exit_code
from MedShieldLib.targets import Target, load_target
from MedShieldLib.versions import Moved, Source, votes
from MedShieldLib.volume import Volume

# Diameters of small white matter lesions, and their contrast as a share of the intensity range: on T1 they
# are about as dark as grey matter, which is 15 to 25 % below white matter.
DIAMETERS_MM = (3.0, 8.0)
CONTRAST = (0.08, 0.30)
# A lesion is still there if this share of its contrast is.
KEPT = 0.5
SIZES_MM = ((3.0, 4.0), (4.0, 6.0), (6.0, 8.0))

_APART_MM = 18.0
# Where the surroundings begin and end, in mm from a lesion's border.
_SHELL_MM = (1.5, 4.0)
_BOX_MM = 10.0
_SPHERE_TO_ELLIPSOID = (0.75, 1.3)
_ROUGHNESS = 0.15
_WHITE_MATTER = "White matter"

# What every reformer is called with: what versions of a volume share, and the seed of the draw.
Reform = Callable[[Source, int], np.ndarray]


@dataclass(frozen=True)
class Lesion:
    """One simulated lesion.

    Attributes:
        box: the part of the volume around it.
        cover: share of each voxel of the box that is lesion.
        core, shell: masks in the box: the lesion, and its surroundings.
        diameter_mm: of the sphere of about its volume.
        contrast: signed, as a share of the intensity range.
    """

    box: tuple[slice, ...]
    cover: np.ndarray
    core: np.ndarray
    shell: np.ndarray
    diameter_mm: float
    contrast: float

    def seen_in(self, voxels: np.ndarray) -> float:
        """Mean of the lesion less that of its surroundings."""
        box = voxels[self.box]
        return float(box[self.core].mean(dtype=float) - box[self.shell].mean(dtype=float))


@dataclass(frozen=True)
class Finding:
    """One lesion behind one reformer; `kept` is the share of its contrast that is left."""

    reformer: str
    subject: str
    diameter_mm: float
    contrast: float
    kept: float


def simulate(volume: Volume, white: np.ndarray, seed: int, most: int = 20) -> list[Lesion]:
    """Lesions in the deep white matter, no two near each other.

    Args:
        volume: clean.
        white: bool (K, J, I), its white matter.
        seed: of places, shapes and contrasts.
        most: how many, if there is room.
    """
    rng, mm = np.random.default_rng(seed), np.array(volume.spacing[::-1])
    depth_mm = ndimage.distance_transform_edt(white, mm)
    lesions: list[Lesion] = []
    free = np.ones(white.shape, bool)
    while len(lesions) < most:
        diameter = rng.uniform(*DIAMETERS_MM)
        room = np.flatnonzero(free & (depth_mm > diameter / 2))
        if not room.size:
            break
        centre = np.array(np.unravel_index(rng.choice(room), white.shape))
        free[_around(centre, _APART_MM / mm, white.shape)] = False
        lesions.append(_lesion(centre, diameter, volume, rng))
    return lesions


def with_lesions(volume: Volume, lesions: Iterable[Lesion]) -> Volume:
    """The volume, in float32, with the lesions in it."""
    low, high = converter.intensity_range(volume.voxels)
    voxels = volume.voxels.astype(np.float32)
    for lesion in lesions:
        voxels[lesion.box] += lesion.cover * np.float32(lesion.contrast * (high - low))
    return volume.with_voxels(voxels)


def kept_contrasts(
    volume: Volume, lesions: Sequence[Lesion], reform: Reform, target: Target, seed: int
) -> list[float]:
    """Of each lesion, the share of its contrast that a reformer leaves.

    The volume without the lesions goes through the same draw, and what is seen there is taken off: anatomy
    that lies nearby counts neither for a lesion nor against it.
    """
    both = (volume, with_lesions(volume, lesions))
    before = [[lesion.seen_in(v.voxels) for lesion in lesions] for v in both]
    after = []
    for v in both:
        voxels = reform(Source(v, target.grid(v), target.finest_mm), seed)
        after.append([lesion.seen_in(voxels) for lesion in lesions])
    return (np.subtract(after[1], after[0]) / np.subtract(before[1], before[0])).tolist()


def mean_of(*versions) -> Reform:
    """The mean of versions that stay in place."""

    def reform(source: Source, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return np.mean([version.draw(source, rng).volume.voxels for version in versions], axis=0)

    return reform


def capped(reform: Reform) -> Reform:
    """What a check shows as the reformed volume: `reform` changes no voxel by much."""

    def cap(source: Source, seed: int) -> np.ndarray:
        voxels = reform(source, seed)
        source.cap(voxels)
        return voxels

    return cap


def reformers(target: Target) -> dict[str, Reform]:
    """Nothing, every filter, and what ships for the target."""
    named: dict[str, Reform] = {"none": lambda source, seed: source.volume.voxels}
    named |= {name: mean_of(version) for name, version in filters().items()}
    try:
        family = [v for v in Calibration.shipped(target).versions if votes(v) and not isinstance(v, Moved)]
    except InputError:
        return named  # nothing ships for this target
    mean = mean_of(*family)
    return named | {"mean of the versions": mean, "the same, capped, as shown": capped(mean)}


def study(data: Path | None, target: Target, seed: int, say: Callable[[str], None]) -> list[Finding]:
    """All lesions of all heads that the benchmark tests on, behind all reformers.

    Raises:
        InputError: if `data` holds no head, or no head shows white matter enough.
    """
    reference, findings = load_target("brain-tissue"), []
    heads = [h for h in heads_for(target.name, data) if h.role is Role.TEST and h.ordinary]
    for number, head in enumerate(heads):
        volume = head.read()
        lesions = simulate(volume, white_matter(reference, volume), seed + number)
        say(f"{head.subject}: {len(lesions)} lesions")
        for name, reform in reformers(target).items() if lesions else ():
            for lesion, kept in zip(
                lesions, kept_contrasts(volume, lesions, reform, target, seed + number), strict=True
            ):
                findings.append(Finding(name, head.subject, lesion.diameter_mm, lesion.contrast, kept))
    if not findings:
        raise InputError("No white matter was found in these volumes; give T1-weighted heads.")
    return findings


def white_matter(reference: Target, volume: Volume) -> np.ndarray:
    """Bool (K, J, I): what the reference target calls white matter."""
    value = next(s.value for s in reference.structures if s.name == _WHITE_MATTER)
    return reference.labelmap(reference.probabilities(volume), volume) == value


def table(findings: Sequence[Finding]) -> str:
    """Recall with its 95 % interval over subjects, by size, and the mean contrast kept; a line a reformer."""
    sizes = "".join(f"{f'{low:g}-{high:g} mm':>10}" for low, high in SIZES_MM)
    lines = [
        f"{'reformer':<28}{'lesions':>8}{'recall':>8}{'95 %':>13}{sizes}{'contrast kept':>15}{'least':>7}"
    ]
    for name in dict.fromkeys(f.reformer for f in findings):
        mine = [f for f in findings if f.reformer == name]
        by_subject = {s: [f for f in mine if f.subject == s] for s in {f.subject for f in mine}}
        estimate = over_subjects(by_subject, recall)
        by_size = (recall([f for f in mine if low <= f.diameter_mm < high]) for low, high in SIZES_MM)
        kept = [f.kept for f in mine]
        lines.append(
            f"{name:<28}{len(mine):>8}{estimate.value:>8.3f}{_interval(estimate):>12} "
            f"{''.join(f'{r:>10.3f}' for r in by_size)}{np.mean(kept):>15.3f}{min(kept):>7.2f}"
        )
    return "\n".join(lines)


def _interval(estimate: Estimate) -> str:
    return "-" if math.isnan(estimate.low) else f"{estimate.low:.2f}-{estimate.high:.2f}"


def recall(findings: Sequence[Finding]) -> float:
    """Share of lesions that are still there; NaN of none."""
    return float(np.mean([f.kept >= KEPT for f in findings])) if findings else float("nan")


def _lesion(centre: np.ndarray, diameter: float, volume: Volume, rng: np.random.Generator) -> Lesion:
    """An ellipsoid with a rough border; voxels on the border are partly lesion."""
    mm, shape = np.array(volume.spacing[::-1]), volume.voxels.shape
    box = _around(centre, _BOX_MM / mm, shape)
    along = (np.arange(n)[b] - c for n, b, c in zip(shape, box, centre, strict=True))
    away = np.stack(np.meshgrid(*along, indexing="ij"), -1) * mm
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    axes = rng.uniform(*_SPHERE_TO_ELLIPSOID, 3)
    axes /= np.cbrt(axes.prod())  # of the same volume as the sphere
    rough = ndimage.gaussian_filter(rng.standard_normal(away.shape[:3]), 1.5 / mm)
    distance = np.linalg.norm(away @ turn / axes, axis=-1) + _ROUGHNESS * diameter * rough / rough.std() / 2
    outside_mm = distance - diameter / 2
    cover = np.clip(0.5 - outside_mm / mm.max(), 0, 1).astype(np.float32)
    core = cover >= min(0.5, cover.max())
    shell = (outside_mm > _SHELL_MM[0]) & (outside_mm < _SHELL_MM[1]) & (cover == 0)
    return Lesion(box, cover, core, shell, diameter, float(rng.choice((-1, 1)) * rng.uniform(*CONTRAST)))


def _around(centre: np.ndarray, reach: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of an array within `reach` voxels of a voxel."""
    return tuple(
        slice(max(0, int(c - r)), min(n, int(c + r) + 1))
        for c, r, n in zip(centre, reach, shape, strict=True)
    )


@exit_code
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder with volumes/; MNI152 when none is given")
    parser.add_argument(
        "--target", default="brain-tissue", help="how fine detail it sees decides the filters"
    )
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    target = load_target(arguments.target)
    findings = study(arguments.data, target, arguments.seed, lambda line: print(line, file=sys.stderr))
    print(f"Filters as for target {target.name}, which sees {target.finest_mm:g} mm; seed {arguments.seed}\n")
    print(table(findings))


if __name__ == "__main__":
    sys.exit(main())
