"""The comparison layout: original left, defended right, in three orientations, and the spectrum below.

MRML only: layout, slice, composite and plot view nodes. Slicer makes the widgets from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import slicer

from MedShieldLib.slicer.heatmap import show_legend

if TYPE_CHECKING:
    from slicer import (
        vtkMRMLApplicationLogic,
        vtkMRMLLayoutNode,
        vtkMRMLNode,
        vtkMRMLPlotChartNode,
        vtkMRMLScene,
        vtkMRMLSegmentationNode,
        vtkMRMLVolumeNode,
    )

# Any number that no other extension uses will do; it is stored in saved scenes.
LAYOUT_ID = 47309
SPECTRUM_VIEW = "MedShieldSpectrum"
_VIEW_GROUP = 47
_ORIENTATIONS = ("Axial", "Coronal", "Sagittal")


class Side(Enum):
    """One half of the comparison layout."""

    ORIGINAL = "Original"
    DEFENDED = "Defended"

    @property
    def color(self) -> str:
        """Colour of the view's bar: amber for what the model said, green for what MedShield recommends."""
        return "#D9822B" if self is Side.ORIGINAL else "#2E9E6B"

    def view_name(self, orientation: str) -> str:
        """The singleton tag of one of the side's slice views."""
        return f"MedShield{self.value}{orientation}"


@dataclass(frozen=True)
class Shown:
    """What the comparison layout shows; None where there is nothing to show."""

    volume: vtkMRMLVolumeNode | None
    original: vtkMRMLSegmentationNode | None
    defended: vtkMRMLSegmentationNode | None
    chart: vtkMRMLPlotChartNode | None = None

    def segmentation(self, side: Side) -> vtkMRMLSegmentationNode | None:
        return self.original if side is Side.ORIGINAL else self.defended


