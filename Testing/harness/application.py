"""slicer.app, slicer.modules and the life of a scripted module, over the real MRML application logic."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
import types
from pathlib import Path

import slicer
import vtk

from harness.pythonqt import Signal, qt

_LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Tables": "vtkSlicerTablesLogic",
}


class Application(qt.QObject):
    """The part of qSlicerApplication that modules use; it is its own module manager."""

    startupCompleted = Signal()
    moduleAboutToBeUnloaded = Signal(str)
    applicationName = "Slicer stand-in"
    majorVersion, minorVersion = 5, 12

    def __init__(self, application, logic):
        super().__init__()
        self._application, self._logic = application, logic
        self.temporaryPath = tempfile.mkdtemp(prefix="harness-")
        self.questions = []
        self.answer = True
        self.layout_logic = None

    def applicationLogic(self):
        return self._logic

    def moduleManager(self):
        return self

    def module(self, name):
        return getattr(slicer.modules, name.lower(), None)

    def coreIOManager(self):
        return self

    def loadNodes(self, filetype, properties, loaded, messages):
        """Volume files only, by the logic behind Slicer's own reader."""
        if filetype != "VolumeFile":
            raise ValueError(f"the stand-in loads no {filetype}")
        file = properties["fileName"]
        name = properties.get("name") or Path(file).name.partition(".")[0]
        node = slicer.modules.volumes.logic().AddArchetypeVolume(file, name, 0)
        if node is not None:
            loaded.AddItem(node)
        return node is not None

    def processEvents(self):
        self._application.processEvents()

    def testingEnabled(self):
        return False

    def translate(self, context, text):
        return text

    def userSettings(self):
        return qt.QSettings()

    def setOverrideCursor(self, cursor):
        self._application.setOverrideCursor(qt.QCursor(cursor))

    def restoreOverrideCursor(self):
        self._application.restoreOverrideCursor()

    def layoutManager(self):
        return None


class DicomDatabase:
    """The one function of Slicer's DICOM database that modules need to get back to the files of a volume."""

    def __init__(self, files):
        """`files` is a dict of paths by SOP Instance UID."""
        self._files = files

    def fileForInstance(self, uid):
        return str(self._files.get(uid, ""))


class LayoutFollower:
    """Does for the slice views of a layout what qMRMLLayoutManager does: gives each one a slice logic."""

    def __init__(self, scene, logic):
        self._scene, self._logic, self._busy = scene, logic, False
        self._slice_logics = vtk.vtkCollection()
        logic.SetSliceLogics(self._slice_logics)
        logic.SetViewLogics(vtk.vtkCollection())
        self.layout_logic = slicer.vtkMRMLLayoutLogic()
        self.layout_logic.SetMRMLScene(scene)
        self.links = slicer.vtkMRMLSliceLinkLogic()
        self.links.SetMRMLScene(scene)
        # After the layout logic, which has made the view nodes and given them their properties by then.
        last = -1.0
        layout = self.layout_logic.GetLayoutNode()
        layout.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self.follow(), last)
        scene.AddObserver(scene.EndCloseEvent, lambda *_: self.follow(), last)
        self.follow()

    def follow(self):
        """A logic for each slice node that has none yet."""
        if self._busy:
            return
        self._busy = True
        try:
            self._follow()
        finally:
            self._busy = False

    def _follow(self):
        known = [self._slice_logics.GetItemAsObject(n) for n in range(self._slice_logics.GetNumberOfItems())]
        for logic in list(known):
            if logic.GetSliceNode() is None or self._scene.IsNodePresent(logic.GetSliceNode()) == 0:
                self._slice_logics.RemoveItem(logic)
                known.remove(logic)
        names = {logic.GetSliceNode().GetLayoutName() for logic in known}
        nodes = self._scene.GetNodesByClass("vtkMRMLSliceNode")
        for node in [nodes.GetItemAsObject(n) for n in range(nodes.GetNumberOfItems())]:
            if node.GetLayoutName() not in names:
                logic = slicer.vtkMRMLSliceLogic()
                logic.SetMRMLApplicationLogic(self._logic)
                logic.SetMRMLScene(self._scene)
                logic.SetSliceNode(node)
                self._slice_logics.AddItem(logic)


