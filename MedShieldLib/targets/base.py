"""What MedShield asks of a model under protection: volume in, per-class probabilities out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from MedShieldLib.errors import InputError
from MedShieldLib.volume import Structure, Volume

if TYPE_CHECKING:
    import torch

    from MedShieldLib.targets.grid import WorkingGrid


@runtime_checkable
class Target(Protocol):
    """A segmentation model under protection, used as a black box.

    Attributes:
        name: short name, stored with calibrations and results.
        structures: the structures segmented; label 0 is background and is not listed.
        sha256: hash of the weights.
        finest_mm: the smallest voxel size that the model sees, in mm; finer detail cannot matter to it.
    """

    name: str
    structures: tuple[Structure, ...]
    sha256: str
    finest_mm: float

    def grid(self, volume: Volume) -> WorkingGrid:
        """How the working grid lies in the volume; it depends on the volume's geometry alone."""

    def probabilities(self, volume: Volume) -> np.ndarray:
        """Float array (C, K', J', I') in [0, 1], channel 0 = background, on the target's working grid.

        The grid never depends on the voxels, so that answers to several versions of one volume can be
        compared and averaged voxel by voxel.

        Raises:
            InputError: if the volume cannot be segmented or the model answers with NaN or a wrong shape.
        """

    def labelmap(self, probabilities: np.ndarray, volume: Volume) -> np.ndarray:
        """uint8 label values (K, J, I) on the grid of `volume`, with the model's own post-processing."""


@runtime_checkable
class DifferentiableTarget(Target, Protocol):
    """A target that also shows its insides, so that attacks can be run against it."""

    def window(self, volume: Volume) -> torch.Tensor:
        """The network's input, (1, 1, K', J', I') in [0, 1].

        The voxels brought to the working grid (see `on_points`), then scaled, shifted and clipped, each
        point alike: attacks take that for granted, and gradients through anything else come out wrong.
        """

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(1, C, K', J', I') for such an input, differentiable."""

    def unwindow(self, x: torch.Tensor, volume: Volume) -> Volume:
        """`volume` changed so that its window becomes `x`, in its own grid, intensity units and data type.

        The change is at most max|x - window(volume)| of the intensity window in every voxel.
        """


@runtime_checkable
class Trainable(DifferentiableTarget, Protocol):
    """A differentiable target whose weights may be trained on, for a copy that is harder to mislead.

    Attributes:
        network: what gradients run through; its weights decide the answers.
    """

    network: torch.nn.Module


@runtime_checkable
class Sampling(Protocol):
    """A differentiable target that brings voxels to its points in another way than `WorkingGrid.to_grid`."""

    def sampled(self, voxels: torch.Tensor, volume: Volume) -> torch.Tensor:
        """(K, J, I) of `volume` to (K', J', I'), differentiable: what `window` does before it scales."""


@runtime_checkable
class PostProcessing(Protocol):
    """A differentiable target whose `probabilities` are more than the softmax of its `logits`."""

    def postprocessed(self, logits: torch.Tensor) -> torch.Tensor:
        """(1, C, K', J', I') like `logits`, whose softmax `probabilities` answers; differentiable."""


def on_points(target: DifferentiableTarget, voxels: torch.Tensor, volume: Volume) -> torch.Tensor:
    """(K, J, I) of a volume, float32, to what the target's network sees of it before any window.

    Attacks differentiate it in place of `window`, which has to be this, scaled, shifted and clipped.
    """
    if isinstance(target, Sampling):
        return target.sampled(voxels, volume)
    return target.grid(volume).to_grid(voxels)


def answered_logits(target: DifferentiableTarget, x: torch.Tensor) -> torch.Tensor:
    """(1, C, K', J', I'): what stands behind `target.probabilities` of the volume whose window is `x`."""
    logits = target.logits(x)
    return target.postprocessed(logits) if isinstance(target, PostProcessing) else logits


def answer_of(target: Target, volume: Volume) -> np.ndarray:
    """`target.probabilities(volume)`, if it is what a target has to answer.

    Raises:
        InputError: if the volume cannot be segmented, or the answer has another shape, NaN or infinity.
    """
    answer = target.probabilities(volume)
    classes = len(target.structures) + 1
    if answer.ndim != 4 or answer.shape[0] != classes:
        raise InputError(
            f"Target '{target.name}' answered with shape {answer.shape}; expected {classes} classes in 3D."
        )
    if not np.isfinite(answer).all():
        raise InputError(
            f"Target '{target.name}' answered with NaN or Inf for this volume; it cannot be used here."
        )
    return answer
