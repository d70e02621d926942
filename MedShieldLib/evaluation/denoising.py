"""How much synthetic noise the reformer's filters remove, and what they cost a clean volume.

Run as `python -m MedShieldLib.evaluation.denoising [DATA]`, on heads that the denoiser was not trained on.
Attacks are no random noise: what becomes of them, the benchmark measures.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedShieldLib import converter
from MedShieldLib.attacks.ssim import ssim
from MedShieldLib.evaluation.heads import Role
from MedShieldLib.evaluation.split import heads_for
from MedShieldLib.study import exit_code
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.training.noise import Spectrum, noise
from MedShieldLib.versions import (
    AngularStop,
    Denoiser,
    Diffusion,
    Filter,
    LowPass,
    Median,
    Source,
    WaveletShrinkage,
)
from MedShieldLib.volume import Volume

_EDGE = 96


@dataclass(frozen=True)
class Quality:
    """One filter on one volume.

    Attributes:
        psnr, ssim: of the filtered clean volume against the volume; dB, intensity range [0, 1].
        removed: per spectrum, 1 - the energy that the noise still has behind the filter / before it.
        gain: per spectrum, dB that the filter brings the noisy volume nearer to the clean one.
    """

    psnr: float
    ssim: float
    removed: dict[Spectrum, float]
    gain: dict[Spectrum, float]


def quality(version, clean: Volume, level: float, seed: int) -> Quality:
    """One filter on one volume with and without noise.

    Args:
        version: stays in place.
        clean: the volume.
        level: root mean square of the noise, as a share of the intensity range.
        seed: of the noise and of the draw, which is the same with and without noise.
    """
    low, high = converter.intensity_range(clean.voxels)
    scale = np.float32(high - low)

    def filtered(voxels: np.ndarray) -> np.ndarray:
        return version.draw(in_place(clean.with_voxels(voxels)), np.random.default_rng(seed)).volume.voxels

    reference = clean.voxels.astype(np.float32)
    without = filtered(reference)
    removed, gain = {}, {}
    for number, spectrum in enumerate(Spectrum):
        k, j, i = reference.shape
        added = noise(spectrum, (k, j, i), np.random.default_rng((seed, number))) * np.float32(level) * scale
        noisy = filtered(reference + added)
        removed[spectrum] = 1 - float(np.mean((noisy - without) ** 2) / np.mean(added**2))
        gain[spectrum] = -10 * float(np.log10(np.mean((noisy - reference) ** 2) / np.mean(added**2)))
    error = max(float(np.mean(((without - reference) / scale) ** 2)), 1e-12)
    unit, unit_without = (reference - low) / scale, (without - low) / scale
    return Quality(-10 * float(np.log10(error)), ssim(unit, unit_without), removed, gain)


def in_place(volume: Volume) -> Source:
    """A volume as a target sees it that works on its own voxels."""
    return Source(volume, WorkingGrid.native(volume, "LPS"), min(volume.spacing))


def middle(volume: Volume) -> Volume:
    """At most 96^3 voxels of a volume, from its middle, in float32."""
    first = [max(0, (n - _EDGE) // 2) for n in volume.voxels.shape]
    k, j, i = (slice(f, f + _EDGE) for f in first)
    return Volume(volume.voxels[k, j, i].astype(np.float32), volume.spacing)


def filters() -> dict[str, Filter]:
    """The denoiser and the spectral family, from mild to strong."""
    named: dict[str, Filter] = {f"denoiser {n}/255": Denoiser(n / 255) for n in (4, 8, 12, 16, 24, 32)}
    named |= {f"diffusion {edge:g}": Diffusion(edge) for edge in (0.05, 0.07, 0.09, 0.12, 0.16)}
    named |= {f"wavelet {strength:g}": WaveletShrinkage(strength) for strength in (0.035, 0.08, 0.15)}
    named |= {f"median {passes}": Median(passes) for passes in (1, 2)}
    named |= {f"low pass {cutoff:g}": LowPass(cutoff) for cutoff in (0.75, 0.55, 0.35)}
    return named | {"angular stop": AngularStop()}


def table(rows: Mapping[str, Sequence[Quality]]) -> str:
    """Means over volumes, a line a filter: noise removed per spectrum in per cent."""
    spectra = "".join(f"{s.value:>8}" for s in Spectrum)
    lines = [f"{'filter':<18}{'PSNR':>7}{'SSIM':>8}{spectra}{'mean':>8}{'gain dB':>9}"]
    for name, found in rows.items():
        removed = [float(np.mean([q.removed[s] for q in found])) for s in Spectrum]
        gain = np.mean([list(q.gain.values()) for q in found])
        lines.append(
            f"{name:<18}{np.mean([q.psnr for q in found]):>7.1f}{np.mean([q.ssim for q in found]):>8.4f}"
            f"{''.join(f'{r:>8.0%}' for r in (*removed, float(np.mean(removed))))}{gain:>9.2f}"
        )
    return "\n".join(lines)


def seconds_for(version, edge: int = 256) -> float:
    """Wall time of one draw on edge^3 random voxels, the second of two."""
    rng = np.random.default_rng(0)
    source = in_place(Volume(rng.random((edge,) * 3, np.float32)))
    version.draw(source, rng)
    begin = time.perf_counter()
    version.draw(source, rng)
    return time.perf_counter() - begin


@exit_code
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder with volumes/; MNI152 when none is given")
    parser.add_argument("--level", type=float, default=6.0, help="of the noise, in 255ths of the range")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--time", action="store_true", help="also time 256^3 voxels")
    arguments = parser.parse_args()
    # The heads on which the benchmark tests targets that were trained on none of them.
    heads = [h for h in heads_for("deepbet-coarse", arguments.data) if h.role is Role.TEST and h.ordinary]
    volumes = [middle(head.read()) for head in heads]
    rows = {
        name: [
            quality(version, volume, arguments.level / 255, arguments.seed + n)
            for n, volume in enumerate(volumes)
        ]
        for name, version in filters().items()
    }
    print(f"{len(volumes)} heads, noise of {arguments.level:g}/255, seed {arguments.seed}\n\n{table(rows)}")
    if arguments.time:
        for version in (Denoiser(16 / 255), Diffusion(0.09), WaveletShrinkage(0.08)):
            print(f"{version.kind}: {seconds_for(version):.1f} s for 256^3 voxels")


if __name__ == "__main__":
    sys.exit(main())
