"""The qMRML widgets that the module files use, over a real scene."""

from collections.abc import Sequence
from typing import Any, ClassVar

import slicer
from PySide6 import QtCore, QtWidgets

from standin.qt import Strict, own


@own
class qMRMLWidget(Strict, QtWidgets.QWidget):
    """A panel that passes its scene on."""

    signatures: ClassVar = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}
    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)


@own
class qMRMLNodeComboBox(Strict, QtWidgets.QWidget):
    """Offers the nodes of some classes; the choice follows the scene."""

    signatures: ClassVar = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
    }
    currentNodeChanged = QtCore.Signal(object)
    currentNodeIDChanged = QtCore.Signal(str)
    nodeAddedByUser = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._types: tuple[str, ...] = ()
        self._current: str | None = None
        self._settings: dict[str, Any] = {"noneDisplay": "None", "baseName": ""}
        self._tags: list[int] = []
        self._box = QtWidgets.QComboBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self.setFocusProxy(self._box)
        self._box.activated.connect(self._picked)

    def _flag(name: str, default: bool) -> Any:
        def read(self: Any) -> bool:
            return bool(self._settings.get(name, default))

        def write(self: Any, value: bool) -> None:
            self._settings[name] = value
            self._refresh()

        return QtCore.Property(bool, read, write)

    def _text(name: str) -> Any:
        def read(self: Any) -> str:
            return str(self._settings[name])

        def write(self: Any, value: str) -> None:
            self._settings[name] = value
            self._refresh()

        return QtCore.Property(str, read, write)

    noneEnabled = _flag("noneEnabled", False)
    addEnabled = _flag("addEnabled", True)
    removeEnabled = _flag("removeEnabled", True)
    renameEnabled = _flag("renameEnabled", False)
    editEnabled = _flag("editEnabled", False)
    showHidden = _flag("showHidden", False)
    showChildNodeTypes = _flag("showChildNodeTypes", True)
    selectNodeUponCreation = _flag("selectNodeUponCreation", True)
    noneDisplay = _text("noneDisplay")
    baseName = _text("baseName")

    def _node_types(self) -> list[str]:
        return list(self._types)

    def setNodeTypes(self, types: Sequence[str]) -> None:
        self._types = tuple(types)
        self._refresh()

    nodeTypes = QtCore.Property("QStringList", _node_types, setNodeTypes)

    def _current_id(self) -> str:
        return self._current or ""

    def setCurrentNodeID(self, node_id: str | None) -> None:
        known = {node.GetID() for node in self._nodes()}
        self._choose(node_id if node_id in known else None)

    currentNodeID = QtCore.Property(str, _current_id, setCurrentNodeID)

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene, self._tags = scene, []
        if scene is not None:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
            self._tags = [scene.AddObserver(event, lambda *_: self._refresh()) for event in events]
        self._refresh()

    def mrmlScene(self) -> Any:
        return self._scene

    def currentNode(self) -> Any:
        return self._scene.GetNodeByID(self._current) if self._scene and self._current else None

    def setCurrentNode(self, node: Any) -> None:
        if node is not None and not isinstance(node, slicer.vtkMRMLNode):
            raise TypeError(f"{node!r} is no node.")
        self.setCurrentNodeID(None if node is None else node.GetID())

    def nodeCount(self) -> int:
        return len(self._nodes())

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        nodes = [self._scene.GetNthNode(n) for n in range(self._scene.GetNumberOfNodes())]
        children = self.showChildNodeTypes
        fits = [n for n in nodes if any(n.GetClassName() == t or (children and n.IsA(t)) for t in self._types)]
        return [node for node in fits if self.showHidden or not node.GetHideFromEditors()]

    def _refresh(self) -> None:
        nodes = self._nodes()
        if self._current not in {node.GetID() for node in nodes}:
            self._choose(None)
        if self._current is None and nodes and not self.noneEnabled:
            self._choose(nodes[0].GetID())
        self._fill(nodes)

    def _fill(self, nodes: list[Any]) -> None:
        self._box.clear()
        if self.noneEnabled or not nodes:
            self._box.addItem(self.noneDisplay if self.noneEnabled else "Select a volume", "")
        for node in nodes:
            self._box.addItem(node.GetName(), node.GetID())
        self._box.setCurrentIndex(max(0, self._box.findData(self._current or "")))

    def _picked(self, index: int) -> None:
        self._choose(self._box.itemData(index) or None)

    def _choose(self, node_id: str | None) -> None:
        if node_id != self._current:
            self._current = node_id
            self._fill(self._nodes())
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(node_id or "")
