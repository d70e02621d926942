"""MedShield in 3D Slicer: the module, its panel, its logic, its test.

Thin: what needs only MRML is in MedShieldLib/slicer; sections of the panel and the parameter node are in
MedShieldLib/panel.
"""

import logging
import sys
import time
import unittest
from functools import partial
from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

try:
    import MedShieldLib  # noqa: F401
except ImportError:  # run from the source tree
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from MedShieldLib.errors import InputError
from MedShieldLib.panel.banner import BannerSection
from MedShieldLib.panel.calibrate import CalibrationSection
from MedShieldLib.panel.export import ExportSection, dicom_database
from MedShieldLib.panel.later import later
from MedShieldLib.panel.packages import PackageSection
from MedShieldLib.panel.parameters import bind, parameters_of, settings_of
from MedShieldLib.panel.tables import fill_table
from MedShieldLib.panel.target import TargetSection
from MedShieldLib.slicer import environment, presenter
from MedShieldLib.slicer.check import Ending, Settings, Watch
from MedShieldLib.slicer.nodes import first_volume
from MedShieldLib.slicer.samples import read_samples, register_samples
from MedShieldLib.slicer.session import Session

POLL_MS = 100


class MedShield(ScriptedLoadableModule):
    """What Slicer knows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "MedShield"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["MedShield contributors"]
        self.parent.helpText = _(
            "Segments a volume with a model of your choice, and tells whether the volume was tampered with, "
            "where, and what the segmentation would be without it. Research software, not for clinical use."
        )
        self.parent.acknowledgementText = _(
            "After the concept of Park et al., Robustification of Segmentation Models Against Adversarial "
            "Perturbations In Medical Imaging (PRIME at MICCAI 2020)."
        )
        slicer.app.connect("startupCompleted()", self.registerSampleData)

    def registerSampleData(self):
        """A clean and an attacked volume for the Sample Data module; the files ship with MedShield."""
        register_samples(Path(self.resourcePath("SampleData")))


class MedShieldWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: shows what the scene and the session hold, and passes on what the user wants."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._guiTag = None

    def setup(self):
        """Build the panel, once."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedShield.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MedShieldLogic()
        self.session = self.logic.session
        self.banner = BannerSection(self.ui.verdictLabel)
        self.packages = PackageSection(self.ui, self.resourcePath("requirements.txt"), self.refresh)
        self.exports = ExportSection(self.ui, self.session, self.packages, self.addLog, self.refreshControls)
        self.targets = TargetSection(self.ui)
        self.calibrations = CalibrationSection(self.ui, self.session, self._start, self.refreshControls)
        controls = presenter.reasons(presenter.Situation())
        self._toolTips = {name: getattr(self.ui, name).toolTip for name in controls}
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.onTimer)
        self._connectScene()
        self._connectControls()
        self.initializeParameterNode()

    def _connectScene(self):
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(scene, scene.EndBatchProcessEvent, self.onSceneEndBatch)
        self.addObserver(scene, scene.NodeRemovedEvent, self.refresh)

    def _connectControls(self):
        ui = self.ui
        ui.checkButton.connect("clicked(bool)", self.onCheckButton)
        ui.jumpButton.connect("clicked(bool)", self.onJumpButton)
        ui.spectrumButton.connect("clicked(bool)", lambda: setattr(ui.compareButton, "checked", True))
        ui.compareButton.connect("toggled(bool)", self.onCompareToggled)
        ui.differenceButton.connect("toggled(bool)", self.onDifferenceToggled)
        ui.agreementTable.connect("cellClicked(int,int)", self.onAgreementClicked)

    def cleanup(self):
        """The module is reloaded, or Slicer closes."""
        self.session.kill(_("MedShield was closed, so the running job was stopped."))
        self.session.compare(False)
        self.setParameterNode(None)
        self._timer.stop()
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        """The user leaves: their layout comes back, a running job goes on."""
        self.ui.compareButton.checked = False

    def onReload(self):
        for name in [name for name in sys.modules if name.partition(".")[0] == "MedShieldLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    # Scene and parameter node

    def onSceneStartClose(self, caller=None, event=None):
        self.ui.compareButton.checked = False
        self.setParameterNode(None)

    def onSceneStartImport(self, caller=None, event=None):
        """Let go of the parameter node: the selector picks the first volume that comes, not the saved one."""
        self.setParameterNode(None)

    def onSceneEndBatch(self, caller=None, event=None):
        """The scene was closed, or a file was opened: closing and importing are one batch then."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Follow the scene's parameter node; offer the scene's first volume as input."""
        if self._parameterNode is None:
            self.setParameterNode(self.logic.getParameterNode(self.addLog))
        if not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = first_volume(slicer.mrmlScene)
        self.refresh()

    def setParameterNode(self, parameterNode):
        """Bind the panel to a parameter node, or to none."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.refresh)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._guiTag = bind(self._parameterNode, self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.refresh)
        self.refresh()

    @property
    def source(self):
        """The chosen input volume, or None."""
        return self._parameterNode.inputVolume if self._parameterNode else None

    def settings(self):
        """What the controls say, for a job."""
        return settings_of(self._parameterNode)

    # Showing what there is

    def refresh(self, caller=None, event=None):
        """Make panel and views say what the scene and the parameter node say."""
        if slicer.mrmlScene.IsBatchProcessing():
            return
        if self.session.choose(self.source):
            self._showResult()
        values = self._parameterNode
        self.targets.show(values)
        self.calibrations.show(values)
        if values:
            self.session.show_heatmap(
                values.showHeatmap, values.band, values.heatmapOpacity, values.heatmapThreshold
            )
        if self.session.is_drawing and not self.session.job:
            self.ui.stepLabel.text = _("Computing the heatmap")
            self._timer.start()
        self.refreshControls()

    def refreshControls(self):
        """Banner, progress, and which controls can be used; those that cannot say why."""
        now = self.session.situation(
            self.source,
            dicom_database(),
            export_chosen=bool(self.exports.kinds),
            has_export_folder=self.exports.has_folder,
            has_clean_folder=self.calibrations.has_folder,
            missing_packages=len(self.packages.missing),
            removable_packages=len(self.packages.removable),
        )
        for name, reason in presenter.reasons(now).items():
            control = getattr(self.ui, name)
            control.enabled = not reason
            control.toolTip = reason or self._toolTips[name]
        self.ui.checkButton.text = _("Cancel") if now.checking else _("Check && Segment")
        self.ui.calibrateButton.text = _("Cancel the calibration") if now.calibrating else _("Calibrate")
        self.ui.progressBar.visible = now.busy
        self.ui.stepLabel.visible = now.busy or self.session.is_drawing
        self.banner.show(self.session.result, self.source)

    def _showResult(self):
        result = self.session.result
        data = result.data if result else {"structures": [], "evidence": {}}
        fill_table(self.ui.agreementTable, presenter.agreement_header(), presenter.agreement_rows(data))
        fill_table(self.ui.evidenceTable, presenter.evidence_header(), presenter.evidence_rows(data))
        self.ui.differenceButton.checked = False
        self.ui.compareButton.checked = self.session.views.is_shown
        self.exports.offer_folder()

    def addLog(self, text):
        if text:
            logging.info(f"MedShield: {text}")
            self.ui.logText.appendPlainText(text)

    # What the job says

    def onTimer(self):
        if self.session.poll():
            self.refresh()
        if not self.session.is_busy:
            self._timer.stop()

    def onProgress(self, fraction, step):
        self.ui.progressBar.value = round(100 * fraction)
        self.ui.stepLabel.text = step

    def onJobEnded(self, done, ending, message):
        self.addLog(message)
        words = presenter.failure if ending is Ending.FAILED else presenter.neutral
        self.banner.say(words(message))
        if ending is Ending.DONE:
            done()
        self.refresh()

    def onChecked(self):
        """The result is in the scene: show the verdict and, if the user is still here, the comparison."""
        self.banner.say(None)
        self.refresh()
        if self.session.result and self.parent.isEntered:
            self.ui.compareButton.checked = True

    def _start(self, launch, done):
        """Start a job after making sure that its packages are there; say so when it cannot be."""
        ended = partial(self.onJobEnded, done)
        self.banner.say(None)
        with slicer.util.tryWithErrorDisplay(_("MedShield could not start.")):
            try:
                self.targets.require_consent()
                chosen = self.settings()
                self.packages.ensure(*presenter.extra_packages(chosen.target, chosen.second_opinion))
                launch(chosen, Watch(self.onProgress, self.addLog, ended))
                self.onProgress(0.0, _("Starting"))
                self._timer.start()
            except InputError as error:
                ended(Ending.FAILED, str(error))
        self.refreshControls()

    # What the user does

    def onCheckButton(self):
        if self.session.job:
            self.session.cancel()
            self.refreshControls()
        else:
            self._start(partial(self.session.check, self.source), self.onChecked)

    def onCompareToggled(self, on):
        self.session.compare(on)
        self.refresh()
        later(self.parent, self.session.views.fit)

    def onDifferenceToggled(self, on):
        self.ui.compareButton.checked |= on
        self.session.show_difference(on)

    def onJumpButton(self):
        self.ui.compareButton.checked = True
        self.session.jump()

    def onAgreementClicked(self, row, column):
        self.ui.compareButton.checked = True
        self.session.jump(self.session.result.data["structures"][row]["label"])


class MedShieldLogic(ScriptedLoadableModuleLogic):
    """The module without its panel, for scripts: `MedShieldLogic().check(volumeNode)`."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.session = Session(slicer.mrmlScene, slicer.app.applicationLogic(), slicer.app.temporaryPath)

    def getParameterNode(self, log=logging.warning):
        return parameters_of(ScriptedLoadableModuleLogic.getParameterNode(self), log)

    def check(self, source, settings=None):
        """Check a volume node, wait for the end, and return its `Result`; RuntimeError if there is none."""
        said = []
        watch = Watch(lambda fraction, step: None, logging.info, lambda ending, message: said.append(message))
        result = self.session.check_and_wait(source, settings or Settings("brain-tissue"), watch, self._wait)
        if result is None:
            raise RuntimeError(said[-1])
        self.session.choose(source)
        return result

    def _wait(self):
        slicer.app.processEvents()
        time.sleep(POLL_MS / 1000)


class MedShieldTest(ScriptedLoadableModuleTest):
    """Tests for a real Slicer; `Testing/Python` has those that need none."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        names = unittest.TestLoader().getTestCaseNames(type(self))
        for test in (getattr(self, name) for name in names):
            self.setUp()
            try:
                test()
            except unittest.SkipTest as reason:
                logging.warning(f"Skipped: {reason}")

    def resource(self, name):
        return Path(slicer.util.modulePath("MedShield")).parent / "Resources" / name

    def samples(self):
        """The volume nodes of the samples that ship, one loaded after the other."""
        for sample in read_samples(self.resource("SampleData")):
            file = self.resource("SampleData") / sample.file
            yield slicer.util.loadVolume(str(file), {"name": sample.name})

    def test_clean_and_attacked_sample(self):
        """The verdicts on the shipped samples, and what comes into the scene."""
        if missing := environment.missing(environment.read_requirements(self.resource("requirements.txt"))):
            self.skipTest(f"not installed: {', '.join(missing)}")
        logic = MedShieldLogic()
        verdicts = []
        for volume in self.samples():
            result = logic.check(volume, Settings("brain-tissue", seed=1))
            verdicts.append(result.data["verdict"])
            for role in ("original", "defended", "reformed", "heatmap", "spectrum", "agreement", "evidence"):
                self.assertIsNotNone(result.node(role), role)
            logic.session.compare(True)
            self.assertTrue(logic.session.views.is_shown or slicer.app.layoutManager() is None)
            logic.session.compare(False)
        self.assertEqual(verdicts, ["clean", "suspected_attack"])

    def test_panel_follows_the_scene(self):
        """The button can be used when there is a volume, and says why when there is none."""
        panel = slicer.util.getModuleWidget("MedShield")
        panel.initializeParameterNode()
        self.assertFalse(panel.ui.checkButton.enabled)
        self.assertNotEqual(panel.ui.checkButton.toolTip, "")
        volume = next(self.samples())
        panel.initializeParameterNode()
        self.assertIs(panel.source, volume)
        self.assertTrue(panel.ui.checkButton.enabled)

    def test_bad_input_is_refused(self):
        """A volume without voxels is refused in a sentence, and the scene stays as it is."""
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
        count = slicer.mrmlScene.GetNumberOfNodes()
        with self.assertRaises(InputError):
            MedShieldLogic().check(empty)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), count)
