"""deepbet (Fisch et al. 2024): brain extraction on T1 MR, with the two networks of the package of that name.

The steps are those of the package, in its order, on its TorchScript files; only what the package cannot do is
added: an answer for a volume without a brain, gradients, and the coarse network as a target of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from MedShieldLib.errors import InputError
from MedShieldLib.masks import bounding_box
from MedShieldLib.targets import hardened
from MedShieldLib.targets import window as windows
from MedShieldLib.targets.base import Trainable
from MedShieldLib.targets.device import frozen
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.targets.network import add_within
from MedShieldLib.volume import Structure, Volume

HARDENED_NAME = "deepbet-coarse-hardened"
HARDENED_WEIGHTS = Path(__file__).parents[1] / "data" / f"{HARDENED_NAME}.safetensors"
STRUCTURES: tuple[Structure, ...] = (Structure(1, "Brain", (0.95, 0.75, 0.45)),)

Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]

_COARSE: Shape = (128, 128, 128)
_FINE: Shape = (256, 256, 256)
# Share of the brain's size that is added on either side of it before the fine network looks.
_MARGIN = 0.1
# A slice of the coarse grid with less brain than this is outside of the brain's box.
_LEAST_SHARE = 0.02
# Keeps the logarithm of a probability finite where float32 has no smaller number to give.
_TINY = 1e-30


class CoarseDeepbet:
    """The coarse network alone: the whole volume on 128^3 points, about a second on two cores.

    Attributes:
        network: the coarse network.
        finest_mm: 2 mm, which is a field of view of 256 mm on 128 points. It is fixed so that bands and
            thresholds mean the same for every volume.
    """

    name = "deepbet-coarse"
    structures = STRUCTURES
    finest_mm = 2.0

    def __init__(self, coarse: torch.nn.Module, sha256: str) -> None:
        self._coarse, self.network, self.sha256 = coarse, coarse, sha256

    def grid(self, volume: Volume) -> WorkingGrid:
        """128^3 points of the volume in RAS order; see `Target.grid`."""
        return replace(WorkingGrid.native(volume, "RAS"), shape=_COARSE)

    def window(self, volume: Volume) -> torch.Tensor:
        """(1, 1, 128, 128, 128) in [0, 1]; see `DifferentiableTarget.window`."""
        return self._windowed(volume, _COARSE)

    def sampled(self, voxels: torch.Tensor, volume: Volume) -> torch.Tensor:
        """The nearest voxels, not their mean; see `Sampling.sampled`."""
        ordered = WorkingGrid.native(volume, "RAS").to_grid(voxels)
        return _points(ordered[None, None], self.grid(volume).shape)[0, 0]

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 2, K', J', I'): logarithms of the probabilities for (1, 1, K', J', I') in [0, 1]."""
        return self._answer(x).clamp(min=_TINY).log()

    def probabilities(self, volume: Volume) -> np.ndarray:
        """float32 (2, K', J', I'); all background where no brain is found. See `Target.probabilities`."""
        with torch.inference_mode():
            return self._answer(self.window(volume))[0].numpy()

    def labelmap(self, probabilities: np.ndarray, volume: Volume) -> np.ndarray:
        """uint8 (K, J, I): above 1/2, the largest connected component, its cavities filled."""
        brain = torch.from_numpy((probabilities[1] > 0.5).astype(np.uint8))
        return _without_islands(_from_points(brain, volume).numpy() > 0).astype(np.uint8)

    def unwindow(self, x: torch.Tensor, volume: Volume) -> Volume:
        """`volume` plus the change from its window to `x`; see `DifferentiableTarget.unwindow`.

        Where points are further apart than voxels, all voxels around a point change with it.
        """
        low, high = _bounds(_ordered(volume))
        change = (x.detach() - self.window(volume))[0, 0] * (high - low)
        return add_within(volume, _from_points(change, volume).numpy())

    def _windowed(self, volume: Volume, shape: Shape | None) -> torch.Tensor:
        voxels = _ordered(volume)
        return windows.apply(_points(voxels, shape), _bounds(voxels))

    def _answer(self, x: torch.Tensor) -> torch.Tensor:
        return _run(self.network, x)


