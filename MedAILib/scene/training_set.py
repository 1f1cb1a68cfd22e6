"""Corrected segmentations of a scene become labelled images on disk, in nnU-Net's layout: the next model's data.

Only files are written; the scene stays as it is. Training itself is not done here.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from MedAILib.errors import InputError, OutputError
from MedAILib.output import WholeFiles, cannot_write, whole_files
from MedAILib.scene.arrays import matrix_of, node_matrix, set_voxels, voxels_of
from MedAILib.scene.read import volume_from_nodes
from MedAILib.scene.volume_node import STAND_INS
from MedAILib.volume import Roi, Volume

IMAGES, LABELS, DESCRIPTION, PATIENTS = "imagesTr", "labelsTr", "dataset.json", "patients.csv"
ENDING = ".nrrd"
OWN = "medai"  # our entry in the description: what each case was made from
LARGEST_VALUE = 255


@dataclass(frozen=True)
class AddedCase:
    """A labelled image that was added to a training set.

    Args:
        name: of the case, and of its files.
        replaced: whether the same image was there and got this label instead of its older one.
        labels: the structures that it has voxels of.
        cases: how many the set has now.
    """

    name: str
    replaced: bool
    labels: tuple[str, ...]
    cases: int


def add_training_case(
    volume_nodes: "Sequence[slicer.vtkMRMLScalarVolumeNode]",
    segmentation_node: "slicer.vtkMRMLSegmentationNode",
    folder: Path,
    labels: Mapping[int, str] | None = None,
    channels: Sequence[str] = (),
    roi: Roi | None = None,
) -> AddedCase:
    """Add an image and its segmentation to a folder of labelled images.

    The label map is on the image's own grid, the segments as they lie to the image in the world, through all parent
    transforms. An image that is there already, told by its voxels, gets the new label. Cases of one DICOM patient are
    told to be so (by a hash), for splits.

    Args:
        volume_nodes: the image, a node for each channel.
        segmentation_node: its structures, told by their segments' names.
        folder: made if it is absent; else a training set, which the case joins.
        labels: for a new set, the values that names get, as the model has them that is to be corrected; names that
            are not among them get the next free values.
        channels: for a new set, what they are called; by the nodes' names where these are not as many as there are.
        roi: the part of the image that is added, a box in its own RAS; None for all. A model that wants crops has
            labelled nothing outside of it.

    Raises:
        InputError: no segment with voxels on the image, two of one name, or some that overlap; the folder holds
            something else, or images of other channels.
        GeometryError: the image's grid is sheared.
        OutputError: the folder can't be written; it is as it was then.
    """
    volume = volume_from_nodes(volume_nodes)
    names = channels if len(channels) == volume.channels else [node.GetName() for node in volume_nodes]
    description = _description(folder, volume, names, labels or {})
    box = (slice(None),) * 3 if roi is None else volume.geometry.box_of_roi(roi)
    volume = volume if roi is None else volume.cropped(box)
    voxels = _voxels_by_name(segmentation_node, volume_nodes[0], box)
    values: dict[str, int] = description["labels"]
    for name in voxels:
        values.setdefault(name, max(values.values()) + 1)
    if max(values.values()) > LARGEST_VALUE:
        raise InputError(f"{folder} would have more than {LARGEST_VALUE} structures; keep fewer segments.")
    label = _label_map(voxels, values, segmentation_node.GetName())
    cases: dict[str, Any] = description[OWN]["cases"]
    digest = hashlib.sha256(f"{volume.data.shape}".encode() + np.ascontiguousarray(volume.data).tobytes()).hexdigest()
    same = next((name for name, case in cases.items() if case["sha256"] == digest), None)
    name = same or _free_name(volume_nodes[0].GetName(), cases)
    cases[name] = {"sha256": digest, "image": volume.name, "patient": _patient(volume_nodes[0]) or name}
    description["numTraining"] = len(cases)
    _write(folder, name, volume, label, description)
    return AddedCase(name, same is not None, tuple(voxels), len(cases))


def _voxels_by_name(node: Any, volume_node: Any, box: tuple[slice, slice, slice]) -> dict[str, NDArray[np.bool_]]:
    """Which voxels (K, J, I) in a box of an image each segment has, by its name; segments without any are left out."""
    if node is None or not hasattr(node, "IsA") or not node.IsA("vtkMRMLSegmentationNode"):
        raise InputError("No segmentation was given; choose the one that belongs to the image.")
    if node.GetScene() is not volume_node.GetScene():
        raise InputError(f"{node.GetName()} and {volume_node.GetName()} lie in different scenes.")
    segmentation = node.GetSegmentation()
    found: dict[str, NDArray[np.bool_]] = {}
    for index in range(segmentation.GetNumberOfSegments()):
        name = segmentation.GetNthSegment(index).GetName().strip()
        inside = _voxels_on_grid(node, segmentation.GetNthSegmentID(index), volume_node)[box]
        if not inside.any():
            continue
        if name in found or not name or name == "background":
            raise InputError(
                f"{node.GetName()} has two segments named '{name}'; give each structure a name of its own."
                if name in found
                else f"{node.GetName()} has a segment named '{name}'; name it for its structure."
            )
        found[name] = inside
    if not found:
        raise InputError(
            f"{node.GetName()} has no segment with voxels on {volume_node.GetName()}; choose the segmentation that "
            "belongs to the image."
        )
    return found


def _voxels_on_grid(node: Any, segment_id: str, volume_node: Any) -> NDArray[np.bool_]:
    """Which voxels (K, J, I) of an image lie in a segment, by the nearest voxel of the segment's own grid."""
    image, grid, found = (slicer.vtkOrientedImageData() for _ in range(3))
    shape = volume_node.GetImageData().GetDimensions()[::-1]
    if not node.GetBinaryLabelmapRepresentation(segment_id, image) or image.IsEmpty():
        return np.zeros(shape, np.bool_)
    grid.SetExtent(volume_node.GetImageData().GetExtent())
    grid.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    grid.SetGeometryFromImageToWorldMatrix(matrix_of(node_matrix(volume_node)))
    between = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        node.GetParentTransformNode(), volume_node.GetParentTransformNode(), between
    )
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        image, grid, found, False, False, between
    )
    return np.asarray(voxels_of(found)[0] > 0).reshape(shape)


