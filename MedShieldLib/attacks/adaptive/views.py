"""The versions of `MedShieldLib.versions`, and how far answers to them disagree, differentiable.

Every view takes its random parameters from the generator as the version itself does, so that both give the
same volume for the same seed; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pywt
import torch

from MedShieldLib import versions as v
from MedShieldLib.attacks.base import Case
from MedShieldLib.volume import Volume

TensorRestore = Callable[[torch.Tensor], torch.Tensor]
View = tuple[torch.Tensor, TensorRestore]

_ABSENT_CELLS = 8.0  # as in `detector.disagreement`
_TINY = 1e-30
# Two scores this close, as a share of the larger one, share the gradient.
_CLOSE = 0.05


def answer_to_view(
    version: v.Version, case: Case, source: v.Source, change: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """Probabilities (1, C, K', J', I') of a case's target for one draw of a version, mapped back.

    Args:
        version: which one.
        case: whose target is asked.
        source: of the attacked volume as it would be written: going forward, the answer is the one to this.
        change: zeros (K, J, I) in its intensity units, through which gradients reach the input.
        rng: as given to `version.draw`.
    """
    exact = torch.from_numpy(np.asarray(source.volume.voxels, dtype=np.float32))
    seen, restore = view(version, source, exact + change, rng)
    drawn = source.volume.with_voxels(seen.detach().numpy())
    units = (seen - exact)[None, None] / case.width + case.x
    return restore(torch.softmax(case.answer(drawn, units), dim=1))


def disagreement(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """`detector.disagreement`, differentiable: (S,) of two answers (1, S + 1, K', J', I')."""
    apart = (p - q)[0, 1:].abs().flatten(1).sum(1)
    total = (p + q)[0, 1:].flatten(1).sum(1)
    return torch.where(total > _ABSENT_CELLS, apart / total.clamp(min=_ABSENT_CELLS), 0 * apart)


def log(q: torch.Tensor) -> torch.Tensor:
    """Of probabilities: stands for their logits. What float32 cannot tell from 0 passes no gradient on."""
    return q.clamp(min=_TINY).log()


def larger(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The larger of two scores. Where they are close, the gradient is that of both.

    A step that lowers one of them alone would have to be taken back for the other.
    """
    both = torch.stack([a, b])
    shares = torch.softmax(both.detach() / (_CLOSE * both.detach().max().clamp(min=_TINY)), 0)
    smooth = (shares * both).sum()
    return torch.maximum(a, b).detach() + smooth - smooth.detach()


def view(version: v.Version, source: v.Source, voxels: torch.Tensor, rng: np.random.Generator) -> View:
    """One draw of a version.

    Args:
        version: which one; one of a kind unknown here is passed straight through (backward pass
            differentiable approximation, Athalye et al. 2018), with its exact result going forward.
        source: of the volume that `voxels` are.
        voxels: float32 (K, J, I), of which the result is a differentiable function.
        rng: as given to `version.draw`.

    Returns:
        The version's voxels, and how to map an answer (1, C, K', J', I') to it back.
    """
    if isinstance(version, v.Probe):
        return view(version.inner, source, voxels, rng)
    if isinstance(version, v.Moved):
        return _moved(version, source, voxels, rng)
    if isinstance(version, v.LowPass | v.AngularStop):
        return _linear(version, source, voxels, rng), _stay
    if isinstance(version, v.WaveletShrinkage):
        return _shrunk(version, source, voxels, rng), _stay
    if isinstance(version, v.Median):
        return _median(version, source, voxels), _stay
    if isinstance(version, v.Diffusion):
        return _diffused(version, source, voxels, rng), _stay
    if isinstance(version, v.Denoiser):
        return voxels - version.change(source, voxels, rng), _stay
    if isinstance(version, v.Nudge):
        diffusion, shared = version.shared(source)
        nudged = _diffused(diffusion, source, voxels, shared)
        return (2 * voxels - nudged if version.against else nudged), _stay
    exact = torch.from_numpy(np.asarray(version.draw(source, rng).volume.voxels, dtype=np.float32))
    return voxels + (exact - voxels).detach(), _stay


def _stay(answer: torch.Tensor) -> torch.Tensor:
    return answer


def _linear(
    version: v.LowPass | v.AngularStop, source: v.Source, voxels: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """Filters that only multiply the spectrum: what they do to an impulse is all there is to know."""
    impulse = np.zeros(voxels.shape, np.float32)
    impulse[0, 0, 0] = 1
    lit = v.Source(Volume(impulse, source.volume.spacing), source.grid, source.finest_mm)
    response = torch.from_numpy(version.draw(lit, rng).volume.voxels)
    transfer = torch.fft.rfftn(response).real
    return torch.fft.irfftn(torch.fft.rfftn(voxels) * transfer, voxels.shape)


def _shrunk(
    version: v.WaveletShrinkage, source: v.Source, voxels: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    extra = max(0.0, np.log2(source.seen_mm / min(source.volume.spacing)))
    threshold = version.strength * source.width * 8 ** (extra / 2) * rng.uniform(0.85, 1.15)
    family = ("haar", "db2", "sym4", "bior2.2")[rng.integers(4)]
    shift = tuple(rng.integers(0, 8, 3).tolist())
    levels = max(1, min(3 + round(extra), pywt.dwtn_max_level(voxels.shape, family)))
    shrunk = _Shrinkage.apply(torch.roll(voxels, shift, (0, 1, 2)), threshold, family, levels)
    return torch.roll(shrunk, tuple(-n for n in shift), (0, 1, 2))


class _Shrinkage(torch.autograd.Function):
    """Soft thresholding S between an analysis A and a synthesis B; its transpose is A' S' B'.

    The transpose of a wavelet's synthesis is the analysis of the dual wavelet, and the other way round.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, threshold: float, family: str, levels: int) -> torch.Tensor:
        approximation, *details = pywt.wavedecn(
            x.detach().numpy(), family, mode="periodization", level=levels
        )
        kept = [
            {key: np.abs(band) > np.float32(threshold) for key, band in level.items()} for level in details
        ]
        for level in details:
            for key, band in level.items():
                level[key] = np.sign(band) * np.maximum(np.abs(band) - np.float32(threshold), 0)
        ctx.kept, ctx.family, ctx.levels = kept, family, levels
        return _synthesis([approximation, *details], family, x.shape)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        dual = ctx.family.replace("bior", "rbio")
        approximation, *details = pywt.wavedecn(
            gradient.numpy(), dual, mode="periodization", level=ctx.levels
        )
        for level, kept in zip(details, ctx.kept, strict=True):
            for key in level:
                level[key] = level[key] * kept[key]
        return _synthesis([approximation, *details], dual, gradient.shape), None, None, None


def _synthesis(coefficients: list, family: str, shape: torch.Size) -> torch.Tensor:
    x = pywt.waverecn(coefficients, family, mode="periodization")[tuple(slice(n) for n in shape)]
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))


