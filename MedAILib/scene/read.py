"""From nodes of a scene to the plain data that models take; the scene is never changed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from MedAILib.errors import GeometryError, InputError
from MedAILib.scene.arrays import array_of, node_geometry, voxels_of
from MedAILib.scene.resample import voxels_on_grid
from MedAILib.volume import Geometry, Roi, Volume

# Kinds of scalar volume nodes whose voxels are no intensities.
_NO_IMAGES = {
    "vtkMRMLLabelMapVolumeNode": "a label map",
    "vtkMRMLDiffusionImageVolumeNode": "a diffusion tensor volume",
}


def volume_from_nodes(nodes: "Sequence[slicer.vtkMRMLScalarVolumeNode]") -> Volume:
    """Copy volume nodes into one image, each node a channel (a vector volume's components: a channel each).

    Everything is in the first node's own RAS: its parent transform is left out. Other nodes are put on the first
    one's grid as they lie to it in the world, through all parent transforms, with linear interpolation and their
    minimum outside of their field of view; nodes on that grid already keep their voxels as they are.

    Args:
        nodes: scalar or vector volume nodes of one scene, in the order of the model's channels.

    Raises:
        InputError: a node is none of these, has no image data, lies in another scene, or overlaps nowhere with the
            first.
        GeometryError: the first node's grid is sheared.
    """
    if not nodes:
        raise InputError("No volume was given; choose at least one.")
    for node in nodes:
        require_image(node)
        if node.GetScene() is not nodes[0].GetScene():
            raise InputError(f"{node.GetName()} and {nodes[0].GetName()} lie in different scenes; load both into one.")
    first = nodes[0]
    geometry = geometry_of(first)
    parts = [voxels_on_grid(node, first) if node is not first else voxels_of(node.GetImageData()) for node in nodes]
    data = np.empty((sum(len(part) for part in parts), *parts[0].shape[1:]), np.result_type(*parts))
    np.concatenate(parts, out=data)
    name = " + ".join(node.GetName() for node in nodes)
    return Volume(data, geometry, name, _provenance(nodes))


def geometry_of(node: "slicer.vtkMRMLScalarVolumeNode") -> Geometry:
    """A volume node's own grid.

    Raises:
        GeometryError: the grid is sheared or degenerate; the text names the node.
    """
    try:
        return node_geometry(node)
    except GeometryError as error:
        raise GeometryError(f"{node.GetName()}: {error}") from error


def require_image(node: Any) -> None:
    """Refuse what is no volume node with voxels in a scene.

    Raises:
        InputError: says what the node is instead.
    """
    if node is None or not hasattr(node, "IsA"):
        raise InputError(f"{node!r} is no node of a scene; give a volume node.")
    name = node.GetName() if node.IsA("vtkMRMLNode") else node.GetClassName()
    if not node.IsA("vtkMRMLScalarVolumeNode"):
        raise InputError(f"{name} is no volume but a {node.GetClassName()}; choose a scalar volume.")
    for class_name, text in _NO_IMAGES.items():
        if node.IsA(class_name):
            raise InputError(f"{name} is {text}, no image; choose a scalar volume.")
    if node.GetScene() is None:
        raise InputError(f"{name} is not in a scene any more; load it again.")
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or image.GetNumberOfPoints() == 0:
        raise InputError(f"{name} has no voxels; load its image again.")


def roi_from_node(roi_node: "slicer.vtkMRMLMarkupsROINode", volume_node: "slicer.vtkMRMLScalarVolumeNode") -> Roi:
    """The smallest box along R, A and S of the volume's own RAS that holds a markups region of interest.

    Both nodes' parent transforms count; under a warp the box is that of points spread over the region.

    Raises:
        InputError: another kind of node, no size, or another scene than the volume's.
    """
    if roi_node is None or not hasattr(roi_node, "IsA") or not roi_node.IsA("vtkMRMLMarkupsROINode"):
        raise InputError("The region of interest is no markups ROI node; place one in the Markups module.")
    name = roi_node.GetName()
    if roi_node.GetScene() is None or roi_node.GetScene() is not volume_node.GetScene():
        raise InputError(f"The region of interest {name} is not in the scene of {volume_node.GetName()}.")
    size = np.array(roi_node.GetSize(), dtype=float)
    if not np.isfinite(size).all() or size.min() <= 0:
        raise InputError(f"The region of interest {name} has no size; draw it around what is to be segmented.")
    points = _ras_of_box(roi_node, size)
    between = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        roi_node.GetParentTransformNode(), volume_node.GetParentTransformNode(), between
    )
    mapped = np.array([between.TransformPoint(point) for point in points.tolist()])
    low, high = mapped.min(axis=0), mapped.max(axis=0)
    r, a, s = ((low + high) / 2).tolist()
    dr, da, ds = (high - low).tolist()
    return Roi((r, a, s), (dr, da, ds))


def _ras_of_box(roi_node: Any, size: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 3) on a 5x5x5 lattice over the box, its corners among them, in the ROI node's own RAS."""
    axis = np.linspace(-0.5, 0.5, 5)
    box = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3) * size
    matrix = array_of(roi_node.GetObjectToNodeMatrix())
    return np.asarray(box @ matrix[:3, :3].T + matrix[:3, 3])


def _provenance(nodes: Sequence[Any]) -> dict[str, str]:
    """Names of all nodes, and what the scene knows of the first one's DICOM origin."""
    first = nodes[0]
    found = {"node": " + ".join(node.GetName() for node in nodes)}
    instances = first.GetAttribute("DICOM.instanceUIDs")
    modality = first.GetAttribute("DICOM.Modality")
    # Not the scene's own getter, which adds one to scenes that lack it, as those inside of sequences do.
    hierarchy = first.GetScene().GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    item = hierarchy.GetItemByDataNode(first) if hierarchy else 0
    if item:
        found["SeriesInstanceUID"] = hierarchy.GetItemUID(item, "DICOM")
        modality = modality or hierarchy.GetItemAttribute(item, "DICOM.Modality")
        study = hierarchy.GetItemParent(item)
        found["StudyInstanceUID"] = hierarchy.GetItemUID(study, "DICOM") if study else ""
    found |= {"Modality": modality or "", "SOPInstanceUIDs": instances or ""}
    return {key: value for key, value in found.items() if value}
