"""Gradients through a network patch by patch: what a patch needs going back is computed anew then.

An attack on a sliding window would otherwise hold the layers of all patches at once, and of a large volume
that is more than fits in memory. Gradient checkpointing (Chen et al. 2016) costs one more pass of each patch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Network = Callable[[torch.Tensor], torch.Tensor]


def patchwise(network: torch.nn.Module) -> Network:
    """The same answers and gradients, but only one patch's layers in memory; for frozen networks.

    A network whose own parameters are being trained comes back as it is.
    """
    if any(parameter.requires_grad for parameter in network.parameters()):
        return network

    def answer(patch: torch.Tensor) -> torch.Tensor:
        return _Recomputed.apply(patch, network)

    return answer


class _Recomputed(torch.autograd.Function):
    """PyTorch's own checkpoints either fail on TorchScript or refuse `torch.autograd.grad`."""

    @staticmethod
    def forward(ctx, patch: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        ctx.save_for_backward(patch)
        ctx.network = network
        return network(patch)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (patch,) = ctx.saved_tensors
        with torch.enable_grad():
            patch = patch.detach().requires_grad_()
            (towards_patch,) = torch.autograd.grad(ctx.network(patch), patch, gradient)
        return towards_patch, None
