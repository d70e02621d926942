"""A target made of a torch network, a working grid and an intensity window; differentiable.

The reference target and TorchScript files are both this; what is particular to them is in their own files.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from MedShieldLib.errors import InputError
from MedShieldLib.targets import window as windows
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.volume import Structure, Volume

# Corrections in `unwindow`; the residual falls by about half with each where grids do not fit.
_BACK_PROJECTIONS = 4
# A bound of 2 intensity units may arrive as 1.99998; it still allows 2.
_FLOAT32_SLACK = 3e-5


class NetworkTarget:
    """A torch module (1, 1, K', J', I') -> (1, C, K', J', I') logits, as a target.

    Args:
        name: the target's name.
        network: the module; its parameters are frozen here.
        structures: one per class 1..C-1; class n gets the label value of structure n.
        sha256: hash of the weights.
        spacing: mm of the network's grid along (i', j', k').
        orientation: of that grid, such as "LPS".
        window: intensities that map to [0, 1].
        patch_size: (k', j', i') for MONAI's sliding window; None runs the whole volume at once.
        divisor: the network needs grid sizes that are multiples of this; the rest is padded.
    """

    def __init__(
        self,
        name: str,
        network: torch.nn.Module,
        structures: tuple[Structure, ...],
        sha256: str,
        spacing: tuple[float, float, float],
        orientation: str = "LPS",
        window: windows.Window | None = None,
        patch_size: tuple[int, int, int] | None = None,
        divisor: int = 1,
    ) -> None:
        self.name, self.structures, self.sha256 = name, tuple(structures), sha256
        self.network = network.eval().requires_grad_(False)
        self.spacing, self.orientation = spacing, orientation
        self.window_rule = window or windows.Window()
        self.patch_size, self.divisor = patch_size, divisor

    @property
    def finest_mm(self) -> float:
        """The smallest voxel size that the network sees."""
        return min(self.spacing)

    def probabilities(self, volume: Volume) -> np.ndarray:
        """float32 (C, K', J', I'); see `Target.probabilities`."""
        with torch.inference_mode():
            return torch.softmax(self.logits(self.window(volume)), dim=1)[0].numpy()

    def labelmap(self, probabilities: np.ndarray, volume: Volume) -> np.ndarray:
        """uint8 (K, J, I): the most probable class after resampling, class by class to spare memory."""
        grid = self._grid(volume)
        values = (0, *(s.value for s in self.structures))
        with torch.inference_mode():
            best = grid.from_grid(torch.from_numpy(np.ascontiguousarray(probabilities[0])))
            labels = torch.zeros(best.shape, dtype=torch.uint8)
            for value, channel in zip(values[1:], probabilities[1:], strict=True):
                candidate = grid.from_grid(torch.from_numpy(np.ascontiguousarray(channel)))
                labels[candidate > best] = value
                torch.maximum(best, candidate, out=best)
        return labels.numpy()

    def window(self, volume: Volume) -> torch.Tensor:
        """(1, 1, K', J', I') in [0, 1]."""
        gridded = self._gridded(volume)
        return windows.apply(gridded, self.window_rule.bounds(gridded))[None, None]

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(1, C, K', J', I') for (1, 1, K', J', I') in [0, 1].

        Raises:
            InputError: if the network refuses one channel, or answers with NaN or another shape.
        """
        wanted = (1, len(self.structures) + 1, *x.shape[2:])
        try:
            answer = self._run(x)
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(
                f"Target '{self.name}' cannot take one channel of {tuple(x.shape[2:])} voxels ({first}); "
                "check the model's input channels and patch size."
            ) from error
        if not isinstance(answer, torch.Tensor) or tuple(answer.shape) != wanted:
            got = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
            raise InputError(
                f"Target '{self.name}' answered with {got} instead of {wanted}; check the number of labels."
            )
        if not torch.isfinite(answer.detach()).all():
            raise InputError(f"Target '{self.name}' answered with NaN or Inf for this volume; it cannot be used here.")
        return answer

    def unwindow(self, x: torch.Tensor, volume: Volume) -> Volume:
        """`volume` plus the change from its window to `x`; see `DifferentiableTarget.unwindow`."""
        grid, gridded = self._grid(volume), self._gridded(volume)
        low, high = self.window_rule.bounds(gridded)
        change = (x.detach()[0, 0] - windows.apply(gridded, (low, high))) * (high - low)
        limit = float(change.abs().max())
        spread = grid.spread(change)
        for _ in range(_BACK_PROJECTIONS):
            residual = change - grid.to_grid(spread)
            if float(residual.abs().max()) <= 1e-6 * max(limit, 1e-12):
                break
            spread = (spread + grid.spread(residual)).clamp(-limit, limit)
        return add_within(volume, spread.numpy())

    def _grid(self, volume: Volume) -> WorkingGrid:
        return WorkingGrid.of(volume, self.orientation, self.spacing)

    def _gridded(self, volume: Volume) -> torch.Tensor:
        voxels = np.ascontiguousarray(volume.voxels, dtype=np.float32)
        return self._grid(volume).to_grid(torch.from_numpy(voxels))

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        if self.patch_size is not None:
            from monai.inferers import sliding_window_inference

            return sliding_window_inference(x, self.patch_size, 1, self.network, overlap=0.5, mode="gaussian")
        padding = [(0, -n % self.divisor) for n in reversed(x.shape[2:])]
        answer = self.network(F.pad(x, [n for pair in padding for n in pair]))
        if isinstance(answer, torch.Tensor) and answer.dim() == 5:
            answer = answer[:, :, : x.shape[2], : x.shape[3], : x.shape[4]]
        return answer


def add_within(volume: Volume, change: np.ndarray) -> Volume:
    """`volume` + `change` in the volume's data type, never further from it than the largest change.

    Integers are rounded within that bound, so that it outlives being written to a file. (Rounding all of
    them towards the original would keep it too, but would halve a small change, and so flatter the defence.)
    """
    voxels = volume.voxels
    if np.issubdtype(voxels.dtype, np.integer):
        info = np.iinfo(voxels.dtype)
        bound = np.floor(np.abs(change).max() * (1 + _FLOAT32_SLACK))
        whole = np.rint(change).clip(-bound, bound).astype(np.int64)
        moved = np.clip(voxels.astype(np.int64) + whole, info.min, info.max)
        return volume.with_voxels(moved.astype(voxels.dtype))
    return volume.with_voxels((voxels.astype(np.float64) + change).astype(voxels.dtype))
