"""`slicer.parameterNodeWrapper`: typed parameters in a script module's node, and their connection to widgets.

Keeps parameters in the node as Slicer does: texts as parameters, nodes as node references, so that a saved scene is a
Slicer scene. Types: str, bool, int, float and node classes, with `Annotated` validators. Anything else is refused.
"""

import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
import slicer.util
import vtk

from standin import qt
from standin.widgets import qMRMLNodeComboBox

SlicerParameterNamePropertyName = "SlicerParameterName"


@dataclass
class Default:
    value: Any


class Choice:
    def __init__(self, choices: Any) -> None:
        self.choices = list(choices)

    def check(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}.")


@dataclass
class WithinRange:
    minimum: float
    maximum: float

    def check(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value!r} is not within {self.minimum} and {self.maximum}.")


class _Parameter:
    """One parameter: how it is written into a node and read from it."""

    def __init__(self, name: str, hint: Any, default: Any) -> None:
        self.name, self.annotations = name, ()
        if typing.get_origin(hint) is typing.Annotated:
            hint, *annotations = typing.get_args(hint)
            self.annotations = tuple(annotations)
        given = next((a.value for a in self.annotations if isinstance(a, Default)), None)
        self.type = hint
        self.is_node = isinstance(hint, type) and issubclass(hint, slicer.vtkMRMLNode)
        if hint not in (str, bool, int, float) and not self.is_node:
            raise TypeError(f"The stand-in knows no parameters of the type {hint}.")
        self.default = default if default is not None else given
        if self.default is None and not self.is_node:
            self.default = hint()

    def write(self, node: Any, value: Any) -> None:
        if not isinstance(value, self.type) and not (self.is_node and value is None):
            raise TypeError(f"{self.name} is {self.type.__name__}, not {value!r}.")
        for annotation in self.annotations:
            if hasattr(annotation, "check"):
                annotation.check(value)
        with slicer.util.NodeModify(node):
            if self.is_node:
                node.SetParameter(self.name, "")
                node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            else:
                node.SetParameter(self.name, str(value))

    def read(self, node: Any) -> Any:
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        return text == "True" if self.type is bool else self.type(text)


class _Connector:
    """Between a parameter and a widget of exactly the type that Slicer has a connector for."""

    def __init__(self, widget: Any, parameter: _Parameter) -> None:
        self.widget, self._parameter, self._callback = widget, parameter, None
        kind = (type(widget), None if parameter.is_node else parameter.type)
        known = {
            (qt.QCheckBox, bool): ("checked", "stateChanged"),
            (qt.QSpinBox, int): ("value", "valueChanged"),
            (qt.QSlider, int): ("value", "valueChanged"),
            (qt.QDoubleSpinBox, float): ("value", "valueChanged"),
            (qt.QLineEdit, str): ("text", "textChanged"),
            (qt.QComboBox, str): ("", "currentIndexChanged"),
            (qMRMLNodeComboBox, None): ("", "currentNodeChanged"),
        }
        if kind not in known:
            raise RuntimeError(f"Slicer connects no {parameter.type} to {type(widget).__name__} '{widget.name}'.")
        self._property, self._signal = known[kind]
        limits = next((a for a in parameter.annotations if isinstance(a, WithinRange)), None)
        if type(widget) is qMRMLNodeComboBox:
            widget.nodeTypes = [parameter.type.__name__]
        elif limits is not None:
            widget.setRange(limits.minimum, limits.maximum)
        elif type(widget) is qt.QComboBox:
            self._choices = next(a for a in parameter.annotations if isinstance(a, Choice)).choices
            widget.clear()
            for choice in self._choices:
                widget.addItem(str(choice))

    def read(self) -> Any:
        if self._property:
            return getattr(self.widget, self._property)
        if type(self.widget) is qt.QComboBox:
            return self._choices[self.widget.currentIndex]
        return self.widget.currentNode()

    def write(self, value: Any) -> None:
        if self._property:
            setattr(self.widget, self._property, value)
        elif type(self.widget) is qt.QComboBox:
            self.widget.currentIndex = self._choices.index(value)
        else:
            self.widget.setCurrentNode(value)

    def changed(self) -> None:
        if self._callback is not None:
            self._callback()

    def on_changed(self, callback: Callable[[], None] | None) -> None:
        self._callback = callback
        signal = getattr(self.widget, self._signal)
        (signal.disconnect if callback is None else signal.connect)(self.changed)


class _Wrapper:
    """What the decorator adds to a class of parameters."""

    parameters: dict[str, _Parameter]

    def __init__(self, parameter_node: Any) -> None:
        self.parameterNode = parameter_node
        self._connectors: dict[int, dict[str, _Connector]] = {}
        self._next_tag = 0
        self._updating = False
        self._values: dict[str, Any] = {}
        for parameter in self.parameters.values():
            if not parameter_node.HasParameter(parameter.name):
                parameter.write(parameter_node, parameter.default)
        self._read()
        self.AddObserver(vtk.vtkCommand.ModifiedEvent, self._read)

    def _read(self, *_: Any) -> None:
        """Values are kept until the node says that it was modified, nodes too, as in Slicer."""
        for name, parameter in self.parameters.items():
            if not self.parameterNode.HasParameter(name):
                parameter.write(self.parameterNode, parameter.default)
            self._values[name] = parameter.read(self.parameterNode)

    def getValue(self, name: str) -> Any:
        return self._values[name]

    def setValue(self, name: str, value: Any) -> None:
        with slicer.util.NodeModify(self.parameterNode):
            self.parameters[name].write(self.parameterNode, value)
            self._values[name] = self.parameters[name].read(self.parameterNode)

    def connectGui(self, gui: Any) -> None:
        """Slicer's own does not return the tag, so that such a connection can't be ended."""
        named = {widget.property(SlicerParameterNamePropertyName): widget for widget in vars(gui).values()}
        self.connectParametersToGui({name: widget for name, widget in named.items() if name})

    def connectParametersToGui(self, widgets: dict[str, Any]) -> int:
        for name in widgets:
            if name not in self.parameters:
                raise ValueError(f"Cannot find a param with the given name: {name}")
        found = {name: _Connector(widget, self.parameters[name]) for name, widget in widgets.items()}
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        self._connectors[tag] = found
        for name, connector in found.items():
            connector.write(self.getValue(name))
            connector.on_changed(self._take(name, connector))
        self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._show())  # never removed, as in Slicer
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        for connector in self._connectors.pop(tag, {}).values():
            connector.on_changed(None)

    def _take(self, name: str, connector: _Connector) -> Callable[[], None]:
        def take() -> None:
            if not self._updating:
                self.setValue(name, connector.read())

        return take

    def _show(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors in self._connectors.values():
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, before: int) -> None:
        self.parameterNode.EndModify(before)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()


def parameterNodeWrapper(cls: type) -> type:
    """Make a class of annotated parameters one that reads and writes them in a node."""
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {name: _Parameter(name, hint, getattr(cls, name, None)) for name, hint in hints.items()}

    def of(name: str) -> property:
        return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))

    reserved = set(parameters) & set(dir(_Wrapper))
    if reserved:
        raise ValueError(f"Cannot use reserved name '{reserved.pop()}' in a parameterNodeWrapper")
    return type(cls.__name__, (_Wrapper,), {"parameters": parameters} | {name: of(name) for name in parameters})
