"""From the scene to files: the defended mask in three formats, the heatmap, the figures and the report.

What is written is what the scene holds now, with the user's edits. Asking before overwriting is the caller's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from MedShieldLib.errors import InputError
from MedShieldLib.slicer.nodes import segmentation_from_node, volume_from_node
from MedShieldLib.slicer.results import Result
from MedShieldLib.slicer.text import _

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLSegmentationNode


class Kind(Enum):
    """A kind of file; the value is the end of its name."""

    SEG_NRRD = "-defended.seg.nrrd"
    NIFTI = "-defended.nii.gz"
    DICOM_SEG = "-defended.dcm"
    HEATMAP = "-heatmap.nii.gz"
    JSON = "-result.json"
    REPORT = "-report.html"


def targets_of(result: Result, kinds: Iterable[Kind], folder: Path) -> dict[Kind, Path]:
    """Where each kind of file goes: named for the checked volume."""
    source = result.node("input")
    name = re.sub(r"[^\w.+-]+", "_", source.GetName() if source else "MedShield").strip("._") or "MedShield"
    return {kind: folder / f"{name}{kind.value}" for kind in kinds}


def export(result: Result, kind: Kind, path: Path, dicom_files: list[Path]) -> None:
    """Write one file, whole or not at all, over an existing one too.

    Args:
        result: whose nodes to write.
        kind: what to write.
        path: from `targets_of`.
        dicom_files: the source series, for DICOM SEG.

    Raises:
        InputError: if a node or a DICOM file is gone, or the file cannot be written.
    """
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(_("{folder} cannot be written; choose another folder.").format(folder=path.parent))
    if kind is Kind.DICOM_SEG and not dicom_files:
        raise InputError(_("The DICOM files of the volume are no longer where the database says."))
    _write(result, kind, path, dicom_files)


def comes_from_dicom(source: vtkMRMLNode | None, database: Any | None) -> bool:
    """Whether a volume came from the DICOM database; quicker than `dicom_files_of`."""
    identifiers = (source.GetAttribute("DICOM.instanceUIDs") or "").split() if source else []
    return bool(identifiers and database is not None and database.fileForInstance(identifiers[0]))


def dicom_files_of(source: vtkMRMLNode | None, database: Any | None) -> list[Path]:
    """The DICOM files that a volume came from, as far as they are still there; empty if it came from others.

    Args:
        source: the checked volume.
        database: Slicer's DICOM database (`slicer.dicomDatabase`), or None.
    """
    identifiers = (source.GetAttribute("DICOM.instanceUIDs") or "").split() if source else []
    if not identifiers or database is None:
        return []
    files = [Path(database.fileForInstance(identifier) or "-") for identifier in identifiers]
    return files if all(file.is_file() for file in files) else []


def default_folder(source: vtkMRMLNode | None, dicom_files: list[Path]) -> Path | None:
    """Where the input came from: the user's own place for this study."""
    if dicom_files:
        return dicom_files[0].parent
    storage = source.GetStorageNode() if source else None
    file = Path(storage.GetFileName()) if storage and storage.GetFileName() else None
    return file.parent if file and file.parent.is_dir() else None


def _write(result: Result, kind: Kind, path: Path, dicom_files: list[Path]) -> None:
    from MedShieldLib.export.replacing import replacing
    from MedShieldLib.export.segmentation import write_segmentation

    if kind is Kind.SEG_NRRD:
        _write_seg_nrrd(_part(result, "defended"), path)
    elif kind is Kind.NIFTI:
        write_segmentation(_defended(result), path)
    elif kind is Kind.DICOM_SEG:
        from MedShieldLib.export.dicom_seg import write_dicom_seg

        write_dicom_seg(_defended(result), dicom_files, path, target=result.data["target"]["name"])
    elif kind is Kind.HEATMAP:
        volume_from_node(_part(result, "heatmap")).write(path)
    else:
        node = result.record if kind is Kind.JSON else _part(result, "report")
        with replacing(path) as partial:
            Path(partial).write_text(node.GetText(), "utf-8")


def _defended(result: Result):
    return segmentation_from_node(_part(result, "defended"), _part(result, "input"))


def _write_seg_nrrd(node: vtkMRMLSegmentationNode, path: Path) -> None:
    """By Slicer's own writer, which keeps all that the user may have changed."""
    from MedShieldLib.export.replacing import replacing

    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetScene(node.GetScene())
    with replacing(path) as partial:
        storage.SetFileName(str(partial))
        if not storage.WriteData(node):
            raise InputError(_("{file} cannot be written; choose another folder.").format(file=path))


def _part(result: Result, role: str) -> vtkMRMLNode:
    node = result.node(role)
    if node is None:
        raise InputError(_("A node of this result was deleted; check the volume again."))
    return node
