"""The modules `qt` and `ctk` as scripted modules know them, on top of PySide6.

PythonQt differs from PySide6: properties are attributes, signals are connected by their signature in a
string, `objectName` is `name`, plain C++ objects refuse attributes that they do not have, static file dialogs
return a string.
"""

from __future__ import annotations

import re
import sys
import types
import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from PySide6.QtCore import Property, QObject, Signal

qt = types.ModuleType("qt")
ctk = types.ModuleType("ctk")
for _library in (QtCore, QtGui, QtWidgets):
    # dir, not vars: PySide6 makes classes when they are first asked for.
    vars(qt).update({name: getattr(_library, name) for name in dir(_library) if not name.startswith("_")})

# Properties that are virtual or static functions as well: a Python attribute would hide the function.
_FUNCTIONS = {"sizeHint", "minimumSizeHint", "heightForWidth", "objectName", "singleShot"}
# Classes for .ui files, by name; `register` fills it.
CUSTOM: dict[str, type] = {}


class UnknownWidget(RuntimeError):
    """A .ui file names a widget class for which there is no stand-in."""


def register(module):
    """Class decorator: make a stand-in widget available in a module and in .ui files."""

    def add(cls):
        setattr(module, cls.__name__, cls)
        CUSTOM[cls.__name__] = cls
        for name, value in list(vars(cls).items()):
            setter = f"set{name[0].upper()}{name[1:]}"
            if isinstance(value, Property) and not hasattr(cls, setter):
                setattr(cls, setter, lambda self, v, name=name: setattr(self, name, v))
        return cls

    return add


def stored(kind, name, default, signal=None, changed=None):
    """A Qt property that keeps its value; `signal` is emitted and method `changed` called when it changes."""

    def read(self):
        return self.__dict__.get("_stored_" + name, default)

    def write(self, value):
        before = read(self)
        self.__dict__["_stored_" + name] = value
        if before != value:
            if changed:
                getattr(self, changed)(value)
            if signal:
                getattr(self, signal).emit(value)

    return Property(kind, read, write)


def _as_attribute(cls, meta):
    """A Python property for one Qt property of `cls`."""
    name = meta.name()
    own = getattr(cls, name, None)
    is_name = getattr(cls, f"is{name[0].upper()}{name[1:]}", None)
    reader = own if callable(own) and not isinstance(own, Signal) else is_name
    setter = getattr(cls, f"set{name[0].upper()}{name[1:]}", None)

    def read(self):
        return reader(self) if reader else self.property(name)

    def write(self, value):
        if not meta.isWritable():
            raise AttributeError(f"property '{name}' of {cls.__name__} is read-only")
        if setter:
            setter(self, value)
        elif not self.setProperty(name, value):
            raise ValueError(f"{cls.__name__}.{name} cannot be {value!r}")

    return property(read, write)


def _set_attribute(self, key, value):
    """Like object.__setattr__, which Shiboken's types may not use; strict for plain Qt classes."""
    cls = type(self)
    found = next((vars(c)[key] for c in cls.__mro__ if key in vars(c)), None)
    if isinstance(found, Property):
        found.fset(self, value)
    elif found is not None and hasattr(type(found), "__set__"):
        found.__set__(self, value)
    elif found is None and cls.__module__.startswith("PySide6"):
        if key not in [bytes(n.data()).decode() for n in self.dynamicPropertyNames()]:
            raise AttributeError(f"{cls.__name__} has no attribute '{key}'")
        self.setProperty(key, value)
    else:
        self.__dict__[key] = value


def _signal(sender, signature):
    """The bound signal for "clicked(bool)", in the overload that the signature names."""
    match = re.fullmatch(r"\s*[12]?(\w+)\s*(?:\((.*)\))?\s*", signature)
    signal = getattr(sender, match.group(1), None) if match else None
    if signal is None or not hasattr(signal, "connect"):
        raise ValueError(f"{type(sender).__name__} has no signal '{signature}'")
    arguments = (match.group(2) or "").replace("const ", "").replace("&", "").replace(" ", "")
    if arguments and "*" not in arguments:
        try:
            return signal[arguments]
        except (KeyError, IndexError, TypeError):
            pass
    return signal


