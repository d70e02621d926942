"""How the heatmap looks: colours, threshold, legend, and the bands to choose from.

Which views show it is the layout's business.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import slicer

from MedShieldLib.slicer.text import _

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode

# Slicer ships the first; the second is built in, for a Slicer whose colour files are missing.
_COLORS = ("vtkMRMLColorTableNodeFileInferno.txt", "vtkMRMLColorTableNodeIron")


class Band(Enum):
    """What the heatmap shows: the verdict's own map, or how much the reformer took out of one frequency band.

    The value is the band's range as a share of the volume's Nyquist frequency.
    """

    VERDICT = (0.0, 0.0)
    LOW = (0.0, 0.25)
    MIDDLE = (0.25, 0.5)
    HIGH = (0.5, 1.0)

    @property
    def title(self) -> str:
        """Name for the user."""
        return {
            Band.VERDICT: _("Suspicion (as judged)"),
            Band.LOW: _("Removed below 1/4 Nyquist"),
            Band.MIDDLE: _("Removed from 1/4 to 1/2 Nyquist"),
            Band.HIGH: _("Removed above 1/2 Nyquist"),
        }[self]

    @property
    def role(self) -> str:
        """Under which name the band's volume belongs to a result."""
        return "heatmap" if self is Band.VERDICT else f"heatmap-{self.name.lower()}"


def style(heatmap: vtkMRMLScalarVolumeNode, threshold: float) -> None:
    """Colours over the range 0 to 1; nothing is drawn below `threshold`."""
    heatmap.CreateDefaultDisplayNodes()
    display = heatmap.GetDisplayNode()
    scene = heatmap.GetScene()
    display.SetAndObserveColorNodeID(next((c for c in _COLORS if scene.GetNodeByID(c)), _COLORS[-1]))
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 1.0)
    display.SetThreshold(threshold, 1.0)
    display.ApplyThresholdOn()


def show_legend(
    heatmap: vtkMRMLScalarVolumeNode, title: str, visible: bool, views: list[vtkMRMLNode]
) -> None:
    """The colour legend of a heatmap, in these views only."""
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(heatmap)
    if legend is None:
        if not visible:
            return
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(heatmap)
    legend.SetTitleText(title)
    legend.SetLabelFormat("%.1f")
    legend.SetNumberOfLabels(3)
    legend.SetSize(0.08, 0.45)
    legend.RemoveAllViewNodeIDs()
    for view in views:
        legend.AddViewNodeID(view.GetID())
    legend.SetVisibility(visible)
