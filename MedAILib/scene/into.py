"""New segments in a segmentation that is there already: beside the others, which stay as they are."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.results import Segmentation
from MedAILib.scene.arrays import array_of
from MedAILib.scene.colors import Color, label_colors
from MedAILib.scene.resample import labels_on_right_angles
from MedAILib.scene.segments import BINARY_LABELMAP, label_image, let_go_of_voxels, segments_of
from MedAILib.volume import SHEAR_TOLERANCE

_CLOSED_SURFACE = "Closed surface"


def require_segmentation(
    scene: "slicer.vtkMRMLScene", node_id: str, source_node: "slicer.vtkMRMLScalarVolumeNode"
) -> "slicer.vtkMRMLSegmentationNode":
    """The segmentation node of an ID, if segments of an image can be added to it as voxels.

    Args:
        scene: that of both nodes.
        node_id: the segmentation node's.
        source_node: the image.

    Raises:
        InputError: no such segmentation in the scene, one of surfaces alone, or one that is warped against the image.
    """
    node = scene.GetNodeByID(node_id)
    if node is None or not node.IsA("vtkMRMLSegmentationNode"):
        raise InputError(
            f"The segmentation {node_id} is not in the scene of {source_node.GetName()} any more; choose another or a "
            "new one."
        )
    segmentation = node.GetSegmentation()
    if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != BINARY_LABELMAP:
        raise InputError(
            f"{node.GetName()} keeps its segments as {segmentation.GetSourceRepresentationName()}, not as voxels; make "
            "the binary label map its source in the Segmentations module, or choose a new segmentation."
        )
    _source_to_segmentation(source_node, node)
    return node


def add_segments(node: Any, result: Segmentation, source_node: Any, found: Collection[str] | None = None) -> list[str]:
    """Add the labels that have voxels to a segmentation, where they lie in the world, under names not yet taken.

    The voxels stay on the result's own grid, moved as a whole into the segmentation's RAS; only where the two parent
    transforms shear that grid are they resampled (nearest voxel), to right angles. The segmentation keeps its
    reference geometry; one without segments and without such a geometry takes the source's.

    Args:
        node: a segmentation node that `require_segmentation` has passed.
        result: on the source's grid.
        source_node: the image.
        found: names of the labels that have voxels, where they are known.

    Returns:
        The IDs of the new segments.
    """
    segmentation = node.GetSegmentation()
    geometry_name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    if not segmentation.GetNumberOfSegments():
        segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
        if not segmentation.GetConversionParameter(geometry_name):
            node.SetReferenceImageGeometryParameterFromVolumeNode(source_node)
    matrix = _source_to_segmentation(source_node, node) @ result.geometry.ijk_to_ras
    images = [label_image(*_at_right_angles(layer, matrix)) for layer in result.layers]
    others = [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
    colors: list[Color] = label_colors(node.GetScene(), result.labels, [other.GetColor() for other in others])
    names = {other.GetName() for other in others}
    added = []
    for base_id, segment in segments_of(result, colors, images, found):
        segment.SetName(_unique(segment.GetName(), names))
        names.add(segment.GetName())
        added.append(segmentation.GenerateUniqueSegmentID(base_id))
        segmentation.AddSegment(segment, added[-1])
    return added


@contextmanager
def kept_on_failure(node: Any) -> Iterator[None]:
    """Take the segments, surfaces and display that a segmentation gets in the block away again if the block fails."""
    segmentation = node.GetSegmentation()
    before = set(segmentation.GetSegmentIDs())
    had_surfaces = segmentation.ContainsRepresentation(_CLOSED_SURFACE)
    had_display = node.GetNumberOfDisplayNodes() > 0
    source_representation = segmentation.GetSourceRepresentationName()
    geometry_name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    geometry = segmentation.GetConversionParameter(geometry_name)
    role = node.GetReferenceImageGeometryReferenceRole()
    reference = node.GetNodeReferenceID(role)
    try:
        yield
    except BaseException:
        new = [segment_id for segment_id in segmentation.GetSegmentIDs() if segment_id not in before]
        let_go_of_voxels(segmentation, new)
        for segment_id in new:
            segmentation.RemoveSegment(segment_id)
        if not had_surfaces:
            segmentation.RemoveRepresentation(_CLOSED_SURFACE)
        if not had_display:
            node.RemoveAllDisplayNodeIDs()
        segmentation.SetSourceRepresentationName(source_representation)
        segmentation.SetConversionParameter(geometry_name, geometry)
        node.SetNodeReferenceID(role, reference)
        raise


def _source_to_segmentation(source_node: Any, node: Any) -> NDArray[np.float64]:
    """From the source's own RAS to the segmentation's, through both parent transforms (4x4, mm).

    Raises:
        InputError: no matrix says it.
    """
    source, target = source_node.GetParentTransformNode(), node.GetParentTransformNode()
    if source is target:
        return np.eye(4)
    for parent in (source, target):
        if parent is not None and not parent.IsTransformToWorldLinear():
            raise InputError(
                f"{node.GetName()} and {source_node.GetName()} lie under different transforms, one of them a warp; put "
                "both under the same one, or choose a new segmentation."
            )
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix)
    return array_of(matrix)


def _at_right_angles(
    layer: NDArray[np.unsignedinteger], matrix: NDArray[np.float64]
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.float64]]:
    """The same labels (K, J, I) and voxel-to-RAS matrix, unless the matrix is sheared: then resampled ones."""
    directions = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    if np.abs(directions.T @ directions - np.eye(3)).max() <= SHEAR_TOLERANCE:
        return layer, matrix
    return labels_on_right_angles(layer, matrix)


def _unique(name: str, taken: set[str]) -> str:
    """The name, or with the first free number behind it, as Slicer makes unique IDs of segments."""
    unique, number = name, 0
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique
