"""How the heatmap looks: colours, threshold, legend, and the bands to choose from.

Which views show it is the layout's business.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
import slicer

from MedShieldLib.slicer.text import _
from MedShieldLib.volume import Volume

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

    def label(self) -> str:
        """Name for the user, also in the panel's list."""
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


def removed(before: Volume, after: Volume, band: Band) -> Volume:
    """Local energy of what the reformer took out of a band, in [0, 1] (1 at the 99.9 % quantile)."""
    from MedShieldLib.converter import Spectrum, local_band_energy

    change = before.with_voxels(before.voxels.astype(np.float32) - after.voxels.astype(np.float32))
    nyquist = 0.5 / min(before.spacing)
    low, high = (share * nyquist for share in band.value)
    energy = local_band_energy(Spectrum.of(change), low, high, reach_mm=2 * min(before.spacing))
    top = float(np.quantile(energy, 0.999)) or 1.0
    return before.with_voxels(np.clip(energy / top, 0, 1).astype(np.float32))


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


def show_legend(heatmap: vtkMRMLScalarVolumeNode, title: str, views: list[vtkMRMLNode]) -> None:
    """The colour legend of a heatmap, in these views only; none at all without views."""
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(heatmap)
    if legend is None:
        if not views:
            return
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(heatmap)
    if legend is None:  # Slicer makes none without its Colors module
        return
    legend.SetTitleText(title)
    legend.SetLabelFormat("%.1f")
    legend.SetNumberOfLabels(3)
    legend.SetSize(0.08, 0.45)
    legend.RemoveAllViewNodeIDs()
    for view in views:
        legend.AddViewNodeID(view.GetID())
    legend.SetVisibility(bool(views))
