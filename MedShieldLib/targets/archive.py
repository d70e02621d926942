"""What a TorchScript file must look like before PyTorch may open it.

A TorchScript file is a zip of its program as text, its tensors and restricted pickles; files of torch.save
look much the same, but hold pickles that can run anything. Nothing here unpickles or runs.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from pathlib import Path

from MedShieldLib.errors import InputError

_EXPORT = "export the model with torch.jit.trace(model, example).save('model.pt')"

# Tensors are stored as they are and only the program's text is compressed: more is a zip bomb.
_MOST_GROWTH = 2
_MOST_PROGRAM = 2**26

# What a program could use to reach files and other machines; no network needs it to compute.
_OUTSIDE = re.compile(rb"\b(save|from_file|load_tensor|rpc_\w+|\w*c10d\w*|symm_mem)\b")


def inspect(data: bytes, path: Path) -> None:
    """Let only a TorchScript file pass.

    Args:
        data: the whole file.
        path: its name, for messages.

    Raises:
        InputError: if it is something else (a pickle, a state dict), is broken, would grow without measure
            when unpacked, or holds a program that reaches for files or the network.
    """
    # PyTorch reads from the first byte on; Python would also find a zip behind other data.
    if not data.startswith(b"PK\x03\x04"):
        raise InputError(f"{path} is not a TorchScript file (perhaps a pickle or a checkpoint); {_EXPORT}.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _inspect_entries(archive, path)
            _inspect_sizes(archive, len(data), path)
            _inspect_program(archive, path)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise InputError(f"{path} is damaged ({error}); copy or export it again.") from error


def _inspect_entries(archive: zipfile.ZipFile, path: Path) -> None:
    # PyTorch looks entries up regardless of case.
    names = [entry.filename.lower() for entry in archive.infolist()]
    inner = {name.partition("/")[2] for name in names}
    if not any(_is_program(name) for name in names) or not {"data.pkl", "constants.pkl"} <= inner:
        raise InputError(f"{path} holds weights or a pickle, not a TorchScript program; {_EXPORT}.")
    roots = {name.partition("/")[0] for name in names}
    odd = any("\\" in name or ".." in name.split("/") or name.startswith("/") for name in names)
    if odd or len(roots) != 1 or len(set(names)) != len(names):
        raise InputError(f"{path} is not built as PyTorch builds TorchScript files; {_EXPORT}.")


def _inspect_sizes(archive: zipfile.ZipFile, stored: int, path: Path) -> None:
    total = sum(entry.file_size for entry in archive.infolist())
    program = sum(entry.file_size for entry in archive.infolist() if "/code/" in entry.filename.lower())
    if program > _MOST_PROGRAM or total - program > _MOST_GROWTH * stored:
        raise InputError(f"{path} would unpack to {total / 2**20:,.0f} MB, as no model does; do not open it.")


def _inspect_program(archive: zipfile.ZipFile, path: Path) -> None:
    for entry in archive.infolist():
        found = _OUTSIDE.search(archive.read(entry)) if _is_program(entry.filename.lower()) else None
        if found:
            raise InputError(
                f"The program in {path} uses '{found[0].decode()}', which can reach files or other machines; "
                "a segmentation model needs nothing of the kind, so it is refused."
            )


def _is_program(name: str) -> bool:
    """Whether an entry (lower case) is TorchScript code; debug records beside it are never run."""
    return name.partition("/")[2].startswith("code/") and not name.endswith(".debug_pkl")
