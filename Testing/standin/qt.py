"""`qt`: the classes of Qt through PySide6, with the manners of PythonQt.

Properties are attributes (`label.text`, `button.enabled = False`), methods of the same name give way to them, signals
are connected by `obj.connect("clicked(bool)", f)` or `obj.clicked.connect(f)`, and a slot is called with as many
arguments as it takes. An attribute that Qt's meta-object and methods don't know raises AttributeError, on reading and
on writing; a signal that does not exist raises too.

As in Slicer, the main thread keeps Python's interpreter lock while it waits for events: Python threads run only while a
slot lets them (`wait_for_events`).
"""

import ctypes
import inspect
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

_MODULES = (QtCore, QtGui, QtWidgets)
# PySide6's own, which PythonQt does not have.
_FOREIGN = {"Signal", "Slot", "Property", "QtMsgType", "ClassInfo"}

_PYTHONQT = ("connect", "disconnect", "className", "delete")

# Exceptions that slots raised, as PythonQt would print them to the console; tests look here.
slot_errors: list[BaseException] = []
# Widgets of other stand-ins, by the name under which a .ui file knows them.
widget_classes: dict[str, type] = {}
_made: dict[str, type] = {}
_properties: dict[type, frozenset[str]] = {}
# Properties that are being read: a virtual getter makes PySide6 look for an attribute of that very name.
_reading: set[tuple[int, str]] = set()
_receivers: dict[tuple[int, str, Any], Any] = {}


def properties_of(cls: type) -> frozenset[str]:
    """The names of the properties that Qt's meta-object lists for a class."""
    known = _properties.get(cls)
    if known is None:
        meta = cls.staticMetaObject
        known = _properties[cls] = frozenset(meta.property(n).name() for n in range(meta.propertyCount()))
    return known