class Deepbet(CoarseDeepbet):
    """Both networks, as the package runs them: the coarse one finds the brain, the fine one draws it.

    The working grid is the volume's own, in RAS order. Gradients run through both networks: no gradient leads
    through the box that the coarse one draws, so its own answer stands for it (backward pass differentiable
    approximation, Athalye et al. 2018). The intensity window is taken as given.

    Attributes:
        network: the fine network.
        finest_mm: 1 mm. The fine network sees a brain and its margin on 256 points, about 0.65 to 0.85 mm
            apart, so that nothing finer than the usual 1 mm scan counts for much.
    """

    name = "deepbet"
    finest_mm = 1.0

    def __init__(self, coarse: torch.nn.Module, fine: torch.nn.Module, sha256: str) -> None:
        super().__init__(coarse, sha256)
        self.network = fine

    def grid(self, volume: Volume) -> WorkingGrid:
        """The volume's own voxels in RAS order; see `Target.grid`."""
        return WorkingGrid.native(volume, "RAS")

    def window(self, volume: Volume) -> torch.Tensor:
        """(1, 1, K', J', I') in [0, 1]; see `DifferentiableTarget.window`."""
        return self._windowed(volume, None)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """As those of the coarse network, whose gradient is added; the values are those of both in turn."""
        logits = super().logits(x)
        if not x.requires_grad:
            return logits
        coarse = _run(self._coarse, _points(x, _COARSE)).clamp(min=_TINY).log()
        towards_the_box = _points(coarse, x.shape[2:])
        return logits + towards_the_box - towards_the_box.detach()

    def _answer(self, x: torch.Tensor) -> torch.Tensor:
        box = self._brain_box(x.detach())
        if box is None:
            # Nothing for the fine network to see. The package fails here, but a volume whose brain has
            # been made invisible must be judged, not refused. The zero keeps the graph for gradients.
            nothing = 0 * x
            return torch.cat([nothing + 1, nothing], dim=1)
        k, j, i = box
        crop = x[..., k, j, i]
        brain = _points(_run(self.network, _points(crop, _FINE)), crop.shape[2:])
        sides = zip(reversed(box), reversed(x.shape[2:]), strict=True)
        around = [n for side, size in sides for n in (side.start, size - side.stop)]
        return torch.cat([F.pad(brain[:, :1], around, value=1.0), F.pad(brain[:, 1:], around)], dim=1)

    def _brain_box(self, x: torch.Tensor) -> Box | None:
        """The box of the largest coarse component with its margin; None when there is no brain."""
        with torch.no_grad():
            answer = _run(self._coarse, _points(x, _COARSE))
        return _box_around(_largest_component(answer[0, 1].float().numpy() > 0.5), x.shape[2:])


def load() -> Deepbet:
    """Both networks as a target.

    Raises:
        InputError: if the package deepbet is not installed.
    """
    coarse, fine = _models()
    return Deepbet(_script(coarse), _script(fine), _sha256(coarse, fine))


def load_coarse() -> CoarseDeepbet:
    """The coarse network as a target.

    Raises:
        InputError: if the package deepbet is not installed.
    """
    coarse, _ = _models()
    return CoarseDeepbet(_script(coarse), _sha256(coarse))


def load_hardened() -> Trainable:
    """The coarse network's hardened copy (`training/copies.py`): harder to mislead.

    Made to be asked for second opinions.

    Raises:
        InputError: if the package deepbet is not installed.
    """
    return hardened.with_weights(load_coarse(), HARDENED_WEIGHTS, HARDENED_NAME)


