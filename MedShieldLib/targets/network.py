"""A target made of a torch network, a working grid and an intensity window; differentiable.

The reference target and TorchScript files are both this; what is particular to them is in their own files.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from MedShieldLib.errors import InputError
from MedShieldLib.targets import window as windows
from MedShieldLib.targets.device import frozen
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.targets.recomputed import patchwise
from MedShieldLib.volume import Structure, Volume

# Corrections in `unwindow`; the residual falls by about half with each where grids do not fit.
_BACK_PROJECTIONS = 4
# A bound of 2 intensity units may arrive as 1.99998; it still allows 2.
_FLOAT32_SLACK = 3e-5
# Slices of a label map that are made at once.
_SLAB = 64

# Half the width, in cells, of a bridge that does not join two pieces.
_THREAD = 3
# A lead of background by so many logits is a probability of 1 in float32.
_CERTAIN = 20.0


class NetworkTarget:
    """A torch module (1, 1, K', J', I') -> (1, C, K', J', I') logits, as a target.

    Args:
        name: the target's name.
        network: the module; its parameters are frozen here, and it moves to a GPU if there is one.
        structures: one per class 1..C-1; class n gets the label value of structure n.
        sha256: hash of the weights.
        spacing: mm of the network's grid along (i', j', k').
        orientation: of that grid, such as "LPS".
        window: intensities that map to [0, 1].
        patch_size: (k', j', i') for MONAI's sliding window; None runs the whole volume at once.
        divisor: the network needs grid sizes that are multiples of this; the rest is padded.
        one_piece: the structures form one body; whatever does not touch it is dropped from answers.
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
        one_piece: bool = False,
    ) -> None:
        self.name, self.structures, self.sha256 = name, tuple(structures), sha256
        self.network = frozen(network)
        self.spacing, self.orientation = spacing, orientation
        self.finest_mm = min(spacing)
        self.window_rule = window or windows.Window()
        self.patch_size, self.divisor, self.one_piece = patch_size, divisor, one_piece

    def probabilities(self, volume: Volume) -> np.ndarray:
        """float32 (C, K', J', I'); see `Target.probabilities`."""
        with torch.inference_mode():
            answer = torch.softmax(self.logits(self.window(volume)), dim=1)[0].numpy()
        return _without_islands(answer) if self.one_piece else answer

    def labelmap(self, probabilities: np.ndarray, volume: Volume) -> np.ndarray:
        """uint8 (K, J, I): the most probable class after resampling, in slabs to spare memory."""
        if self.one_piece:  # a vote over several answers can have islands again
            probabilities = _without_islands(probabilities)
        grid, answers = self.grid(volume), torch.from_numpy(np.ascontiguousarray(probabilities))
        labels = torch.zeros(volume.voxels.shape, dtype=torch.uint8)
        with torch.inference_mode():
            for k in range(0, len(labels), _SLAB):
                rows = slice(k, k + _SLAB)
                best = grid.from_grid(answers[0], rows)
                for structure, answer in zip(self.structures, answers[1:], strict=True):
                    candidate = grid.from_grid(answer, rows)
                    labels[rows][candidate > best] = structure.value
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
        except (RuntimeError, torch.jit.Error) as error:
            reason = str(error).strip().rpartition("\n")[2].removeprefix("RuntimeError: ")
            raise InputError(
                f"Target '{self.name}' cannot take one channel of {tuple(x.shape[2:])} voxels ({reason}); "
                "check the model's input channels and patch size."
            ) from error
        if not isinstance(answer, torch.Tensor) or tuple(answer.shape) != wanted:
            got = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
            raise InputError(
                f"Target '{self.name}' answered with {got} instead of {wanted}; check the number of labels."
            )
        if not torch.isfinite(answer.detach()).all():
            raise InputError(f"Target '{self.name}' answered with NaN or Inf for this volume; use another.")
        return answer

    def postprocessed(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (1, C, K', J', I') with background for certain in islands; they pass no gradient on there.

        See `PostProcessing.postprocessed`.
        """
        islands = _islands(logits.detach()[0].argmax(0).cpu().numpy()) if self.one_piece else None
        if islands is None:
            return logits
        certain = torch.full_like(logits, -max(_CERTAIN, float(logits.detach().abs().max())))
        certain[:, 0] = 0
        return torch.where(torch.from_numpy(islands).to(logits.device), certain, logits)

    def unwindow(self, x: torch.Tensor, volume: Volume) -> Volume:
        """`volume` plus the change from its window to `x`; see `DifferentiableTarget.unwindow`."""
        grid, gridded = self.grid(volume), self._gridded(volume)
        low, high = self.window_rule.bounds(gridded)
        change = (x.detach()[0, 0] - windows.apply(gridded, (low, high))) * (high - low)
        limit = float(change.abs().max())
        spread = grid.spread(change)
        for _ in range(_BACK_PROJECTIONS):
            residual = change - grid.to_grid(spread)
            if float(residual.abs().max()) <= 1e-6 * max(limit, 1e-12):
                break
            spread.add_(grid.spread(residual)).clamp_(-limit, limit)
        return add_within(volume, spread.numpy())

    def grid(self, volume: Volume) -> WorkingGrid:
        """See `Target.grid`."""
        return WorkingGrid.of(volume, self.orientation, self.spacing)

    def _gridded(self, volume: Volume) -> torch.Tensor:
        return self.grid(volume).to_grid(volume.voxels)

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        if self.patch_size is not None:
            from monai.inferers import sliding_window_inference

            infer: Callable = sliding_window_inference
            return infer(x, self.patch_size, 1, patchwise(self.network), overlap=0.5, mode="gaussian")
        padding = [(0, -n % self.divisor) for n in reversed(x.shape[2:])]
        answer = self.network(F.pad(x, [n for pair in padding for n in pair]))
        if isinstance(answer, torch.Tensor) and answer.dim() == 5:
            answer = answer[:, :, : x.shape[2], : x.shape[3], : x.shape[4]]
        return answer


def _without_islands(probabilities: np.ndarray) -> np.ndarray:
    """(C, K', J', I') with background for certain in all but the largest piece."""
    islands = _islands(probabilities.argmax(0))
    if islands is None:
        return probabilities
    kept = np.where(islands, 0, probabilities)
    kept[0][islands] = 1
    return kept


def _islands(labels: np.ndarray) -> np.ndarray | None:
    """Where a label map (K', J', I') is found apart from its largest piece; None if there is none.

    Pieces are told apart after an erosion, so that a thread of voxels does not tie two of them together.
    What is background already stays as it is, so that the piece's own border does not move.
    """
    found = labels > 0
    pieces, count = ndimage.label(ndimage.binary_erosion(found, iterations=_THREAD))
    if count < 1:
        return None
    core = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return found & ~ndimage.binary_dilation(core, iterations=2 * _THREAD)


def add_within(volume: Volume, change: np.ndarray) -> Volume:
    """`volume` + `change` in the volume's data type, never further from it than the largest change.

    Integers are rounded within that bound, so that it outlives being written to a file. (Rounding all of
    them towards the original would keep it too, but would halve a small change, and so flatter the defence.)
    """
    bound = max(float(change.max()), -float(change.min()))
    move = _move_integers if np.issubdtype(volume.voxels.dtype, np.integer) else _move_floats
    moved = np.empty(volume.voxels.shape, volume.voxels.dtype)
    for k in range(len(moved)):  # slice by slice, for the steps between need wider numbers
        moved[k] = move(volume.voxels[k], change[k], bound)
    return volume.with_voxels(moved)


def _move_integers(voxels: np.ndarray, change: np.ndarray, bound: float) -> np.ndarray:
    info = np.iinfo(voxels.dtype)
    whole = np.floor(bound * (1 + _FLOAT32_SLACK))
    steps = np.rint(change).clip(-whole, whole).astype(np.int64)
    return np.clip(voxels.astype(np.int64) + steps, info.min, info.max)


def _move_floats(voxels: np.ndarray, change: np.ndarray, bound: float) -> np.ndarray:
    moved = (voxels.astype(np.float64) + change).astype(voxels.dtype)
    too_far = np.abs(moved.astype(np.float64) - voxels) > bound
    return np.where(too_far, np.nextafter(moved, voxels), moved)
