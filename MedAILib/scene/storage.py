"""Scenes, segmentations and surfaces in files, through Slicer's own storage nodes; files appear whole or not at all."""

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import slicer
import vtk

from MedAILib.errors import InputError, OutputError
from MedAILib.output import WholeFiles, whole_file, whole_files
from MedAILib.scene.segments import BINARY_LABELMAP, labelmap_copy

CLOSED_SURFACE = "Closed surface"
VOLUME_ENDINGS = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
SURFACE_ENDINGS = (".stl", ".ply", ".vtp")


def load_volume(scene: "slicer.vtkMRMLScene", path: Path) -> "slicer.vtkMRMLScalarVolumeNode":
    """Read a NIfTI, NRRD or MetaImage file into a new volume node; several components become a vector volume.

    Raises:
        InputError: absent, of another kind, damaged; the scene is as it was then.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; give an image file.")
    if not path.name.lower().endswith(VOLUME_ENDINGS):
        raise InputError(f"{path} is no {', '.join(VOLUME_ENDINGS)} file; convert it to one of these first.")
    _require_whole_gzip(path)
    name = re.sub(r"\.(nii\.gz|[^.]+)$", "", path.name, flags=re.IGNORECASE)
    for class_name in ("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode"):
        node = scene.AddNewNodeByClass(class_name, scene.GenerateUniqueName(name))
        storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
        storage.SetFileName(str(path))
        storage.SetSingleFile(True)
        storage.SetCenterImage(False)
        if _without_messages(storage.ReadData, node) and node.GetImageData() is not None:
            node.CreateDefaultDisplayNodes()
            return node
        scene.RemoveNode(node)
    raise InputError(f"{path} can't be read as an image; it is damaged, or not of the kind that its name says.")


def save_segmentation(node: "slicer.vtkMRMLSegmentationNode", path: Path) -> None:
    """Write a segmentation as a `.seg.nrrd` file: voxels, names, colours, values, terminology, layers; no surfaces.

    The positions are those of the node's own RAS; its parent transform is left out, as Slicer does. The node stays as
    it is.

    A segmentation without segments is written too: nothing was found, which is an answer.

    Raises:
        InputError: segments without voxels (made from surfaces alone).
        OutputError: the file can't be written; an older one of that name is untouched.
    """
    if not path.name.lower().endswith(".seg.nrrd"):
        raise OutputError(f"{path} is no name for a segmentation file; let it end in .seg.nrrd.")
    segments = node.GetSegmentation().GetNumberOfSegments()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    with whole_file(path) as part, _copy_of(node) if segments else nullcontext(node) as copy:
        storage.SetFileName(str(part))
        _require_written(_without_messages(storage.WriteData, copy), path)


def save_surfaces(node: "slicer.vtkMRMLSegmentationNode", folder: Path, ending: str = ".stl") -> list[Path]:
    """Write each segment's closed surface into a file of its own, named after the segment.

    Points are in world millimetres, all parent transforms applied, in LPS as Slicer writes models by default; the
    files say so (a comment in STL and PLY, field data in VTP), and Slicer turns them back on reading. The node stays
    as it is: where it has no surfaces they are made aside.

    Args:
        node: in a scene.
        folder: is made where it does not exist; its parent must.
        ending: ".stl", ".ply" or ".vtp".

    Returns:
        The files, in the order of the segments.

    Raises:
        InputError: no segments, or segments without voxels.
        OutputError: another ending, or a file can't be written; then none is.
    """
    made = _make_folder(folder)
    try:
        with whole_files() as files:
            return write_surfaces(node, folder, files, ending)
    except BaseException:
        if made:
            folder.rmdir()
        raise


def write_surfaces(
    node: "slicer.vtkMRMLSegmentationNode", folder: Path, files: WholeFiles, ending: str = ".stl"
) -> list[Path]:
    """As `save_surfaces`, into a folder that exists, together with the other files that take their places then."""
    if ending not in SURFACE_ENDINGS:
        raise OutputError(f"Surfaces can't be written as {ending}; choose one of {', '.join(SURFACE_ENDINGS)}.")
    surfaces = _surfaces_in_world(node)
    paths = _file_paths([name for name, _ in surfaces], folder, ending)
    for path, (name, surface) in zip(paths, surfaces, strict=True):
        with files.writing(path) as part:
            _write_model(name, surface, part, path)
    return paths


def save_scene(scene: "slicer.vtkMRMLScene", path: Path) -> None:
    """Write a whole scene with all its data as an `.mrb` bundle, which Slicer opens.

    Raises:
        OutputError: the file can't be written; an older one of that name is untouched.
    """
    if path.suffix.lower() != ".mrb":
        raise OutputError(f"{path} is no name for a scene bundle; let it end in .mrb.")
    with whole_file(path) as part, _working_folder_kept():
        _require_written(_without_messages(scene.WriteToMRB, str(part.resolve())), path)


def load_scene(scene: "slicer.vtkMRMLScene", path: Path) -> None:
    """Add everything in an `.mrb` bundle to a scene.

    Raises:
        InputError: absent or damaged.
    """
    with _working_folder_kept():
        opened = path.is_file() and scene.ReadFromMRB(str(path.resolve()))
    if not opened:
        raise InputError(f"{path} can't be opened as a scene bundle (.mrb); it is absent or damaged.")


def _require_whole_gzip(path: Path) -> None:
    """Unpack a compressed file once to its end: Slicer's reader fills what is missing with zeros, without a word."""
    if path.suffix.lower() != ".gz":
        return
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 22):
                pass
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path} is damaged or cut off ({error}); copy or download it again.") from error