def _models() -> tuple[Path, Path]:
    """The package's files of the coarse and the fine network, without importing the package."""
    package = find_spec("deepbet")
    if package is None or package.origin is None or not (find_spec("cc3d") and find_spec("fill_voids")):
        raise InputError("Target 'deepbet' needs an optional package; run: pip install 'medshield[deepbet]'")
    folder = Path(package.origin).parents[1] / "data" / "models"
    coarse, fine = folder / "bbox_model.pt", folder / "model.pt"
    for file in (coarse, fine):
        if not file.is_file():
            raise InputError(f"{file} is missing; run: pip install --force-reinstall --no-deps deepbet")
    return coarse, fine


def _script(file: Path) -> torch.nn.Module:
    return frozen(torch.jit.load(str(file), map_location="cpu"))


def _sha256(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _ordered(volume: Volume) -> torch.Tensor:
    """All voxels, float32 (1, 1, S, A, R), the only grid step being one of order."""
    return torch.nan_to_num(WorkingGrid.native(volume, "RAS").to_grid(volume.voxels))[None, None]


def _bounds(x: torch.Tensor) -> tuple[float, float]:
    """The 0.5 and 99.5 % quantiles of the coarse network's points."""
    low, high = torch.quantile(_points(x, _COARSE), torch.tensor([0.005, 0.995])).tolist()
    return low, high if high > low else low + 1


def _points(x: torch.Tensor, shape: Sequence[int] | None) -> torch.Tensor:
    """The voxels of (1, C, K', J', I') nearest to a grid of that shape; None takes all."""
    if shape is None or tuple(shape) == x.shape[2:]:
        return x
    return F.interpolate(x, tuple(shape), mode="nearest-exact")


def _from_points(x: torch.Tensor, volume: Volume) -> torch.Tensor:
    """(K', J', I') on the working grid to (K, J, I), each voxel as its nearest point."""
    native = WorkingGrid.native(volume, "RAS")
    return native.from_grid(_points(x[None, None], native.shape)[0, 0])


def _run(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Probabilities (1, 2, S, A, R) for intensities in [0, 1]; the networks were trained on (R, A, S)."""
    x = x.permute(0, 1, 4, 3, 2).contiguous()
    x = 0.226 * ((x - x.mean()) / x.std().clamp(min=1e-12)) + 0.449
    return network(x).permute(0, 1, 4, 3, 2)


def _box_around(brain: np.ndarray, shape: Sequence[int]) -> Box | None:
    """Where the brain of the coarse grid lies in a grid of `shape`, with its margin.

    In float32 like the package, since the last bit can decide to which voxel a half is rounded.
    """
    bounds = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        inside = np.flatnonzero(brain.mean(axis=others) > _LEAST_SHARE)
        if not len(inside):
            return None
        bounds.append((inside[0], inside[-1] + 1))
    first, last = torch.tensor(np.array(bounds), dtype=torch.float32).T
    scale = torch.tensor(shape) / torch.tensor(brain.shape)
    centre = (scale * ((first + last) / 2)).round()
    size = ((1 + 2 * torch.tensor(_MARGIN)) * (scale * (last - first))).round()
    low, high = (centre - size / 2).int().tolist(), (centre + size / 2).int().tolist()
    k, j, i = (slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, shape, strict=True))
    return (k, j, i) if all(side.stop > side.start for side in (k, j, i)) else None


def _largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 26-connected component; an empty mask stays empty."""
    import cc3d

    components, number = cc3d.connected_components(mask, return_N=True)
    if number < 2:
        return mask
    return components == np.bincount(components[mask]).argmax()


def _without_islands(mask: np.ndarray) -> np.ndarray:
    """The largest component with its cavities filled; looks only into the box around the mask."""
    import fill_voids

    if not mask.any():
        return mask
    box = bounding_box(mask)
    whole = np.zeros_like(mask)
    whole[box] = fill_voids.fill(_largest_component(mask[box]))
    return whole