def _label_map(voxels: Mapping[str, NDArray[np.bool_]], values: Mapping[str, int], segmentation: str) -> NDArray[Any]:
    """One value for each voxel (K, J, I), uint8."""
    label = np.zeros(next(iter(voxels.values())).shape, np.uint8)
    names = {value: name for name, value in values.items()}
    for name, inside in voxels.items():
        if (both := np.unique(label[inside & (label > 0)])).size:
            raise InputError(
                f"The segments {names[int(both[0])]} and {name} of {segmentation} overlap; a voxel has one structure: "
                "mend it in the Segment Editor, where masking keeps segments apart."
            )
        label[inside] = values[name]
    return label


def _description(folder: Path, volume: Volume, names: Sequence[str], labels: Mapping[int, str]) -> dict[str, Any]:
    """A training set's `dataset.json`, or one for a set that is to be made."""
    path = folder / DESCRIPTION
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is there and is no training set; choose another folder, or a new one.")
        if len(names) != volume.channels:  # a node's components are channels, too
            names = [f"channel {number}" for number in range(volume.channels)]
        channels = {str(number): name for number, name in enumerate(names)}
        known = {name: value for value, name in sorted(labels.items()) if value > 0}
        return {
            "channel_names": channels,
            "labels": {"background": 0, **known},
            "numTraining": 0,
            "file_ending": ENDING,
            OWN: {"cases": {}},
        }
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        whole = all(isinstance(content[key], dict) for key in ("labels", "channel_names", OWN))
        whole = whole and isinstance(content[OWN]["cases"], dict)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise InputError(f"{folder} is no training set that was made in Slicer; choose another folder, or a new one.")
    if (count := len(content["channel_names"])) != volume.channels:
        raise InputError(
            f"{volume.name} has {volume.channels} channels, and the training set {folder} has {count}; choose the same "
            "number of images, or another folder."
        )
    return content


def _free_name(image: str, cases: Mapping[str, Any]) -> str:
    """A name for files, after the image's."""
    plain = re.sub(r"[^A-Za-z0-9-]+", "_", image).strip("_")[:60] or "case"
    number = 1
    while (name := f"{plain}_{number:03d}") in cases:
        number += 1
    return name


def _patient(node: Any) -> str:
    """A hash of the image's DICOM patient, as the subject hierarchy has it; empty where it has none."""
    hierarchy = node.GetScene().GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    item = hierarchy.GetItemByDataNode(node) if hierarchy else 0
    while item and item != hierarchy.GetSceneItemID():
        if hierarchy.GetItemLevel(item) == "Patient":
            told = hierarchy.GetItemUID(item, "DICOM")
            return hashlib.sha256(told.encode()).hexdigest()[:12] if told else ""
        item = hierarchy.GetItemParent(item)
    return ""


def _write(folder: Path, name: str, volume: Volume, label: NDArray[Any], description: dict[str, Any]) -> None:
    """All files of a case, and the set's description, together or not at all."""
    made = not folder.exists()
    try:
        for inside in (IMAGES, LABELS):
            (folder / inside).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["case", "patient"])
    table.writerows([case, told["patient"]] for case, told in description[OWN]["cases"].items())
    try:
        with whole_files() as files:
            for number, channel in enumerate(volume.data):
                _write_image(files, channel, volume, folder / IMAGES / f"{name}_{number:04d}{ENDING}", False)
            _write_image(files, label, volume, folder / LABELS / f"{name}{ENDING}", True)
            for path, text in (
                (folder / PATIENTS, rows.getvalue()),
                (folder / DESCRIPTION, json.dumps(description, indent=2, ensure_ascii=False) + "\n"),
            ):
                with files.writing(path) as part:
                    part.write_text(text, encoding="utf-8")
    except BaseException:
        if made:
            for empty in (folder / IMAGES, folder / LABELS, folder):
                if empty.is_dir() and not any(empty.iterdir()):
                    empty.rmdir()
        raise


def _write_image(files: WholeFiles, voxels: NDArray[Any], volume: Volume, path: Path, is_label: bool) -> None:
    """Voxels (K, J, I) on the image's own grid, as a compressed NRRD."""
    node = slicer.vtkMRMLLabelMapVolumeNode() if is_label else slicer.vtkMRMLScalarVolumeNode()
    image = vtk.vtkImageData()
    set_voxels(image, voxels.astype(STAND_INS.get(voxels.dtype.name, voxels.dtype.newbyteorder("=")), copy=False))
    node.SetIJKToRASMatrix(matrix_of(volume.geometry.ijk_to_ras))
    node.SetAndObserveImageData(image)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetUseCompression(1)
    with files.writing(path) as part:
        storage.SetFileName(str(part))
        if not storage.WriteData(node):
            raise OutputError(f"{path} can't be written; check the disk's free space and the folder's permissions.")