@contextmanager
def _working_folder_kept() -> Iterator[None]:
    """Come back to the process's working folder: MRML can leave it for a temporary one that is gone then."""
    folder = Path.cwd()
    try:
        yield
    finally:
        os.chdir(folder)


def _copy_of(node: Any) -> AbstractContextManager[Any]:
    segmentation = node.GetSegmentation()
    if segmentation.GetNumberOfSegments() == 0:
        raise InputError(f"{node.GetName()} has no segments, so there is nothing to write.")
    if not segmentation.ContainsRepresentation(BINARY_LABELMAP):
        raise InputError(f"{node.GetName()} has no binary label maps; create them in the Segmentations module first.")
    return labelmap_copy(node)


def _surfaces_in_world(node: Any) -> list[tuple[str, Any]]:
    """Names and surfaces (points in world RAS, mm, normals outward) of all segments that have any."""
    if node.GetSegmentation().ContainsRepresentation(CLOSED_SURFACE):
        return _surfaces_of(node, node)
    with _copy_of(node) as copy:
        copy.CreateClosedSurfaceRepresentation()
        return _surfaces_of(copy, node)


def _surfaces_of(from_node: Any, node: Any) -> list[tuple[str, Any]]:
    """The surfaces that `from_node` has, in the world as `node` lies in it."""
    to_world = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), None, to_world)
    surfaces = []
    segmentation = from_node.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        surface = vtk.vtkPolyData()
        if not from_node.GetClosedSurfaceRepresentation(segmentation.GetNthSegmentID(index), surface):
            continue
        moved = vtk.vtkTransformPolyDataFilter()
        moved.SetInputData(surface)
        moved.SetTransform(to_world)
        outward = vtk.vtkPolyDataNormals()
        outward.SetInputConnection(moved.GetOutputPort())
        outward.AutoOrientNormalsOn()
        outward.SplittingOff()
        outward.Update()
        surfaces.append((segmentation.GetNthSegment(index).GetName(), outward.GetOutput()))
    if not surfaces:
        raise InputError(f"{node.GetName()} has no segment with a surface, so there is nothing to write.")
    return surfaces


def _write_model(name: str, surface: Any, part: Path, path: Path) -> None:
    model = slicer.vtkMRMLModelNode()
    model.SetName(name)
    model.SetAndObservePolyData(surface)
    storage = slicer.vtkMRMLModelStorageNode()
    storage.SetCoordinateSystem(slicer.vtkMRMLStorageNode.CoordinateSystemLPS)
    storage.SetFileName(str(part))
    _require_written(_without_messages(storage.WriteData, model), path)


def _make_folder(folder: Path) -> bool:
    """Whether the folder had to be made."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(f"The folder {folder} can't be made: {error.strerror}; choose another.") from error
    return True


def _file_paths(names: list[str], folder: Path, ending: str) -> list[Path]:
    """One file name per segment, with what file systems take, no two alike whatever the case."""
    paths, taken = [], set[str]()
    for name in names:
        stem = re.sub(r"[^\w\-. ]+", "_", name).strip(" .") or "segment"
        unique, number = stem, 2
        while unique.lower() in taken:
            unique, number = f"{stem}_{number}", number + 1
        taken.add(unique.lower())
        paths.append(folder / (unique + ending))
    return paths


def _require_written(written: Any, path: Path) -> None:
    if not written:
        raise OutputError(f"{path} can't be written; check the disk's free space and the folder's permissions.")


def _without_messages(action: Any, *arguments: Any) -> Any:
    """Call VTK without its messages on standard error: its answer tells whether it worked."""
    shown = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.SetGlobalWarningDisplay(False)
    try:
        return action(*arguments)
    finally:
        vtk.vtkObject.SetGlobalWarningDisplay(shown)
