"""Stand-ins for Slicer's Python base classes: ScriptedLoadableModule, i18n, packaging, SampleData."""

from __future__ import annotations

import logging
import os
import sys
import types
import unittest
from pathlib import Path

import slicer
import slicer.util

from harness.pythonqt import ctk, qt


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent, self.moduleName = parent, type(self).__name__
        for name, value in {"title": "", "categories": [], "dependencies": [], "contributors": []}.items():
            setattr(parent, name, value)
        icon = Path(self.resourcePath(f"Icons/{self.moduleName}.png"))
        parent.icon = qt.QIcon(str(icon)) if icon.is_file() else None
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def runTest(self, msec=100):
        test = getattr(sys.modules[type(self).__module__], self.moduleName + "Test")()
        test.messageDelay = msec
        test.runTest()

    def resourcePath(self, name):
        return str(Path(self.parent.path).parent / "Resources" / name)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, name):
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self):
        pass

    def cleanup(self):
        pass

    def onReload(self):
        slicer.util.reloadScriptedModule(self.moduleName)

    def _onModuleAboutToBeUnloaded(self, name):
        if name == self.moduleName:
            self.cleanup()
            slicer.app.disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def runTest(self):
        logging.warning("No test is defined in " + type(self).__name__)


class Packaging:
    """Stand-in for slicer.packaging that installs nothing: it notes what was asked for, and then declines."""

    def __init__(self):
        self.asked, self.uninstalled = [], []

    def pip_ensure(self, requirements, constraints=None, requester=None):
        self.asked.append((list(requirements), Path(constraints).read_text("utf-8"), requester))
        raise RuntimeError("User declined package installation")

    def pip_uninstall(self, requirements):
        self.uninstalled.append(list(requirements))


class SampleDataLogic:
    registered: list = []

    @classmethod
    def registerCustomSampleDataSource(cls, **source):
        cls.registered.append(source)


def install():
    """Make the base classes importable under Slicer's names."""
    _module("SampleData", SampleDataLogic=SampleDataLogic)
    packaging = Packaging()
    slicer.packaging = _module(
        "slicer.packaging",
        stand_in=packaging,
        pip_ensure=packaging.pip_ensure,
        pip_uninstall=packaging.pip_uninstall,
    )
    own = os.environ.get("MEDSHIELD_SLICER_PYTHON")
    if own:
        _install_slicers(Path(own))
        return
    from harness import parameters

    _module(
        "slicer.i18n",
        tr=lambda text: text,
        translate=lambda context, text: text,
    )
    classes = (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    )
    _module("slicer.ScriptedLoadableModule", **{cls.__name__: cls for cls in classes})
    _module(
        "slicer.parameterNodeWrapper",
        parameterNodeWrapper=parameters.parameterNodeWrapper,
        WithinRange=parameters.WithinRange,
    )


def _install_slicers(folder):
    """Slicer's own base classes, but for those that install packages."""
    slicer.__path__.append(str(folder / "slicer"))
    # Their annotations name widgets that the panel does not use.
    ctk.ctkDirectoryButton = ctk.ctkRangeWidget = qt.QWidget
    tree = type("qMRMLSubjectHierarchyTreeView", (qt.QTreeView,), {})
    _module("qSlicerSubjectHierarchyModuleWidgetsPythonQt", qMRMLSubjectHierarchyTreeView=tree)


def _module(name, **content):
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(content)
    return module
