"""`slicer.app`, `slicer.modules` and the main window, as far as the module files and `slicer.util` ask for them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from standin import qt


@qt.own
class PlotView(qt.Strict, QtWidgets.QWidget):
    """A plot's view, in which points can be selected."""

    signatures: ClassVar = {"dataSelected(vtkStringArray*,vtkCollection*)": "dataSelected"}
    dataSelected = QtCore.Signal(object, object)


class SliceView:
    """A slice view's annotations, in its corners and at its edges."""

    __slots__ = ("_corners", "renders")

    def __init__(self) -> None:
        self._corners = vtk.vtkCornerAnnotation()
        self.renders = 0

    def cornerAnnotation(self) -> Any:
        return self._corners

    def scheduleRender(self) -> None:
        self.renders += 1

    def move(self) -> None:
        """Not of Slicer: what its own annotations do whenever a slice moves; they write all four corners anew."""
        for corner in range(4):
            self._corners.SetText(corner, "")


class LayoutManager:
    """Knows a layout's number; of views there are one of plots and the slices' corners."""

    __slots__ = ("_plot", "_slices", "layout", "plotViewCount", "resets")

    def __init__(self) -> None:
        self.layout = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
        self.resets = 0
        self._plot = PlotView()
        self.plotViewCount = 1
        self._slices = {name: SliceView() for name in ("Red", "Green", "Yellow")}

    def plotWidget(self, number: int) -> Any:
        if not 0 <= number < self.plotViewCount:
            raise IndexError(f"There is no plot view {number}.")
        return SimpleNamespace(plotView=lambda: self._plot)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._slices)

    def sliceWidget(self, name: str) -> Any:
        return SimpleNamespace(sliceView=lambda: self._slices[name])

    def setLayout(self, layout: int) -> None:
        self.layout = layout

    def mrmlSliceLogics(self) -> Any:
        return vtk.vtkCollection()

    def resetThreeDViews(self) -> None:
        self.resets += 1


class ApplicationLogic:
    """The part of the application's logic that shows tables, over a scene's selection node."""

    __slots__ = ("_scene", "propagated")

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self.propagated: list[str] = []

    def GetSelectionNode(self) -> Any:
        node = self._scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
        return node or self._scene.AddNewNodeByClass("vtkMRMLSelectionNode")

    def PropagatePlotChartSelection(self) -> None:
        self.propagated.append("plot")

    def PropagateTableSelection(self) -> None:
        self.propagated.append("table")


class ModuleSelector:
    __slots__ = ("selected",)

    def __init__(self) -> None:
        self.selected = ""

    def selectModule(self, name: str) -> None:
        self.selected = name


@qt.own
class MainWindow(qt.Strict, QtWidgets.QMainWindow):
    """What `slicer.util` asks the main window for."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = ModuleSelector()
        self.setObjectName("qSlicerMainWindow")

    def moduleSelector(self) -> ModuleSelector:
        return self._selector


class Editor:
    """The Segment Editor's widget."""

    __slots__ = ("segmentation", "source")

    def setSegmentationNode(self, node: Any) -> None:
        self.segmentation = node

    def setSourceVolumeNode(self, node: Any) -> None:
        self.source = node


class PlotsLogic:
    """Remembers the charts that were shown."""

    __slots__ = ("shown",)

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def ShowChartInLayout(self, chart: Any) -> None:
        if not isinstance(chart, slicer.vtkMRMLPlotChartNode):
            raise TypeError(f"{chart!r} is no chart.")
        self.shown.append(chart)


class Application:
    """`slicer.app`."""

    __slots__ = ("_callbacks", "_layout", "_logic", "_settings", "_window", "testing")

    applicationName = "Slicer"
    applicationVersion = "5.12.0"
    revision = "34000"
    os = "linux"

    def __init__(self, scene: Any, settings: Path) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self._layout, self._logic = LayoutManager(), ApplicationLogic(scene)
        self._settings = qt.QSettings(str(settings), qt.QSettings.IniFormat)
        self._window = MainWindow()
        self.testing = False

    def connect(self, signal: str, callback: Callable[[], None]) -> bool:
        if signal != "startupCompleted()":
            raise AttributeError(f"The stand-in's application has no signal '{signal}'.")
        self._callbacks.append(callback)
        return True

    def start(self) -> None:
        """Not of Slicer: say that the start-up is completed."""
        for callback in self._callbacks:
            callback()

    def testingEnabled(self) -> bool:
        return self.testing

    def layoutManager(self) -> LayoutManager:
        return self._layout

    def applicationLogic(self) -> ApplicationLogic:
        return self._logic

    def settings(self) -> Any:
        return self._settings

    def topLevelWidgets(self) -> list[MainWindow]:
        return [self._window]

    def processEvents(self) -> None:
        qt.process_events(0)

    def setOverrideCursor(self, cursor: Any) -> None:
        qt.QApplication.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        qt.QApplication.restoreOverrideCursor()


def modules(scene: Any, module_file: Path) -> SimpleNamespace:
    """`slicer.modules` with the modules that are asked for."""
    tables, plots = slicer.vtkSlicerTablesLogic(), PlotsLogic()
    editor = Editor()
    representation = SimpleNamespace(self=lambda: SimpleNamespace(editor=editor))
    return SimpleNamespace(
        plots=SimpleNamespace(logic=lambda: plots),
        tables=SimpleNamespace(logic=lambda: tables),
        segmenteditor=SimpleNamespace(widgetRepresentation=lambda: representation),
        **{module_file.stem.lower(): SimpleNamespace(path=str(module_file), name=module_file.stem)},
    )
