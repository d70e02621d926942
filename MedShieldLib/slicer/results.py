"""A check's result in the scene: which nodes it has, how they are made, and how they are found again.

The scene is the state. The record, a text node with `result.json`, refers to all other nodes of its result,
so that a saved scene shows the same verdict when it is opened again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import vtk

from MedShieldLib.result import CheckResult
from MedShieldLib.slicer import heatmap as heatmaps
from MedShieldLib.slicer.nodes import add_segmentation, add_volume, hierarchy_item, place_beside
from MedShieldLib.slicer.plots import add_spectrum_chart
from MedShieldLib.slicer.tables import add_agreement_table, add_evidence_table
from MedShieldLib.slicer.text import _

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLTextNode

_MARK = "MedShield.Result"
_ROLE = "MedShield."
_INPUT = "input"


@dataclass(frozen=True)
class Result:
    """A result in the scene, through its record.

    Any of its nodes may be gone: the user may delete what they like.
    """

    record: vtkMRMLTextNode

    @cached_property
    def data(self) -> dict[str, Any]:
        """The content of `result.json`."""
        return json.loads(self.record.GetText())

    def node(self, role: str) -> vtkMRMLNode | None:
        """One node of the result: input, original, defended, reformed, heatmap, agreement, evidence, ..."""
        return self.record.GetNodeReference(_ROLE + role)

    def put(self, role: str, node: vtkMRMLNode) -> None:
        """Make a node part of the result and keep it where the result's other nodes are."""
        self.record.SetNodeReferenceID(_ROLE + role, node.GetID())
        hierarchy, item = hierarchy_item(self.record)
        place_beside(node, self.record, hierarchy.GetItemParent(item))
        _follow(node, self.node(_INPUT))


def add_result(result: CheckResult, record_text: str, report: str, source: vtkMRMLScalarVolumeNode) -> Result:
    """Bring a result into the scene of `source`, the volume that was checked; all of it or nothing.

    Args:
        result: the outcome.
        record_text: the content of `result.json`.
        report: the content of `report.html`; empty if none could be made.
        source: the checked volume; its transform and its place in the subject hierarchy are taken over.
    """
    scene, name = source.GetScene(), source.GetName()
    with all_or_nothing(scene):
        record = _add_text(scene, _("{name} - MedShield result").format(name=name), record_text)
        record.SetAttribute(_MARK, "1")
        record.SetNodeReferenceID(_ROLE + _INPUT, source.GetID())
        added = Result(record)
        nodes = {role: make() for role, make in _makers(result, report, source).items()}
        heatmaps.style(nodes["heatmap"], threshold=0.5)
    _file_in_folder(record, source)
    for role, node in nodes.items():
        added.put(role, node)
    for node in _plot_parts(nodes["spectrum"]):
        place_beside(node, record)
    return added


def _makers(
    result: CheckResult, report: str, source: vtkMRMLScalarVolumeNode
) -> dict[str, Callable[[], vtkMRMLNode]]:
    scene, name = source.GetScene(), source.GetName()

    def title(text: str) -> str:
        return text.format(name=name)

    return {
        "original": lambda: add_segmentation(
            scene, result.original, title(_("{name} - original segmentation")), source
        ),
        "defended": lambda: add_segmentation(
            scene, result.defended, title(_("{name} - defended segmentation")), source
        ),
        "reformed": lambda: add_volume(scene, result.reformed, title(_("{name} - reformed"))),
        "heatmap": lambda: add_volume(scene, result.heatmap, title(_("{name} - heatmap"))),
        "agreement": lambda: add_agreement_table(
            scene, result.structures, title(_("{name} - agreement of original and defended"))
        ),
        "evidence": lambda: add_evidence_table(scene, result.evidence, title(_("{name} - evidence"))),
        "spectrum": lambda: add_spectrum_chart(scene, result.spectrum, title(_("{name} - spectrum"))),
        **(
            {"report": lambda: _add_text(scene, title(_("{name} - MedShield report")), report)}
            if report
            else {}
        ),
    }


def results_of(source: vtkMRMLNode | None) -> list[Result]:
    """All results for a volume that are in its scene, the oldest first."""
    if source is None:
        return []
    scene, kind = source.GetScene(), "vtkMRMLTextNode"
    nodes = [scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind))]
    found = [Result(node) for node in nodes if node.GetAttribute(_MARK)]
    return [result for result in found if result.node(_INPUT) is source]


@contextmanager
def all_or_nothing(scene: vtkMRMLScene) -> Iterator[None]:
    """Take out again every node that was added inside when something fails on the way."""
    added: list[vtkMRMLNode] = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def note(_caller: object, _event: str, node: vtkMRMLNode) -> None:
        added.append(node)

    tag = scene.AddObserver(scene.NodeAddedEvent, note)
    try:
        yield
    except BaseException:
        scene.RemoveObserver(tag)
        for node in reversed(added):
            scene.RemoveNode(node)
        raise
    scene.RemoveObserver(tag)


def _file_in_folder(record: vtkMRMLTextNode, source: vtkMRMLScalarVolumeNode) -> None:
    """A folder of the result's own, beside the input and so in the input's study."""
    hierarchy, item = hierarchy_item(source)
    name = hierarchy.GenerateUniqueItemName(_("MedShield: {name}").format(name=source.GetName()))
    folder = hierarchy.CreateFolderItem(hierarchy.GetItemParent(item), name)
    place_beside(record, source, folder)


def _follow(node: vtkMRMLNode, source: vtkMRMLNode | None) -> None:
    """Put what lies in space under the transform that the input is under."""
    if source is not None and node.IsA("vtkMRMLTransformableNode") and source.GetTransformNodeID():
        node.SetAndObserveTransformNodeID(source.GetTransformNodeID())


def _plot_parts(chart: vtkMRMLNode) -> list[vtkMRMLNode]:
    series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
    return [*series, series[0].GetTableNode()]


def _add_text(scene: vtkMRMLScene, name: str, text: str) -> vtkMRMLTextNode:
    node = scene.AddNewNodeByClass("vtkMRMLTextNode", scene.GenerateUniqueName(name))
    node.SetEncoding(vtk.VTK_ENCODING_UTF_8)
    node.SetText(text)
    return node
