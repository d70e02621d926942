"""Stand-ins for the CTK and qMRML widgets that the panel uses: their properties and signals, plain looks."""

from __future__ import annotations

import re

import slicer

from harness.pythonqt import Property, Signal, ctk, qt, register, stored


@register(ctk)
class ctkCollapsibleButton(qt.QFrame):
    contentsCollapsed = Signal(bool)
    HEADER = 24

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setContentsMargins(2, self.HEADER + 2, 2, 2)
        self.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Maximum)

    text = stored(str, "text", "")
    collapsed = stored(bool, "collapsed", False, "contentsCollapsed", "_fold")

    def _fold(self, folded):
        for child in self.findChildren(qt.QWidget, options=qt.Qt.FindDirectChildrenOnly):
            child.setVisible(not folded)
        self.setMaximumHeight(self.HEADER + 2 if folded else 16777215)
        self.setMinimumHeight(self.HEADER + 2 if folded else 0)

    def showEvent(self, event):
        if self.collapsed:
            self._fold(True)

    def paintEvent(self, event):
        option = qt.QStyleOptionButton()
        option.initFrom(self)
        option.rect = qt.QRect(0, 0, self.width, self.HEADER)
        painter = qt.QStylePainter(self)
        painter.drawControl(qt.QStyle.CE_PushButtonBevel, option)
        arrow = "▸" if self.collapsed else "▾"
        painter.drawText(option.rect.adjusted(8, 0, 0, 0), qt.Qt.AlignVCenter, f"{arrow}  {self.text}")

    def mousePressEvent(self, event):
        if event.position().y() <= self.HEADER:
            self.collapsed = not self.collapsed


@register(ctk)
class ctkSliderWidget(qt.QWidget):
    valueChanged = Signal(float)
    STEPS = 1000

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider, self._box = qt.QSlider(qt.Qt.Horizontal), qt.QDoubleSpinBox()
        self._slider.setRange(0, self.STEPS)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._slider.sliderMoved.connect(self._slide)
        self._box.valueChanged.connect(self._follow)

    @property
    def _span(self):
        return (self.maximum - self.minimum) or 1.0

    def _slide(self, position):
        self._box.setValue(self.minimum + position * self._span / self.STEPS)

    def _follow(self, value):
        self._slider.setValue(round(self.STEPS * (value - self.minimum) / self._span))
        self.valueChanged.emit(value)

    value = Property(float, lambda s: s._box.value, lambda s, v: s._box.setValue(v))
    minimum = Property(float, lambda s: s._box.minimum, lambda s, v: s._box.setMinimum(v))
    maximum = Property(float, lambda s: s._box.maximum, lambda s, v: s._box.setMaximum(v))
    singleStep = Property(float, lambda s: s._box.singleStep, lambda s, v: s._box.setSingleStep(v))
    decimals = Property(int, lambda s: s._box.decimals, lambda s, v: s._box.setDecimals(v))


@register(ctk)
class ctkPathLineEdit(qt.QWidget):
    """Valid is a text that suits the name filters; as in CTK currentPathChanged tells only of such a text."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._edit, browse = qt.QLineEdit(), qt.QToolButton()
        browse.text = "..."
        layout.addWidget(self._edit, 1)
        layout.addWidget(browse)
        self._valid = False
        self._filter([])
        self._edit.textChanged.connect(self._tell)

    def _filter(self, filters):
        endings = re.findall(r"\*\.(\w+)", " ".join(filters))
        pattern = "|".join(rf".*\.{ending}?" for ending in endings) or ".+"
        self._edit.setValidator(qt.QRegularExpressionValidator(qt.QRegularExpression(pattern), self._edit))

    def _tell(self, text):
        before, self._valid = self._valid, self._edit.hasAcceptableInput()
        if self._valid:
            self.currentPathChanged.emit(text)
        if self._valid != before:
            self.validInputChanged.emit(self._valid)

    currentPath = Property(str, lambda s: s._edit.text, lambda s, v: s._edit.setText(v))
    filters = stored(int, "filters", 0)
    nameFilters = stored("QStringList", "nameFilters", [], changed="_filter")
    showHistoryButton = stored(bool, "showHistoryButton", True)


@register(ctk)
class ctkMessageBox(qt.QMessageBox):
    pass


@register(slicer)
class qMRMLWidget(qt.QWidget):
    mrmlSceneChanged = Signal(object)

    def setMRMLScene(self, scene):
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return getattr(self, "_scene", None)


@register(slicer)
class qMRMLNodeComboBox(qt.QWidget):
    """Lists nodes of the given types; the current node follows what is added and removed, as in Slicer.

    As there with Qt 6, currentNodeChanged is silent when the other node has the same name.
    """

    nodeActivated = Signal(object)
    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeTypes = stored("QStringList", "nodeTypes", [], changed="_changed")
    noneEnabled = stored(bool, "noneEnabled", False, changed="_changed")
    noneDisplay = stored(str, "noneDisplay", "None")
    showChildNodeTypes = stored(bool, "showChildNodeTypes", True)
    showHidden = stored(bool, "showHidden", False)
    addEnabled = stored(bool, "addEnabled", True)
    removeEnabled = stored(bool, "removeEnabled", True)
    renameEnabled = stored(bool, "renameEnabled", False)
    currentNodeID = Property(str, lambda s: s._id or "", lambda s, v: s._select(v or None))

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._box, self._scene, self._id, self._tags, self._text = qt.QComboBox(), None, None, [], ""
        layout.addWidget(self._box)
        self._box.activated.connect(self._activate)

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent) if scene else ()
        self._tags = [scene.AddObserver(event, lambda *_: self._refresh()) for event in events]
        self._refresh()

    def currentNode(self):
        return self._scene.GetNodeByID(self._id) if self._scene and self._id else None

    def setCurrentNode(self, node):
        self._select(node.GetID() if node else None)

    def nodeCount(self):
        return len(self._nodes())

    def _changed(self, _value):
        self._refresh()

    def _nodes(self):
        if not self._scene:
            return []
        nodes = [self._scene.GetNthNode(n) for n in range(self._scene.GetNumberOfNodes())]
        return [n for n in nodes if self._matches(n) and (self.showHidden or not n.GetHideFromEditors())]

    def _matches(self, node):
        if self.showChildNodeTypes:
            return any(node.IsA(kind) for kind in self.nodeTypes)
        return node.GetClassName() in self.nodeTypes

    def _refresh(self):
        nodes = self._nodes()
        entries = [(self.noneDisplay, None)] if self.noneEnabled else []
        entries += [(node.GetName(), node.GetID()) for node in nodes]
        self._box.clear()
        for name, identifier in entries:
            self._box.addItem(name, identifier)
        known = [identifier for _name, identifier in entries]
        self._select(self._id if self._id in known else (known[0] if known else None))

    def _activate(self, index):
        self._select(self._box.itemData(index))
        self.nodeActivated.emit(self.currentNode())

    def _select(self, identifier):
        self._box.currentIndex = max(0, self._box.findData(identifier))
        self._id, before, self._text = identifier, self._text, self._box.currentText if identifier else ""
        if self._text != before:
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(identifier or "")


@register(slicer)
class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The widget that holds a scripted module's panel."""

    isEntered = stored(bool, "isEntered", False)
