"""The spectrum as a plot node: this volume against the band of the calibration volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import slicer.util

from MedShieldLib.result import SpectrumProfile
from MedShieldLib.slicer.text import _

if TYPE_CHECKING:
    from slicer import vtkMRMLPlotChartNode, vtkMRMLScene

_VOLUME_COLOR = (0.83, 0.18, 0.18)
_BAND_COLOR = (0.30, 0.45, 0.60)


def add_spectrum_chart(scene: vtkMRMLScene, spectrum: SpectrumProfile, name: str) -> vtkMRMLPlotChartNode:
    """A chart of radial log10 power over cycles/mm, with its table and three series."""
    frequency = _("Frequency (cycles/mm)")
    curves = {
        _("This volume"): spectrum.log_power,
        _("Clean volumes, 5 %"): spectrum.clean_low,
        _("Clean volumes, 95 %"): spectrum.clean_high,
    }
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", scene.GenerateUniqueName(name + " table"))
    slicer.util.updateTableFromArray(
        table, [np.asarray(c, float) for c in (spectrum.frequency, *curves.values())], [frequency, *curves]
    )
    table.SetLocked(True)
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", scene.GenerateUniqueName(name))
    for index, title in enumerate(curves):
        series = _add_series(scene, table, frequency, title, band=index > 0)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(_("Radial power spectrum"))
    chart.SetXAxisTitle(frequency)
    chart.SetYAxisTitle(_("log10 power"))
    chart.SetLegendVisibility(True)
    return chart


def _add_series(scene: vtkMRMLScene, table: Any, x: str, title: str, band: bool) -> Any:
    series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", title)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(x)
    series.SetYColumnName(title)
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
    series.SetLineStyle(
        slicer.vtkMRMLPlotSeriesNode.LineStyleDash if band else slicer.vtkMRMLPlotSeriesNode.LineStyleSolid
    )
    series.SetLineWidth(1 if band else 2)
    series.SetColor(*(_BAND_COLOR if band else _VOLUME_COLOR))
    return series
