"""The small JSON file that describes somebody else's model; every wrong entry gets one plain sentence.

What the file means is in docs/targets.md; running the model is in `torchscript.py`. No PyTorch here, so that
Slicer can ask about a model before it runs one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from MedShieldLib.errors import InputError
from MedShieldLib.targets.window import Window
from MedShieldLib.volume import Structure

LOGITS, PROBABILITIES = "logits", "probabilities"

# A description is a page of text at most.
_MOST_BYTES = 2**20
# JSON knows NaN, Infinity and whole numbers of any length.
_INFINITE = 1e9


@dataclass(frozen=True)
class Description:
    """A model and how to feed it.

    Attributes:
        model: the TorchScript file, beside the description.
        spacing_mm: voxel size of the model's grid along (i', j', k').
        structures: one per class 1..C-1.
        name: what results and calibrations call the target.
        orientation: of the model's grid; "LPS" means i' runs to the left, j' to posterior, k' to superior.
        window: intensities that map to [0, 1].
        patch_size: (k', j', i') of the sliding window; None gives the model the whole volume at once.
        divisor: grid sizes are padded to multiples of this.
        output: LOGITS or PROBABILITIES.
    """

    model: Path
    spacing_mm: tuple[float, float, float]
    structures: tuple[Structure, ...]
    name: str
    orientation: str = "LPS"
    window: Window = Window()
    patch_size: tuple[int, int, int] | None = None
    divisor: int = 1
    output: str = LOGITS


@dataclass(frozen=True)
class Copy:
    """A hardened copy of a target (`hardened.py`).

    Attributes:
        target: of which it is a copy: a built-in name, or the path of a JSON file that describes a model.
        weights: the safetensors file, beside the description.
        name: what results and calibrations call it.
    """

    target: str
    weights: Path
    name: str


def read_copy(path: Path) -> Copy | None:
    """Read and validate the description of a hardened copy; None if the file describes a model of its own.

    Raises:
        InputError: naming the file, the entry and what it must be.
    """
    raw = _read_json(path)
    if "hardened" not in raw:
        return None
    entries = {"name": path.stem, **_validated(path, raw, _COPY_ENTRIES, ("hardened", "weights"))}
    target = entries["hardened"]
    if target.endswith(".json"):
        target = str(path.parent / target)
        if "hardened" in _read_json(Path(target)):
            raise InputError(f"{path} is a copy of a copy, {target}; make one of the model itself.")
    return Copy(target, path.parent / entries["weights"], entries["name"])


def read(path: Path) -> Description:
    """Read and validate a description.

    Raises:
        InputError: naming the file, the entry and what it must be.
    """
    entries = _validated(path, _read_json(path), _ENTRIES, ("model", "spacing_mm", "structures"))
    return Description(**{"name": path.stem, **entries, "model": path.parent / entries["model"]})


def describe_foreign_code(name: str | Path) -> str | None:
    """What to ask the user before `load_target(name)`; None if the target's code is MedShield's own.

    Raises:
        InputError: if `name` is a JSON file that does not describe a model.
    """
    path = Path(name)
    if path.suffix != ".json":
        return None
    copy = read_copy(path)
    if copy is not None:
        return describe_foreign_code(copy.target)
    model = read(path).model
    return f"{model} is a program that will run on this computer; go on only if you trust its source."


class _Wrong(Exception):
    """What an entry must be."""


def _validated(
    path: Path, raw: dict[str, Any], known: dict[str, Callable[[Any], Any]], needed: tuple[str, ...]
) -> dict[str, Any]:
    unknown = sorted(raw.keys() - known.keys())
    if unknown:
        raise InputError(f"{path} has an unknown entry '{unknown[0]}'; use {', '.join(known)}.")
    missing = [key for key in needed if key not in raw]
    if missing:
        raise InputError(f"{path} has no entry '{missing[0]}'; it needs {_and(needed)}.")
    entries = {}
    for key, value in raw.items():
        try:
            entries[key] = known[key](value)
        except _Wrong as wrong:
            raise InputError(f"{path}: '{key}' must be {wrong}.") from None
    return entries


def _and(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is too large for a model's description; choose its JSON file.")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON file ({error}).") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} does not describe a model; it must hold entries in braces, such as model.")
    return raw


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _INFINITE


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _all(value: Any, count: int, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) == count and all(fits(v) for v in value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 200:
        raise _Wrong("a text that is not empty")
    return value


def _file_name(value: Any) -> str:
    name = _text(value)
    if name in (".", "..") or PurePosixPath(name).name != name or PureWindowsPath(name).name != name:
        raise _Wrong("the name of a file in the same folder")
    return name


def _spacing(value: Any) -> tuple[float, ...]:
    if not _all(value, 3, lambda v: _is_number(v) and v > 0):
        raise _Wrong("three numbers above 0, such as [1, 1, 1]")
    return tuple(map(float, value))


def _orientation(value: Any) -> str:
    axes = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}
    letters = value if isinstance(value, str) else ""
    if len(letters) != 3 or {axes.get(letter) for letter in letters} != {0, 1, 2}:
        raise _Wrong('three letters, one each of L/R, P/A and S/I, such as "LPS"')
    return letters


def _window(value: Any) -> Window:
    entries = list(value.items()) if isinstance(value, dict) else []
    if len(entries) == 1 and _all(entries[0][1], 2, _is_number):
        kind, (low, high) = entries[0]
        if kind == "range" and low < high:
            return Window(float(low), float(high), fixed=True)
        if kind == "percentiles" and 0 <= low < high <= 100:
            return Window(float(low), float(high))
    raise _Wrong('{"percentiles": [0.5, 99.5]} or {"range": [-160, 240]}, the smaller number first')


def _patch_size(value: Any) -> tuple[int, ...] | None:
    if value is not None and not _all(value, 3, lambda v: _is_whole(v) and 1 <= v <= 1024):
        raise _Wrong("null, or three whole numbers from 1 to 1024 (slices, rows, columns)")
    return None if value is None else tuple(value)


def _divisor(value: Any) -> int:
    if not _is_whole(value) or not 1 <= value <= 512:
        raise _Wrong("a whole number from 1 to 512")
    return value


def _output(value: Any) -> str:
    if value not in (LOGITS, PROBABILITIES):
        raise _Wrong(f'"{LOGITS}" or "{PROBABILITIES}"')
    return value


def _structures(value: Any) -> tuple[Structure, ...]:
    structures = [_structure(item) for item in value] if isinstance(value, list) else []
    if not structures or None in structures or len({s.value for s in structures if s}) != len(structures):
        raise _Wrong(
            'a list such as [{"value": 1, "name": "Liver", "color": [0.8, 0.4, 0.3]}], with values from 1 to '
            "255, each once, and colours from 0 to 1"
        )
    return tuple(s for s in structures if s)


def _structure(item: Any) -> Structure | None:
    if not isinstance(item, dict) or set(item) != {"value", "name", "color"}:
        return None
    value, color = item["value"], item["color"]
    good = _is_whole(value) and 1 <= value <= 255
    good = good and _all(color, 3, lambda v: _is_number(v) and 0 <= v <= 1)
    return Structure(value, _text(item["name"]), tuple(map(float, color))) if good else None  # type: ignore[arg-type]


_ENTRIES: dict[str, Callable[[Any], Any]] = {
    "model": _file_name,
    "name": _text,
    "spacing_mm": _spacing,
    "orientation": _orientation,
    "window": _window,
    "patch_size": _patch_size,
    "divisor": _divisor,
    "output": _output,
    "structures": _structures,
}
_COPY_ENTRIES: dict[str, Callable[[Any], Any]] = {"hardened": _text, "weights": _file_name, "name": _text}
