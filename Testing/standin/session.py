"""A Slicer session for tests: a real scene, the stand-ins in place, the module's panel opened and driven by events."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from MedAILib.scene.headless import headless_scene
from standin import ctk, qt
from standin.application import Application
from standin.loading import load_module_file, put_in_place
from standin.ScriptedLoadableModule import Module, Panel

MODULE_FILE = Path(__file__).parents[2] / "MedAISegment" / "MedAISegment.py"
SHAPE_KJI = (20, 24, 28)


class Session:
    """From opening Slicer to leaving it; slots that raised make the end fail, unless a test took note of them."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, module_file: Path = MODULE_FILE) -> None:
        self._owner = headless_scene()
        self._panels: list[Any] = []
        self._logics: list[Any] = []
        self.scene = self._owner.scene
        self.scene.AddNewNodeByClass("vtkMRMLSelectionNode")
        view = self.scene.CreateNodeByClass("vtkMRMLSliceCompositeNode")
        view.UnRegister(None)
        view.SetLayoutName("Red")
        self.view = self.scene.AddNode(view)

        def put(target: Any, name: str, value: Any) -> None:
            if isinstance(target, dict):
                patch.setitem(target, name, value)
            else:
                patch.setattr(target, name, value, raising=False)

        self.app: Application = put_in_place(self.scene, module_file, folder, put)
        self.module: ModuleType = load_module_file(module_file)
        self._name = module_file.stem
        self.descriptor = Module(str(module_file))
        getattr(self.module, self._name)(self.descriptor)
        self.app.start()

    def open(self, client: Any = None) -> Any:
        """Open the module's panel; its runs go to this client."""
        panel = Panel()
        widget = getattr(self.module, f"{self._name}Widget")(panel)
        widget.setup()
        if client is not None:
            widget.logic.close()
            widget.logic.use(client)
            client_close, client.close = client.close, lambda: None  # the panel does not end a worker that tests share
            self._panels.append((widget, client, client_close))
        else:
            self._panels.append((widget, None, None))
        panel.isEntered = True
        widget.enter()
        return widget

    def open_on(self, client: Any, model: str, **parameters: Any) -> Any:
        """Open the panel with a model on the CPU, and these parameters."""
        widget = self.open(client)
        for name, value in ({"model": model, "device": "cpu"} | parameters).items():
            setattr(widget._parameterNode, name, value)
        return widget

    def logic(self, client: Any = None) -> Any:
        self._logics.append(getattr(self.module, f"{self._name}Logic")(client))
        return self._logics[-1]

    def close(self) -> None:
        for logic in self._logics:
            logic._shared.stop()
        for widget, client, client_close in self._panels:
            if widget._run is not None:
                widget._run.cancel()
            widget.cleanup()
            widget._uiWidget.setMRMLScene(None)
            if client is not None:
                client.close = client_close
        sys.modules["MedAILib.gui.shared_worker"].SHARED.end()
        self._owner.close()

    def add_volume(self, name: str = "Head", seed: int = 0, shape_kji: tuple[int, int, int] = SHAPE_KJI) -> Any:
        """A volume of noise on an oblique, anisotropic grid."""
        node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        slicer.util.updateVolumeFromArray(node, np.random.default_rng(seed).normal(size=shape_kji).astype(np.float32))
        transform = vtk.vtkTransform()
        transform.RotateZ(20)
        transform.Scale(1.0, 1.2, 1.5)
        node.SetIJKToRASMatrix(transform.GetMatrix())
        return node

    def add_sequence(self, shapes_kji: Sequence[tuple[int, int, int]], **index: str) -> Any:
        """A sequence of such volumes over 0, 0.5, 1 and so on, shown by a browser; `index` may give name and unit."""
        sequence = self.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
        sequence.SetIndexName(index.get("name", sequence.GetIndexName()))
        sequence.SetIndexUnit(index.get("unit", sequence.GetIndexUnit()))
        for number, shape_kji in enumerate(shapes_kji):
            volume = self.add_volume("Frame", seed=number, shape_kji=shape_kji)
            sequence.SetDataNodeAtValue(volume, f"{number / 2:g}")
            self.scene.RemoveNode(volume)
        browser = self.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Player")
        browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
        return sequence

    def save_and_load(self) -> str:
        """Save the scene's description, close it and load it again; its text."""
        self.scene.SetSaveToXMLString(1)
        self.scene.Commit()
        text = str(self.scene.GetSceneXMLString())
        self.scene.Clear()
        self.scene.SetLoadFromXMLString(1)
        self.scene.SetSceneXMLString(text)
        self.scene.Import()
        return text

    def node_ids(self) -> list[str]:
        """All nodes but those by which panel and application remember their own state."""
        own = ("vtkMRMLScriptedModuleNode",)
        nodes = [self.scene.GetNthNode(n) for n in range(self.scene.GetNumberOfNodes())]
        return [node.GetID() for node in nodes if node.GetClassName() not in own]

    def nodes(self, class_name: str) -> list[Any]:
        return list(slicer.util.getNodesByClass(class_name, self.scene))

    @staticmethod
    def until(condition: Callable[[], object], seconds: float = 240.0) -> None:
        """Let events happen until the condition holds."""
        qt.process_until(condition, seconds)

    @staticmethod
    def messages() -> list[str]:
        """The message boxes that were shown."""
        return [text for text, _ in ctk.shown]


def run_to_end(widget: Any, seconds: float = 240.0) -> None:
    """Click Apply and let events happen until the run is over."""
    assert widget.ui.applyButton.enabled, widget.ui.applyButton.toolTip
    widget.ui.applyButton.click()
    qt.process_until(lambda: widget._run is None or widget._run.finished, seconds)
    qt.process_events(20)


def slot_errors() -> list[BaseException]:
    """The exceptions that slots raised so far, taken note of."""
    errors = list(qt.slot_errors)
    qt.slot_errors.clear()
    return errors
