"""Where networks compute. There is no GPU here, so what is tested is the way back from one that fails."""

from __future__ import annotations

import pytest
import torch

from MedShieldLib.targets.device import Placed, best, frozen


class FailsAwayFromHome(torch.nn.Module):
    """Doubles its input, but fails like a GPU until somebody moves it."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message, self.moves = message, 0

    def to(self, *args, **kwargs):
        self.moves += 1
        return super().to(*args, **kwargs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.moves < 2:
            raise torch.OutOfMemoryError(self.message)
        return 2 * x


def test_a_gpu_that_fails_hands_over_to_the_cpu() -> None:
    placed = Placed(FailsAwayFromHome("CUDA out of memory."), torch.device("cpu"))
    x = torch.ones(2, requires_grad=True)
    answer = placed(x)
    (gradient,) = torch.autograd.grad(answer.sum(), x)
    assert answer.tolist() == [2, 2] and gradient.tolist() == [2, 2]
    assert placed.device.type == "cpu"


def test_other_failures_are_not_hidden() -> None:
    placed = Placed(FailsAwayFromHome("expected 3 channels"), torch.device("cpu"))
    with pytest.raises(RuntimeError, match="3 channels"):
        placed(torch.ones(2))


def test_parameters_are_frozen_and_lie_on_the_best_device() -> None:
    network = frozen(torch.nn.Conv3d(1, 1, 1))
    for parameter in network.parameters():
        assert not parameter.requires_grad and parameter.device.type == best().type
