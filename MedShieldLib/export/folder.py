"""The folder of results of one check: all files of it or none, and never anybody else's.

What is in the files is decided elsewhere (`json_result.py`, `report.py`, `segmentation.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import uuid
import warnings
from dataclasses import replace
from pathlib import Path

from MedShieldLib.errors import InputError
from MedShieldLib.extras import how_to_install
from MedShieldLib.refusals import require_plain_name
from MedShieldLib.result import CheckResult, Verdict
from MedShieldLib.volume import Volume

RESULT = "result.json"
REPORT = "report.html"
VOLUMES = {"original": "original.nii.gz", "reformed": "reformed.nii.gz", "heatmap": "heatmap.nii.gz"}
SEGMENTATIONS = {
    "original_segmentation": "original_segmentation.nii.gz",
    "original_segmentation_slicer": "original_segmentation.seg.nrrd",
    "defended_segmentation": "defended_segmentation.nii.gz",
    "defended_segmentation_slicer": "defended_segmentation.seg.nrrd",
}
# A folder that holds RESULT is complete: it is taken away first and comes last.
OWN_FILES = (RESULT, REPORT, *VOLUMES.values(), *SEGMENTATIONS.values())


def save_result(result: CheckResult, folder: str | Path, force: bool = False, report: bool = True) -> Path:
    """Write all results to `folder`, made if need be; when that fails or is interrupted, nothing has changed.

    Args:
        result: the outcome of a check.
        folder: where to; files that are not ours stay as they are.
        force: replace the results that `folder` holds.
        report: write `report.html` too (needs matplotlib and jinja2; without them there is a warning).

    Returns:
        `folder`.

    Raises:
        InputError: see `require_output_folder`; also when the disk is full.
    """
    folder = Path(folder)
    require_output_folder(folder, force)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    # Beside the final place in the same file system, so that the last step is a rename.
    staging = (folder.parent if missing else folder) / f".medshield-{uuid.uuid4().hex[:12]}"
    try:
        staging.mkdir(parents=True)
        _write_files(result, staging, report)
        if missing:
            os.rename(staging, folder)
        else:
            _swap(staging, folder)
        missing = []
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
    return folder


def load_result(folder: str | Path) -> CheckResult:
    """The result that `save_result` wrote to `folder`.

    Raises:
        InputError: if there is none, or it is damaged or of another schema.
    """
    from MedShieldLib.export.json_result import parts_from
    from MedShieldLib.export.segmentation import read_segmentation

    folder = Path(folder)
    try:
        data = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        parts = parts_from(data)
        source = data["input"]["source"]
    except OSError as error:
        raise InputError(f"{folder} holds no results of a check; {RESULT} is missing.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / RESULT} is damaged or of another version; check again.") from error
    volumes = {name: Volume.read(folder / file) for name, file in VOLUMES.items()}
    original = read_segmentation(folder / SEGMENTATIONS["original_segmentation_slicer"])
    defended = original
    if parts["verdict"] is not Verdict.CLEAN:
        defended = read_segmentation(folder / SEGMENTATIONS["defended_segmentation_slicer"])
    return CheckResult(
        volume=replace(volumes["original"], source=Path(source) if source else None),
        reformed=volumes["reformed"],
        heatmap=volumes["heatmap"],
        original=original,
        defended=defended,
        **parts,
    )


def require_output_folder(folder: str | Path, force: bool = False) -> None:
    """Make sure, also before any computation, that results can be written to `folder`; changes nothing.

    Raises:
        InputError: if it is a file, cannot be created or written, or holds results and `force` is False.
    """
    folder = Path(folder)
    require_plain_name(folder)
    try:
        if not folder.is_dir() and os.path.lexists(folder):
            raise InputError(f"{folder} is not a folder; choose another name for the results.")
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=place):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{folder} cannot be written ({reason}); choose another folder.") from error
    present = [folder / name for name in OWN_FILES if os.path.lexists(folder / name)]
    if present and not force:
        raise InputError(f"{folder} holds results already; choose another folder or replace them by --force.")
    for path in present:
        if path.is_dir() and not path.is_symlink():
            raise InputError(f"{path} is a folder where a file has to go; move it away.")


def _write_files(result: CheckResult, folder: Path, report: bool) -> None:
    from MedShieldLib.export.json_result import dumps
    from MedShieldLib.export.segmentation import write_segmentation

    for volume, name in zip((result.volume, result.reformed, result.heatmap), VOLUMES.values(), strict=True):
        volume.write(folder / name)
    for role, name in SEGMENTATIONS.items():
        write_segmentation(result.original if role.startswith("original") else result.defended, folder / name)
    files = {"original": VOLUMES["original"], **VOLUMES, **SEGMENTATIONS}
    if report and _write_report(result, folder / REPORT):
        files["report"] = REPORT
    (folder / RESULT).write_text(dumps(result, files), encoding="utf-8")


def _write_report(result: CheckResult, path: Path) -> bool:
    try:
        from MedShieldLib.export.report import render_report
    except ModuleNotFoundError as error:  # results must not be lost for want of a picture
        warnings.warn(f"{path.name} is not written. {how_to_install(error)}", stacklevel=2)
        return False
    path.write_text(render_report(result), encoding="utf-8", errors="replace")
    return True


def _swap(staging: Path, folder: Path) -> None:
    """Put the files of `staging` in place of our own in `folder`; undone when interrupted."""
    old = staging / "old"
    old.mkdir()
    new = [name for name in reversed(OWN_FILES) if (staging / name).exists()]
    try:
        for name in OWN_FILES:
            if os.path.lexists(folder / name):
                os.replace(folder / name, old / name)
        for name in new:
            os.replace(staging / name, folder / name)
    except BaseException:
        for name in new:
            if not (staging / name).exists():
                (folder / name).unlink(missing_ok=True)
        for path in old.iterdir():
            os.replace(path, folder / path.name)
        raise
