"""Table nodes: agreement per structure, and the evidence beside its calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import vtk

from MedShieldLib.result import EvidenceItem, StructureAgreement
from MedShieldLib.slicer.text import _

if TYPE_CHECKING:
    from slicer import vtkMRMLScene, vtkMRMLTableNode


def add_agreement_table(
    scene: vtkMRMLScene, structures: Sequence[StructureAgreement], name: str
) -> vtkMRMLTableNode:
    """Original against defended segmentation, one row for each structure."""
    node = _add_table(scene, name)
    _add_column(node, _("Structure"), [s.name for s in structures])
    _add_column(node, "Dice", [s.dice for s in structures])
    _add_column(node, "HD95", [s.hd95_mm for s in structures], "mm")
    _add_column(node, _("Original"), [s.original_ml for s in structures], "ml")
    _add_column(node, _("Defended"), [s.defended_ml for s in structures], "ml")
    return node


def add_evidence_table(scene: vtkMRMLScene, evidence: Sequence[EvidenceItem], name: str) -> vtkMRMLTableNode:
    """Every number of the detector: its value, and where it lies among the calibration values."""
    node = _add_table(scene, name)
    _add_column(node, _("Evidence"), [item.name for item in evidence])
    _add_column(node, _("Kind"), [item.kind for item in evidence])
    _add_column(node, _("Value"), [item.value for item in evidence])
    _add_column(node, _("Percentile among clean volumes"), [item.percentile for item in evidence], "%")
    _add_column(node, _("Clean median"), [_median(item.clean) for item in evidence])
    return node


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if np.size(values) else float("nan")


def _add_table(scene: vtkMRMLScene, name: str) -> vtkMRMLTableNode:
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", scene.GenerateUniqueName(name))
    node.SetLocked(True)
    node.SetUseColumnTitleAsColumnHeader(True)
    return node


def _add_column(node: vtkMRMLTableNode, title: str, values: Sequence[str | float], unit: str = "") -> None:
    column = vtk.vtkStringArray() if any(isinstance(v, str) for v in values) else vtk.vtkDoubleArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(value)
    node.AddColumn(column)
    if unit:
        node.SetColumnUnitLabel(title, unit)
        node.SetColumnTitle(title, f"{title} ({unit})")
