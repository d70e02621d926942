"""Where a network computes: on a GPU where PyTorch finds one, else on the CPU.

The rest of MedShield knows CPU tensors only, so that attacks and filters need not care.
"""

from __future__ import annotations

import torch


def best() -> torch.device:
    """A CUDA GPU if there is one; `CUDA_VISIBLE_DEVICES=-1` in the environment hides it."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Placed(torch.nn.Module):
    """A network on a device that takes and returns CPU tensors; differentiable like the network itself.

    When a GPU fails (too little memory, too old for this PyTorch), the network moves to the CPU for good.
    """

    def __init__(self, network: torch.nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device = network.to(device), device

    def forward(self, x: torch.Tensor) -> object:
        """The network's answer, on the CPU if it is a tensor."""
        try:
            answer = self.network(x.to(self.device))
        except RuntimeError as error:
            if "CUDA" not in str(error):
                raise
            self.device = torch.device("cpu")
            self.network.to(self.device)
            answer = self.network(x)
        return answer.cpu() if isinstance(answer, torch.Tensor) else answer


def frozen(network: torch.nn.Module) -> torch.nn.Module:
    """The network on the best device, in evaluation mode, without gradients for its parameters."""
    for parameter in network.eval().parameters():
        parameter.requires_grad_(False)
    device = best()
    return network if device.type == "cpu" else Placed(network, device)


def bare(network: torch.nn.Module) -> torch.nn.Module:
    """The network itself, wherever it is placed: its weights have the same names on every device."""
    return network.network if isinstance(network, Placed) else network
