"""`slicer.ScriptedLoadableModule`: the four base classes of a module file, as far as they work without a window."""

import unittest

from standin.qt import QVBoxLayout


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

    __slots__ = ("_layout",)

    def __init__(self) -> None:
        self._layout = QVBoxLayout()

    def layout(self) -> QVBoxLayout:
        return self._layout


class ScriptedLoadableModule:
    def __init__(self, parent: Module) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Panel | None = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent or Panel()
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()

    def setup(self) -> None:
        """Slicer's own adds the developer section here."""

    def cleanup(self) -> None:
        """Slicer's own does nothing."""

    def onReload(self) -> None:
        """Slicer's own loads the module file anew and makes a new widget."""


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: object = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Slicer's own shows the message for a moment."""

    def runTest(self) -> None:
        raise AssertionError(f"No test is defined in {type(self).__name__}.")
