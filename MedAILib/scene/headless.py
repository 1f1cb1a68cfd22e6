"""A scene with the logics that Slicer gives its own, for work without Slicer's window; not used inside of Slicer.

The pip package `slicer-core` is 3D Slicer's MRML without Qt. A bare `vtkMRMLScene` of it lacks what the application
sets up at its start: default colours, slice orientations, the logics that segmentations, sequences and subject
hierarchy lean on.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import slicer
import vtk

from MedAILib.scene.segments import let_go_of_voxels

# Names under which the application knows its modules; other logics look each other up by them.
_MODULE_LOGICS = {
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Texts": "vtkSlicerTextsLogic",
    "SceneViews": "vtkSlicerSceneViewsModuleLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
}


class HeadlessScene:
    """Owns a fresh scene, its application logic and its module logics, from construction to `close`.

    Any number may live in one process, one after the other or side by side; none is global. Nodes of it must not be
    used after `close`.

    Example::

        with headless_scene() as owner:
            node = load_volume(owner.scene, Path("brain.nii.gz"))
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="medai-scene-")
        self._closed = False
        self.scene = slicer.vtkMRMLScene()
        with _quiet():
            self._application = slicer.vtkSlicerApplicationLogic()
            self._application.SetMRMLScene(self.scene)
            for what in ("Temporary", "Home", "Share"):
                self._set_folder(what)
            self._colors = self._add_colors()
            self._collections = vtk.vtkCollection(), vtk.vtkCollection()
            self._application.SetSliceLogics(self._collections[0])
            self._application.SetViewLogics(self._collections[1])
            self._remote = self._add_file_access()
            self._logics = [self._add_logic(*item) for item in _MODULE_LOGICS.items()]
            slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)

    def _set_folder(self, what: str) -> None:
        folder = Path(self._folder.name) / what
        folder.mkdir()
        setter = {"Temporary": "SetTemporaryPath", "Home": "SetHomeDirectory", "Share": "SetShareDirectory"}[what]
        getattr(self._application, setter)(str(folder))

    def _add_colors(self) -> Any:
        """The colour nodes that display nodes refer to: Grey, Labels, GenericAnatomyColors and so on."""
        logic = slicer.vtkMRMLColorLogic()
        logic.SetMRMLApplicationLogic(self._application)
        logic.SetMRMLScene(self.scene)
        logic.AddDefaultColorNodes()
        self._application.SetColorLogic(logic)
        return logic

    def _add_file_access(self) -> tuple[Any, Any]:
        """What storage nodes ask for files; local files go through it too."""
        remote, manager = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
        remote.GetCacheManager().SetRemoteCacheDirectory(str(Path(self._folder.name) / "Temporary"))
        remote.SetMRMLApplicationLogic(self._application)
        remote.SetMRMLScene(self.scene)
        manager.SetMRMLApplicationLogic(self._application)
        manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
        remote.AddDataIOToScene()
        return remote, manager

    def _add_logic(self, name: str, class_name: str) -> Any:
        """Connect one logic and return it to be kept: the application logic does not hold it alive."""
        logic = getattr(slicer, class_name)()
        if logic.IsA("vtkSlicerModuleLogic"):
            logic.SetModuleShareDirectory(str(Path(self._folder.name) / "Share"))
        logic.SetMRMLApplicationLogic(self._application)
        logic.SetMRMLScene(self.scene)
        self._application.SetModuleLogic(name, logic)
        return logic

    def close(self) -> None:
        """Empty the scene and let its logics and temporary files go; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with _quiet():
            for node in self.scene.GetNodesByClass("vtkMRMLSegmentationNode"):
                let_go_of_voxels(node.GetSegmentation())
            for sequence in self.scene.GetNodesByClass("vtkMRMLSequenceNode"):
                for node in sequence.GetSequenceScene().GetNodesByClass("vtkMRMLSegmentationNode"):
                    let_go_of_voxels(node.GetSegmentation())
            self.scene.Clear(True)
            for logic in reversed(self._logics):
                logic.SetMRMLScene(None)
            self._remote[0].RemoveDataIOFromScene()
            self._colors.SetMRMLScene(None)
            self._application.SetMRMLScene(None)
        self._folder.cleanup()

    def __enter__(self) -> "HeadlessScene":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def headless_scene() -> HeadlessScene:
    """A fresh scene with what Slicer sets up for its own; takes about 50 ms."""
    return HeadlessScene()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep VTK from printing that files of the application are absent, which they always are here."""
    shown = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        vtk.vtkObject.SetGlobalWarningDisplay(shown)