class Strict:
    """Mixed into every QObject class: attributes as PythonQt has them."""

    # Signatures of signals whose arguments PySide6 knows only as Python objects, and the signals that carry them.
    signatures: ClassVar[dict[str, str]] = {}

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        cls = super().__getattribute__("__class__")
        name = "objectName" if name == "name" else name
        if name in properties_of(cls) and (id(self), name) not in _reading:
            _reading.add((id(self), name))
            try:
                return QtCore.QObject.property(self, name)
            finally:
                _reading.discard((id(self), name))
        if name in _PYTHONQT:  # PySide6 would find its own method of that name
            return types.MethodType(getattr(Strict, name), self)
        value = super().__getattribute__(name)
        if isinstance(value, QtCore.SignalInstance):
            return SignalOf(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        cls = type(self)
        # PySide6 puts a panel's children in its attributes; PythonQt does not.
        if QUiLoader.loading and isinstance(value, QtCore.QObject):
            return
        name = "objectName" if name == "name" else name
        if name in properties_of(cls):
            meta = cls.staticMetaObject.property(cls.staticMetaObject.indexOfProperty(name))
            if not meta.isWritable():
                raise AttributeError(f"The property {cls.__name__}.{name} can't be written.")
            if meta.typeName() == "bool" and not isinstance(value, (bool, int)):
                raise AttributeError(f"{cls.__name__}.{name} is a bool, not {value!r}.")
            if not QtCore.QObject.setProperty(self, name, value):
                raise AttributeError(f"The property {cls.__name__}.{name} can't be {value!r}.")
        elif name.startswith("_") and any(base.__module__.startswith("standin") for base in cls.__mro__ if base in OWN):
            super().__setattr__(name, value)
        else:
            raise AttributeError(f"{cls.__name__} has no property '{name}'.")

    def connect(self, signature: str, slot: Callable[..., object]) -> bool:
        """Connect by signature, such as "clicked(bool)".

        Raises:
            AttributeError: there is no such signal.
        """
        SignalOf(self, *_signal(self, signature)).connect(slot)
        return True

    def disconnect(self, signature: str, slot: Callable[..., object]) -> bool:
        SignalOf(self, *_signal(self, signature)).disconnect(slot)
        return True

    def className(self) -> str:
        return type(self).__name__

    def delete(self) -> None:
        self.deleteLater()


# Classes of the stand-ins that keep state of their own in attributes with a leading underscore.
OWN: set[type] = set()


def own(cls: type) -> type:
    """Register a widget class that a stand-in wrote, also for .ui files."""
    OWN.add(cls)
    widget_classes[cls.__name__] = cls
    return cls


def _signal(sender: Any, signature: str) -> tuple[str, Any]:
    normal = QtCore.QMetaObject.normalizedSignature(signature)
    normal = normal.data().decode() if hasattr(normal, "data") else str(normal)
    name = normal.partition("(")[0]
    known = type(sender).signatures
    meta = type(sender).staticMetaObject
    if normal not in known and meta.indexOfSignal(normal) < 0:
        raise AttributeError(f"{type(sender).__name__} has no signal '{signature}'.")
    name = known.get(normal, name)
    return name, object.__getattribute__(sender, name)


class SignalOf:
    """A signal of one object, which can be connected, disconnected and emitted."""

    def __init__(self, sender: Any, name: str, instance: Any) -> None:
        self._sender, self._name, self._instance = sender, name, instance

    def connect(self, slot: Callable[..., object]) -> None:
        if not callable(slot):
            raise TypeError(f"{slot!r} can't be called.")

        def run(*arguments: Any) -> None:
            try:
                slot(*arguments[: _capacity(slot)])
            except Exception as error:  # noqa: BLE001  as PythonQt: printed, and life goes on
                slot_errors.append(error)
                sys.excepthook(type(error), error, error.__traceback__)

        # PySide6 passes as many arguments as the receiver names, so it names all that the signal has.
        meta = type(self._sender).staticMetaObject
        methods = (meta.method(n) for n in range(meta.methodCount()))
        count = max((m.parameterCount() for m in methods if m.name().data().decode() == self._name), default=0)
        receiver = (lambda: run(), lambda a: run(a), lambda a, b: run(a, b))[count]  # noqa: PLW0108
        _receivers[id(self._sender), self._name, slot] = receiver
        self._instance.connect(receiver)

    def disconnect(self, slot: Callable[..., object]) -> None:
        receiver = _receivers.pop((id(self._sender), self._name, slot), None)
        if receiver is not None:
            self._instance.disconnect(receiver)

    def emit(self, *arguments: Any) -> None:
        self._instance.emit(*arguments)


def _capacity(slot: Callable[..., object]) -> int:
    """How many positional arguments a callable takes."""
    try:
        parameters = inspect.signature(slot).parameters.values()
    except ValueError:
        return 0
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return sys.maxsize
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def __getattr__(name: str) -> Any:
    if name.startswith("__") or name in _FOREIGN:
        raise AttributeError(f"PythonQt's qt has no {name}.")
    if name in _made:
        return _made[name]
    found = next((getattr(module, name) for module in _MODULES if hasattr(module, name)), None)
    if not inspect.isclass(found):
        raise AttributeError(f"PythonQt's qt has no {name}.")
    if inspect.isclass(found) and issubclass(found, QtCore.QObject):
        found = types.new_class(name, (Strict, found), {}, lambda body: body.update(__module__=__name__))
    _made[name] = found
    return found


class QUiLoader(QtUiTools.QUiLoader):
    """Loads a .ui file with the strict classes.

    Raises:
        ValueError: the file names a class, a property, a signal or a slot that does not exist.
    """

    loading = False

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        cls = widget_classes.get(class_name)
        if cls is None:
            if not hasattr(QtWidgets, class_name):
                raise ValueError(f"A .ui file names the class {class_name}, for which there is no stand-in.")
            cls = __getattr__(class_name)
        QUiLoader.loading = False
        widget = cls(parent)
        QUiLoader.loading = True
        widget.setObjectName(name)
        self._kept.append(widget)
        return widget

    def load(self, file: Any) -> Any:
        tree = ElementTree.fromstring(bytes(file.readAll()).decode())
        _check_properties(tree)
        connections = tree.find("connections")
        if connections is not None:
            tree.remove(connections)
        self._kept: list[Any] = []
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        QUiLoader.loading = True
        try:
            widget = super().load(buffer)
        finally:
            QUiLoader.loading = False
        for connection in connections if connections is not None else ():
            _connect(widget, *(connection.findtext(key, "") for key in ("sender", "signal", "receiver", "slot")))
        return widget


def _check_properties(tree: ElementTree.Element) -> None:
    for element in tree.iter("widget"):
        class_name = element.get("class", "")
        cls = widget_classes.get(class_name) or __getattr__(class_name)
        for entry in element.findall("property"):
            if entry.get("stdset") != "0" and entry.get("name") not in properties_of(cls) | {"buddy"}:
                raise ValueError(f"The .ui file gives {element.get('name')} ({class_name}) a '{entry.get('name')}'.")


def _connect(root: Any, sender: str, signal: str, receiver: str, slot: str) -> None:
    def find(name: str) -> Any:
        found = root if root.objectName == name else root.findChild(QtCore.QObject, name)
        if found is None:
            raise ValueError(f"The .ui file connects {name}, which it does not have.")
        return found

    target = find(receiver)
    find(sender).connect(signal, getattr(target, slot.partition("(")[0]))


# The name under which the C++ compiler knows QCoreApplication::processEvents(flags).
_PROCESS_EVENTS = "_ZN16QCoreApplication13processEventsE6QFlagsIN10QEventLoop17ProcessEventsFlagEE"
_WAIT = QtCore.QEventLoop.ProcessEventsFlag.WaitForMoreEvents


def _keeping_the_lock() -> Callable[[int], object] | None:
    """Qt's own function, called without letting go of the interpreter's lock; None where it can't be had."""
    library = Path(QtCore.__file__).parent / "Qt" / "lib" / "libQt6Core.so.6"
    if not library.is_file():
        return None
    function = getattr(ctypes.PyDLL(str(library)), _PROCESS_EVENTS)
    function.argtypes, function.restype = (ctypes.c_int,), None
    return function  # type: ignore[no-any-return]


_process_locked = _keeping_the_lock()
keeps_the_lock = _process_locked is not None


def wait_for_events() -> None:
    """Wait for an event and let it happen, as Slicer's main loop does: Python threads stand still meanwhile."""
    if _process_locked is None:
        QtCore.QCoreApplication.processEvents(_WAIT)
    else:
        _process_locked(_WAIT.value)


def process_events(milliseconds: int = 5) -> None:
    """Let what is due happen, and what falls due within the time."""
    QtCore.QCoreApplication.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, milliseconds)
    QtCore.QCoreApplication.sendPostedEvents(None, int(QtCore.QEvent.Type.DeferredDelete))


def process_until(condition: Callable[[], object], seconds: float = 240.0) -> None:
    """Let events happen until the condition holds.

    Raises:
        TimeoutError: it did not come true in time.
    """
    waker = QtCore.QTimer()  # so that the condition is looked at even if nothing happens
    waker.start(20)
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"What was waited for did not happen within {seconds} s.")
        wait_for_events()
    waker.stop()