def boot():
    """Start the application, once; returns slicer.app."""
    if getattr(slicer, "app", None):
        return slicer.app
    from harness import bases

    slicer.modules = sys.modules["slicer.modules"] = types.ModuleType("slicer.modules")
    slicer.mrmlScene = slicer.vtkMRMLScene()
    application = qt.QApplication.instance() or qt.QApplication(["slicer"])
    qt.QCoreApplication.setOrganizationName("harness")
    qt.QCoreApplication.setApplicationName("harness")
    qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
    qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, tempfile.mkdtemp(prefix="settings-"))
    slicer.app = Application(application, _application_logic(slicer.mrmlScene))
    slicer.app.layout = LayoutFollower(slicer.mrmlScene, slicer.app.applicationLogic())
    import harness.widgets  # noqa: F401

    bases.install()
    _answer_questions()
    return slicer.app


def load_module(path):
    """Load a scripted module and build its panel: (module, panel, widget that holds it)."""
    path = Path(path)
    code = _execute(path)
    parent = types.SimpleNamespace(path=str(path), name=path.stem)
    module = getattr(code, path.stem)(parent)
    setattr(slicer.modules, path.stem.lower(), parent)
    slicer.app.startupCompleted.emit()
    holder = slicer.qSlicerScriptedLoadableModuleWidget()
    holder.setLayout(qt.QVBoxLayout())
    holder.setMRMLScene(slicer.mrmlScene)
    parent.widgetRepresentation = lambda: holder
    holder.reload = lambda: _build(sys.modules[path.stem], path.stem, holder)
    panel = _build(code, path.stem, holder)
    holder.isEntered = True
    panel.enter()
    return module, panel, holder


def unload(holder):
    """Delete a panel. As in Slicer, its widgets let go of the scene, so that later panels are no slower."""
    for widget in holder.findChildren(qt.QWidget):
        if hasattr(widget, "setMRMLScene"):
            widget.setMRMLScene(None)
    holder.deleteLater()


def spin(until, seconds=60.0):
    """Run the event loop until a condition holds; AssertionError after the time."""
    end = time.monotonic() + seconds
    while not until():
        slicer.app.processEvents()
        time.sleep(0.01)
        if time.monotonic() > end:
            raise AssertionError(f"still waiting after {seconds} s")


def finish(panel, seconds=300.0):
    """Let the panel's running job come to its end."""
    spin(lambda: panel.session.job is None, seconds)


def _execute(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    code = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    return code


def _build(code, name, holder):
    panel = getattr(code, name + "Widget")(holder)
    panel.setup()
    setattr(slicer.modules, name + "Widget", panel)
    holder.self = lambda: panel
    return panel


def _application_logic(scene):
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    scene.AddNode(slicer.vtkMRMLCrosshairNode())
    scene.AddNode(slicer.vtkMRMLInteractionNode())
    for name, cls in _LOGICS.items():
        one = getattr(slicer, cls)()
        if hasattr(one, "SetMRMLApplicationLogic"):
            one.SetMRMLApplicationLogic(logic)
        one.SetMRMLScene(scene)
        logic.SetModuleLogic(name, one)
        setattr(slicer.modules, name.lower(), types.SimpleNamespace(logic=lambda one=one: one, name=name))
    return logic


def _answer_questions():
    """Message boxes cannot be clicked here: note what they say, and answer as the test wants."""
    import slicer.util

    def ask(text, windowTitle=None, parent=None, **more):
        slicer.app.questions.append(text)
        return slicer.app.answer

    for name in ("confirmYesNo", "confirmOkCancel", "error", "info", "warning"):
        setattr(slicer.util, name + "Display", ask)
