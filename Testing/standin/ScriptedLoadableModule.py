"""`slicer.ScriptedLoadableModule`: the four base classes of a module file, as far as they work without a window."""

import unittest
from pathlib import Path

import slicer

from standin import qt


class Module:
    """The C++ side of a module (qSlicerScriptedLoadableModule): the properties that a module file may set."""

    __slots__ = (
        "acknowledgementText",
        "associatedNodeTypes",
        "categories",
        "contributors",
        "dependencies",
        "helpText",
        "hidden",
        "icon",
        "path",
        "title",
    )

    def __init__(self, path: str) -> None:
        self.path = path


class Panel:
    """The C++ side of a module's panel (qSlicerScriptedLoadableModuleWidget)."""

    __slots__ = ("_layout", "_widget", "isEntered")

    def __init__(self) -> None:
        self._widget = qt.QWidget()
        self._layout = qt.QVBoxLayout(self._widget)
        self.isEntered = False

    def layout(self) -> object:
        return self._layout

    def widget(self) -> object:
        """Not of Slicer: the panel itself, for tests to look at."""
        return self._widget


class ScriptedLoadableModule:
    def __init__(self, parent: Module) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Panel | None = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent or Panel()
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()

    def resourcePath(self, filename: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """Slicer's own adds the developer section here."""

    def cleanup(self) -> None:
        """Slicer's own does nothing."""

    def onReload(self) -> None:
        """Slicer's own loads the module file anew and makes a new widget."""


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: object = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> object:
        scene = slicer.mrmlScene
        node = scene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetModuleName(self.moduleName)
            node = scene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Slicer's own shows the message for a moment."""

    def runTest(self) -> None:
        raise AssertionError(f"No test is defined in {type(self).__name__}.")
