"""The slice views and the plot of a layout, rendered without a window by Slicer's displayable managers."""

from __future__ import annotations

import slicer
import vtk
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QImage, QPainter

_MANAGERS = ("vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLColorLegendDisplayableManager")
_BAR = 18


class SliceView:
    """One slice view: a renderer with the slice's image, segmentations and legend, as qMRMLSliceView has it.

    Args:
        logic: the slice logic of the view.
        size: width and height in pixels.
    """

    def __init__(self, logic, size):
        self.node, self._logic = logic.GetSliceNode(), logic
        self.node.SetMappedInLayout(1)
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.SetSize(*size)
        self._renderer = vtk.vtkRenderer()
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._window.SetInteractor(self._interactor)
        self._image = vtk.vtkImageActor()
        self._renderer.AddActor(self._image)
        self._managers = self._displayable_managers()
        logic.ResizeSliceNode(*size)

    def _displayable_managers(self):
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for name in _MANAGERS:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        group = factory.InstantiateDisplayableManagers(self._renderer)
        group.SetMRMLDisplayableNode(self.node)
        return group

    def image(self):
        """A QImage of what the view shows, with the view's coloured bar on top."""
        width, height = self._window.GetSize()
        self.node.Modified()  # brings legends up to date
        port = self._logic.GetImageDataConnection()
        if port is not None:
            self._image.GetMapper().SetInputConnection(port)
        camera = self._renderer.GetActiveCamera()
        camera.ParallelProjectionOn()
        camera.SetParallelScale(height / 2)
        camera.SetFocalPoint(width / 2, height / 2, 0)
        camera.SetPosition(width / 2, height / 2, 100)
        self._renderer.ResetCameraClippingRange()
        self._window.Render()
        return _with_bar(_grab(self._window), self.node)


def plot_image(chart, size):
    """A QImage of a plot chart node: its series with their colours, axes and legend."""
    view = vtk.vtkContextView()
    view.GetRenderWindow().SetOffScreenRendering(1)
    view.GetRenderWindow().SetMultiSamples(0)
    view.GetRenderWindow().SetSize(*size)
    view.GetRenderer().SetBackground(1, 1, 1)
    drawn = vtk.vtkChartXY()
    view.GetScene().AddItem(drawn)
    drawn.SetTitle(chart.GetTitle())
    drawn.SetShowLegend(True)
    drawn.GetAxis(vtk.vtkAxis.BOTTOM).SetTitle(chart.GetXAxisTitle())
    drawn.GetAxis(vtk.vtkAxis.LEFT).SetTitle(chart.GetYAxisTitle())
    for index in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(index)
        line = drawn.AddPlot(vtk.vtkChart.LINE)
        line.SetInputData(series.GetTableNode().GetTable(), series.GetXColumnName(), series.GetYColumnName())
        line.SetColorF(*series.GetColor())
        line.SetWidth(series.GetLineWidth() + 0.5)
        line.GetPen().SetLineType(series.GetLineStyle())
        line.SetLabel(series.GetName())
    view.GetRenderWindow().Render()
    return _grab(view.GetRenderWindow())


class ComparisonScreen:
    """The comparison layout as Slicer arranges it on a screen; the slices fit their views to begin with.

    Args:
        views: the panel's ComparisonLayout, shown.
        size: width and height of the slice views together, in pixels.
    """

    def __init__(self, views, size):
        from MedShieldLib.slicer.layouts import Side

        self._size = size
        width, height = size[0] // 2, size[1] // 2
        self._views = []
        for number, side in enumerate(Side):
            x = number * width
            places = [(x, 0, width), (x, height, width // 2), (x + width // 2, height, width // 2)]
            for node, (left, top, wide) in zip(views.slice_nodes(side), places, strict=True):
                logic = slicer.app.applicationLogic().GetSliceLogicByLayoutName(node.GetLayoutName())
                self._views.append((left, top, SliceView(logic, (wide - 2, height - 2 - _BAR))))
                logic.FitSliceToBackground()

    def image(self, chart=None, chart_height=240):
        """A QImage of all views, with the plot of a chart node below if there is one."""
        width, height = self._size
        picture = QImage(width, height + (chart_height if chart else 0), QImage.Format_RGB32)
        picture.fill(QColor("#404040"))
        painter = QPainter(picture)
        for left, top, view in self._views:
            painter.drawImage(left, top, view.image())
        if chart:
            painter.drawImage(0, height, plot_image(chart, (width, chart_height)))
        painter.end()
        return picture


def _grab(window):
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.Update()
    writer = vtk.vtkPNGWriter()
    writer.WriteToMemoryOn()
    writer.SetInputConnection(grabber.GetOutputPort())
    writer.Write()
    return QImage.fromData(bytes(memoryview(writer.GetResult())), "PNG")


def _with_bar(image, node):
    picture = QImage(image.width(), image.height() + _BAR, QImage.Format_RGB32)
    red, green, blue = node.GetLayoutColor()
    picture.fill(QColor.fromRgbF(red, green, blue))
    painter = QPainter(picture)
    painter.drawImage(0, _BAR, image)
    text = f"{node.GetLayoutLabel()}  {node.GetOrientation()}"
    painter.drawText(6, 0, image.width(), _BAR, Qt.AlignVCenter, text)
    painter.end()
    return picture
