"""Stand-in for slicer.parameterNodeWrapper: typed properties on a parameter node, bound to widgets.

As strict as Slicer about which widget can show which type; only the types that the panel uses.
"""

from __future__ import annotations

import enum
import typing
import weakref
from dataclasses import dataclass

import slicer
import vtk

from harness.pythonqt import ctk, qt

_PROPERTY = "SlicerParameterName"


@dataclass
class WithinRange:
    """Bounds of a number, both included."""

    minimum: float
    maximum: float


def parameterNodeWrapper(cls):
    """Class decorator: every annotated name becomes a property that lives in the node."""
    hints = typing.get_type_hints(cls, include_extras=True)
    cls.allParameters = {
        name: _Parameter(name, hint, getattr(cls, name, None)) for name, hint in hints.items()
    }
    for name, parameter in cls.allParameters.items():
        setattr(cls, name, property(parameter.read, parameter.write))
    for name, function in vars(_Wrapper).items():
        if not name.startswith("__") or name == "__init__":
            setattr(cls, name, function)
    return cls


class _Parameter:
    def __init__(self, name, hint, default):
        arguments = typing.get_args(hint)
        self.name, self.kind = name, arguments[0] if arguments else hint
        self.range = next((a for a in arguments if isinstance(a, WithinRange)), None)
        self.serializer, self.default = _Serializer(self.kind, self.range), default

    def read(self, wrapper):
        if not self.serializer.isIn(wrapper.parameterNode, self.name):  # the scene was closed
            self.write(wrapper, self.default)
        return self.serializer.read(wrapper.parameterNode, self.name)

    def write(self, wrapper, value):
        self.serializer.validate(value)
        self.serializer.write(wrapper.parameterNode, self.name, value)


class _Serializer:
    """A value as text in a node. As in Slicer, reading does not validate, but fails for an unknown name."""

    def __init__(self, kind, range_):
        self._kind, self._range = kind, range_
        self.is_node = issubclass(kind, slicer.vtkMRMLNode)

    def isIn(self, node, name):
        return self.is_node or node.HasParameter(name)

    def read(self, node, name):
        if self.is_node:
            return node.GetNodeReference(name)
        text = node.GetParameter(name)
        if issubclass(self._kind, enum.Enum) and text not in self._kind.__members__:
            raise ValueError(f"Found {text!r} in parameter node but it is not a name in {self._kind!r}")
        if issubclass(self._kind, enum.Enum):
            return self._kind[text]
        return text == "True" if self._kind is bool else self._kind(text)

    def validate(self, value):
        allowed = (int, float) if self._kind is float else self._kind
        if value is None and not self.is_node:
            raise ValueError("Value must not be None")
        if value is not None and not isinstance(value, allowed):
            raise TypeError(f"Value must be of type {allowed}, is {value!r}")
        if self._range and not self._range.minimum <= value <= self._range.maximum:
            raise ValueError(f"Value must be within {self._range}, is {value}")

    def write(self, node, name, value):
        if self.is_node:
            node.SetNodeReferenceID(name, value.GetID() if value else None)
        else:
            node.SetParameter(name, value.name if isinstance(value, enum.Enum) else str(value))

    def remove(self, node, name):
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class _Wrapper:
    """What every wrapper can do."""

    def __init__(self, parameterNode):
        self.parameterNode, self._guis, self._tags, self._busy = parameterNode, {}, {}, False
        for parameter in self.allParameters.values():
            parameter.read(self)  # Slicer caches the values, and so fails here for a value without meaning

    def connectGui(self, gui):
        """Binds for good: Slicer's returns no tag, so that disconnectGui finds nothing to disconnect."""
        bound = {w.property(_PROPERTY): w for w in vars(gui).values() if w.property(_PROPERTY)}
        self.connectParametersToGui(bound)

    def connectParametersToGui(self, bound):
        """Binds widgets to the parameters of these names, up to disconnectGui with the tag."""
        unknown = set(bound) - set(self.allParameters)
        if unknown:
            raise ValueError(f"no parameter for {sorted(unknown)}")
        connectors = {name: _connector(widget, self.allParameters[name]) for name, widget in bound.items()}
        tag = object()
        self._guis[tag] = connectors
        for name, connector in connectors.items():
            connector.write(getattr(self, name))
            connector.connect(lambda *_, name=name: self._from_gui(name, tag))
        # Weak: an observer that holds the wrapper, which holds the node, would never be freed.
        weak = weakref.WeakMethod(self._to_gui)
        self._tags[tag] = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: weak() and weak()())
        return tag

    def disconnectGui(self, tag):
        for connector in self._guis.pop(tag, {}).values():
            connector.disconnect()
        if tag in self._tags:
            self.RemoveObserver(self._tags.pop(tag))

    def _from_gui(self, name, tag):
        if not self._busy and tag in self._guis:
            setattr(self, name, self._guis[tag][name].read())

    def _to_gui(self):
        if self._busy:
            return
        self._busy = True
        try:
            for connectors in self._guis.values():
                for name, connector in connectors.items():
                    connector.write(getattr(self, name))
        finally:
            self._busy = False

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def Modified(self):
        self.parameterNode.Modified()

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, before):
        self.parameterNode.EndModify(before)


class _Connector:
    def __init__(self, signal, read, write):
        self._signal, self.read, self.write, self._callback = signal, read, write, None

    def connect(self, callback):
        self._callback = callback
        self._signal.connect(callback)

    def disconnect(self):
        self._signal.disconnect(self._callback)


def _connector(widget, parameter):
    kind, cls = parameter.kind, type(widget)
    if cls is slicer.qMRMLNodeComboBox and parameter.serializer.is_node:
        return _Connector(widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)
    if cls is qt.QComboBox and issubclass(kind, enum.Enum):
        return _enum_connector(widget, kind)
    if cls is qt.QCheckBox and kind is bool:
        return _attribute_connector(widget, "checked", widget.toggled)
    number = {qt.QSpinBox: int, qt.QDoubleSpinBox: float, ctk.ctkSliderWidget: float}.get(cls)
    if number is kind and number is not None:
        if parameter.range is None and cls is ctk.ctkSliderWidget:
            raise RuntimeError(f"{parameter.name} on a slider needs a range")
        widget.minimum, widget.maximum = parameter.range.minimum, parameter.range.maximum
        return _attribute_connector(widget, "value", widget.valueChanged)
    raise RuntimeError(f"no connector between {cls.__name__} and {parameter.name}: {kind.__name__}")


def _attribute_connector(widget, name, signal):
    return _Connector(signal, lambda: getattr(widget, name), lambda value: setattr(widget, name, value))


def _enum_connector(widget, kind):
    members = list(kind)
    widget.clear()
    for member in members:
        widget.addItem(member.label() if hasattr(member, "label") else member.name)
    return _Connector(
        widget.currentIndexChanged,
        lambda: members[widget.currentIndex],
        lambda value: setattr(widget, "currentIndex", members.index(value)),
    )