def _slot(receiver, name):
    return getattr(receiver, name.split("(")[0].strip("12")) if isinstance(name, str) else receiver


def _connect(self, signature, receiver, slot=None):
    return bool(_signal(self, signature).connect(_slot(receiver, slot)))


def _disconnect(self, signature, receiver=None, slot=None):
    return _signal(self, signature).disconnect(*([_slot(receiver, slot)] if receiver else []))


def _adapt(cls):
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        one = meta.property(index)
        if one.name() not in _FUNCTIONS and not isinstance(vars(cls).get(one.name()), Property):
            try:
                setattr(cls, one.name(), _as_attribute(cls, one))
            except (TypeError, AttributeError):
                continue
    cls.__setattr__ = _set_attribute
    native = cls.__getattribute__

    def get_attribute(self, name):
        # Shiboken finds connect and disconnect before it looks into the type.
        if name in ("connect", "disconnect"):
            return types.MethodType(_connect if name == "connect" else _disconnect, self)
        return native(self, name)

    return get_attribute


def _adapt_all():
    found = {c for c in vars(qt).values() if isinstance(c, type) and issubclass(c, QObject)}
    getters = {c: _adapt(c) for c in sorted(found, key=lambda c: len(c.__mro__))}
    for cls, getter in getters.items():
        cls.__getattribute__ = getter
    get_name, set_name = QObject.objectName, QObject.setObjectName
    QObject.name = QObject.objectName = property(get_name, set_name)
    QObject.className = lambda self: self.metaObject().className()
    QObject.delete = QObject.deleteLater
    QtWidgets.QDialog.exec_ = QtWidgets.QDialog.exec
    dialog = QtWidgets.QFileDialog
    for name in ("getOpenFileName", "getSaveFileName"):
        native = getattr(dialog, name)
        setattr(dialog, name, staticmethod(lambda *a, native=native, **k: native(*a, **k)[0]))


class QUiLoader:
    """Loads a .ui file with the stand-in widgets; one that is not known is an error."""

    def load(self, device, parent=None):
        """The top-level widget of the file that `device` reads."""
        root = ElementTree.fromstring(bytes(device.readAll()))
        wanted = [{part.tag: part.text for part in one} for one in root.iter("connection")]
        for connections in root.findall("connections"):
            root.remove(connections)
        unknown = {one.find("class").text for one in root.iter("customwidget")} - set(CUSTOM)
        if unknown:
            raise UnknownWidget(", ".join(sorted(unknown)))
        widget = self._load(ElementTree.tostring(root), parent)
        for one in wanted:
            sender, receiver = (self._find(widget, one[end]) for end in ("sender", "receiver"))
            _signal(sender, one["signal"]).connect(_slot(receiver, one["slot"]))
        return widget

    @staticmethod
    def _load(content, parent):
        loader, buffer = QtUiTools.QUiLoader(), QtCore.QBuffer()
        for cls in CUSTOM.values():
            loader.registerCustomWidget(cls)
        buffer.setData(content)
        buffer.open(QtCore.QIODevice.ReadOnly)
        widget = loader.load(buffer, parent)
        if widget is None:
            raise RuntimeError(loader.errorString())
        return widget

    @staticmethod
    def _find(widget, name):
        return widget if widget.name == name else widget.findChild(QObject, name)


class QTextCodec:
    """Gone in Qt 6; slicer.util reads .ui files with it."""

    @staticmethod
    def codecForUtfText(_data):
        return types.SimpleNamespace(toUnicode=lambda data: bytes(data).decode("utf-8", "replace"))


_adapt_all()
qt.QUiLoader, qt.QTextCodec = QUiLoader, QTextCodec
qt.Signal, qt.Property = Signal, Property
sys.modules["qt"], sys.modules["ctk"] = qt, ctk