class ComparisonLayout:
    """Shows the comparison layout in a scene, and brings the earlier one back.

    Args:
        scene: the scene with the layout node.
        application: finds slice logics, to fit the views to their volume.
    """

    def __init__(self, scene: vtkMRMLScene, application: vtkMRMLApplicationLogic) -> None:
        self._scene, self._application = scene, application
        self._before: int | None = None

    @property
    def is_possible(self) -> bool:
        """Whether there are views to arrange (Slicer may run without a window)."""
        return self._layout_node() is not None

    @property
    def is_shown(self) -> bool:
        """Whether the views are arranged for comparison now."""
        node = self._layout_node()
        return node is not None and node.GetViewArrangement() == LAYOUT_ID

    def show(self, shown: Shown) -> None:
        """Arrange the views, with each segmentation in its own ones alone."""
        node = self._layout_node()
        if node is None:
            return
        if not node.IsLayoutDescription(LAYOUT_ID):
            node.AddLayoutDescription(LAYOUT_ID, _description())
        if not self.is_shown:
            self._before = node.GetViewArrangement()
            node.SetViewArrangement(LAYOUT_ID)
        self._fill(shown)

    def restore(self, defended: vtkMRMLSegmentationNode | None = None) -> None:
        """The layout from before `show`; there the defended segmentation is visible, the original is not."""
        node = self._layout_node()
        if node is not None and self.is_shown:
            node.SetViewArrangement(self._before or slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        if defended is not None and defended.GetDisplayNode() is not None:
            defended.GetDisplayNode().RemoveAllViewNodeIDs()
        self._before = None

    def set_foreground(self, volume: vtkMRMLVolumeNode | None, opacity: float, title: str) -> None:
        """Lay a volume, the heatmap, over the scan in all slice views of the layout, with its legend."""
        for composite in self._composites():
            before = self._scene.GetNodeByID(composite.GetForegroundVolumeID() or "")
            if before is not None and before is not volume:
                show_legend(before, title, [])
            composite.SetForegroundVolumeID(volume.GetID() if volume else None)
            composite.SetForegroundOpacity(opacity if volume else 0.0)
        if volume:
            show_legend(volume, title, self.slice_nodes(Side.DEFENDED)[:1])

    def restrict(self, segmentation: vtkMRMLSegmentationNode) -> None:
        """Show a segmentation on both sides and nowhere else."""
        restrict_to(segmentation, [view for side in Side for view in self.slice_nodes(side)])

    def jump_to(self, ras: tuple[float, float, float]) -> None:
        """Go to the slices through a point in RAS millimetres in all views of the layout."""
        for side in Side:
            for slice_node in self.slice_nodes(side):
                slice_node.JumpSliceByOffsetting(*ras)

    def slice_nodes(self, side: Side) -> list[vtkMRMLNode]:
        """The slice view nodes of one side: axial, coronal, sagittal; empty before the first `show`."""
        names = [side.view_name(orientation) for orientation in _ORIENTATIONS]
        found = [self._view("vtkMRMLSliceNode", name) for name in names]
        return [node for node in found if node is not None]

    def _fill(self, shown: Shown) -> None:
        for side in Side:
            restrict_to(shown.segmentation(side), self.slice_nodes(side))
        if shown.volume and shown.volume.GetDisplayNode() is None:
            shown.volume.CreateDefaultDisplayNodes()
        for composite in self._composites():
            composite.SetBackgroundVolumeID(shown.volume.GetID() if shown.volume else None)
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)
        plot_view = self._view("vtkMRMLPlotViewNode", SPECTRUM_VIEW)
        if plot_view is not None:
            plot_view.SetPlotChartNodeID(shown.chart.GetID() if shown.chart else None)
        self.fit()

    def fit(self) -> None:
        """Fit the slice views to the scan; again when their widgets have their final size."""
        for side in Side:
            for view in self.slice_nodes(side):
                logic = self._application.GetSliceLogicByLayoutName(view.GetLayoutName())
                if logic is not None:
                    logic.FitSliceToBackground()

    def _composites(self) -> Iterator[vtkMRMLNode]:
        names = {side.view_name(orientation) for side in Side for orientation in _ORIENTATIONS}
        for index in range(self._scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
            node = self._scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode")
            if node.GetLayoutName() in names:
                yield node

    def _view(self, kind: str, name: str) -> vtkMRMLNode | None:
        return self._scene.GetSingletonNode(name, kind)

    def _layout_node(self) -> vtkMRMLLayoutNode | None:
        return self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def restrict_to(segmentation: vtkMRMLSegmentationNode | None, views: list[vtkMRMLNode]) -> None:
    """Show a segmentation in these views only."""
    if segmentation is None:
        return
    segmentation.CreateDefaultDisplayNodes()
    display = segmentation.GetDisplayNode()
    display.RemoveAllViewNodeIDs()
    for view in views:
        display.AddViewNodeID(view.GetID())
    display.SetVisibility(True)


def _description() -> str:
    halves = "".join(f"<item>{_half(side)}</item>" for side in Side)
    return (
        '<layout type="vertical" split="true">'
        f'<item splitSize="750"><layout type="horizontal" split="true">{halves}</layout></item>'
        f'<item splitSize="250"><view class="vtkMRMLPlotViewNode" singletontag="{SPECTRUM_VIEW}">'
        '<property name="viewlabel" action="default">S</property></view></item></layout>'
    )


def _half(side: Side) -> str:
    axial, coronal, sagittal = (_slice_view(side, orientation) for orientation in _ORIENTATIONS)
    below = f'<layout type="horizontal">{coronal}{sagittal}</layout>'
    return f'<layout type="vertical">{axial}<item>{below}</item></layout>'


def _slice_view(side: Side, orientation: str) -> str:
    properties = {
        "orientation": orientation,
        "viewlabel": f"{side.value[0]}{orientation[0]}",
        "viewcolor": side.color,
        "viewgroup": _VIEW_GROUP,
    }
    inner = "".join(f'<property name="{k}" action="default">{v}</property>' for k, v in properties.items())
    tag = side.view_name(orientation)
    return f'<item><view class="vtkMRMLSliceNode" singletontag="{tag}">{inner}</view></item>'