def _median(version: v.Median, source: v.Source, voxels: torch.Tensor) -> torch.Tensor:
    for _ in range(version.passes):
        for axis in range(3):
            inner = voxels.shape[axis] - 2 * source.step
            if inner > 0:
                voxels = _median_along(voxels, axis, source.step, inner)
    return voxels


def _median_along(x: torch.Tensor, axis: int, step: int, inner: int) -> torch.Tensor:
    before, here, after = (x.narrow(axis, start, inner) for start in (0, step, 2 * step))
    middle = torch.clamp(here, torch.minimum(before, after), torch.maximum(before, after))
    ends = x.narrow(axis, 0, step), x.narrow(axis, x.shape[axis] - step, step)
    return torch.cat([ends[0], middle, ends[1]], dim=axis)


def _diffused(
    version: v.Diffusion, source: v.Source, voxels: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    edge, step = version.edge * source.width * rng.uniform(0.8, 1.2), source.step
    for _ in range(version.passes):
        flow = torch.zeros_like(voxels)
        for axis in range(3):
            size = voxels.shape[axis] - step
            if size > 0:
                difference = voxels.narrow(axis, step, size) - voxels.narrow(axis, 0, size)
                difference = difference / (1 + (difference / edge) ** 2)
                nothing = torch.zeros_like(voxels.narrow(axis, 0, step))
                flow = flow + torch.cat([difference, nothing], axis) - torch.cat([nothing, difference], axis)
        voxels = voxels + flow / 7
    return voxels


def _moved(version: v.Moved, source: v.Source, voxels: torch.Tensor, rng: np.random.Generator) -> View:
    if version.inner is not None:
        voxels, _ = view(version.inner, source, voxels, rng)
    # Where every voxel and every cell goes is read off an index volume that makes the same move.
    index = np.arange(voxels.numel(), dtype=np.float64).reshape(voxels.shape)
    numbered = v.Source(Volume(index, source.volume.spacing), source.grid, source.finest_mm)
    draw = v.Moved(version.reach, version.mirror).draw(numbered, rng)
    places = torch.from_numpy(np.ascontiguousarray(draw.volume.voxels)).long()
    assert draw.restore is not None
    cells = np.arange(np.prod(source.grid.shape), dtype=np.float64).reshape(1, *source.grid.shape)
    back = torch.from_numpy(np.ascontiguousarray(draw.restore(cells)[0])).long()

    def restore(answer: torch.Tensor) -> torch.Tensor:
        return answer.flatten(2)[:, :, back]

    return voxels.flatten()[places], restore
