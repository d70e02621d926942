"""`result.json`: the outcome of a check for machines, in the schema of `result.schema.json`.

Only numbers and words; voxels are in the files beside it (see `folder.py`).
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from MedShieldLib.result import (
    SCHEMA,
    CalibrationInfo,
    CheckResult,
    EvidenceItem,
    SpectrumProfile,
    StructureAgreement,
    TargetInfo,
    Verdict,
)

SCHEMA_FILE = Path(__file__).with_name("result.schema.json")
LIBRARIES = ("numpy", "scipy", "SimpleITK", "PyWavelets", "torch", "monai")


def dumps(result: CheckResult, files: Mapping[str, str]) -> str:
    """Strict JSON (NaN and infinity become null).

    Args:
        result: the outcome.
        files: what is in the files beside it -> file name.
    """
    # ASCII, since names of files need not be valid Unicode.
    return json.dumps(_plain(as_dict(result, files)), indent=2, allow_nan=False) + "\n"


def as_dict(result: CheckResult, files: Mapping[str, str]) -> dict[str, Any]:
    """The keys of `result.schema.json`, in the order in which a person wants to read them."""
    volume = result.volume
    return {
        "schema": SCHEMA,
        "version": result.version,
        "verdict": result.verdict.value,
        "p_attack": result.p_attack,
        "p_novelty": result.p_novelty,
        "alpha": result.alpha,
        "notes": result.notes,
        "structures": [_fields(structure) for structure in result.structures],
        "evidence": {
            name: _fields(item, but="name")
            for name, item in zip(_distinct([i.name for i in result.evidence]), result.evidence, strict=True)
        },
        "spectrum": _fields(result.spectrum),
        "target": _fields(result.target),
        "second_opinion": _fields(result.second) if result.second else None,
        "calibration": _fields(result.calibration),
        "input": {
            "source": str(volume.source) if volume.source else None,
            "shape_kji": volume.voxels.shape,
            "spacing_mm": volume.spacing,
            "type": str(volume.voxels.dtype),
        },
        "input_sha256": result.input_sha256,
        "seed": result.seed,
        "timings_s": result.timings_s,
        "libraries": library_versions(),
        "files": dict(files),
    }


def library_versions() -> dict[str, str]:
    """Versions of Python and of what the figures depend on."""
    versions = {"Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # for instance bundled without its metadata
            continue
    return versions


def parts_from(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `CheckResult` that `result.json` holds: all but volumes and segmentations.

    Args:
        data: the parsed file.

    Raises:
        KeyError, TypeError, ValueError: if it is not of this schema.
    """
    if data["schema"] != SCHEMA:
        raise ValueError(f"schema {data['schema']!r} instead of {SCHEMA!r}")
    return {
        "verdict": Verdict(data["verdict"]),
        "p_attack": _number(data["p_attack"]),
        "p_novelty": _number(data["p_novelty"]),
        "alpha": _number(data["alpha"]),
        "evidence": tuple(_evidence(name, item) for name, item in data["evidence"].items()),
        "structures": tuple(_structure(item) for item in data["structures"]),
        "spectrum": SpectrumProfile(**{key: _array(values) for key, values in data["spectrum"].items()}),
        "timings_s": {name: _number(seconds) for name, seconds in data["timings_s"].items()},
        "target": TargetInfo(**data["target"]),
        "calibration": CalibrationInfo(**data["calibration"]),
        "input_sha256": str(data["input_sha256"]),
        "seed": int(data["seed"]),
        "version": str(data["version"]),
        "notes": tuple(str(note) for note in data["notes"]),
        "second": TargetInfo(**data["second_opinion"]) if data.get("second_opinion") else None,
    }


def _evidence(name: str, item: Mapping[str, Any]) -> EvidenceItem:
    value, percentile = _number(item["value"]), _number(item["percentile"])
    return EvidenceItem(name, str(item["kind"]), value, percentile, _array(item["clean"]))


def _structure(item: Mapping[str, Any]) -> StructureAgreement:
    figures = (_number(item[key]) for key in ("dice", "hd95_mm", "original_ml", "defended_ml"))
    return StructureAgreement(int(item["label"]), str(item["name"]), *figures)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names as keys: a second "a" becomes "a (2)"."""
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        seen[name] += 1
        keys.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return keys


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _array(values: list[float | None]) -> np.ndarray:
    return np.array([_number(value) for value in values], dtype=np.float64)


def _fields(record: Any, but: str = "") -> dict[str, Any]:
    """The fields of a dataclass, without copying what is in them."""
    return {name: value for name, value in vars(record).items() if name != but}


def _plain(value: Any) -> Any:
    """Numbers, lists and dicts of Python's own; null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
