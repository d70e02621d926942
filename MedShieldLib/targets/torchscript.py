"""Any segmentation model as a target: a TorchScript file and a small JSON that describes it.

The description is read in `description.py`; what may be opened at all is decided in `archive.py`.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch

from MedShieldLib.errors import InputError
from MedShieldLib.targets import archive, description
from MedShieldLib.targets.network import NetworkTarget

# Keeps the logarithm of a probability finite where float32 has no smaller number to give.
_TINY = 1e-30
# Rounding of a softmax in half precision.
_SLACK = 1e-2


def load(path: Path) -> NetworkTarget:
    """The target that a JSON file describes.

    Raises:
        InputError: if the description is wrong, or the model is not a TorchScript file that can be opened.
    """
    described = description.read(path)
    data = _read(described.model)
    archive.inspect(data, described.model)
    network = _script(data, described.model)
    if described.output == description.PROBABILITIES:
        network = _Logarithm(network, described.name)
    return NetworkTarget(
        described.name,
        network,
        described.structures,
        _sha256(data, described),
        described.spacing_mm,
        described.orientation,
        described.window,
        described.patch_size,
        described.divisor,
    )


class _Logarithm(torch.nn.Module):
    """Turns a model that answers with probabilities into one with logits."""

    def __init__(self, network: torch.nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer = self.network(x)
        if not isinstance(answer, torch.Tensor):
            return answer
        low, high = float(answer.detach().min()), float(answer.detach().max())
        if low < -_SLACK or high > 1 + _SLACK:
            raise InputError(
                f"Target '{self.name}' answers with {low:.3g} to {high:.3g}, which are no probabilities; "
                f'write "output": "{description.LOGITS}" in its JSON file.'
            )
        return answer.clamp(min=_TINY).log()


def _read(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        raise InputError(f"The model {model} cannot be read: {error.strerror}.") from error


def _script(data: bytes, model: Path) -> torch.nn.Module:
    try:
        return torch.jit.load(io.BytesIO(data), map_location="cpu")
    except Exception as error:  # PyTorch raises half a dozen types for a file that it cannot read
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        version = torch.__version__
        raise InputError(f"PyTorch {version} cannot open {model} ({reason}); export it again.") from error


def _sha256(data: bytes, described: description.Description) -> str:
    """Of the weights and of all that decides how they are used; names and colours do not."""
    use = (
        described.spacing_mm,
        described.orientation,
        described.window,
        described.patch_size,
        described.divisor,
        described.output,
        tuple(structure.value for structure in described.structures),
    )
    return hashlib.sha256(data + repr(use).encode()).hexdigest()
