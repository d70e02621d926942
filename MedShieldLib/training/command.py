"""What the commands of this package share: arguments, a line of progress, and how weights are written."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from safetensors.torch import save_file


def parser(description: str | None) -> argparse.ArgumentParser:
    """With the folders of data and of checkpoints, and a shorter training for a trial."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("data", type=Path, help="folder with volumes/ and labels/")
    made.add_argument("--work", type=Path, required=True, help="for checkpoints; a rerun picks up there")
    made.add_argument("--iterations", type=int, help="of each training; default: as for the shipped weights")
    return made


def say(fraction: float, step: str) -> None:
    """Progress on one line that is written anew."""
    print(f"\r{fraction:6.1%}  {step}", end="", flush=True)


def save(network: torch.nn.Module, path: Path) -> None:
    """Write a network's weights, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    save_file({name: x.contiguous() for name, x in network.state_dict().items()}, temporary)
    os.replace(temporary, path)
