"""Labels as the segments of a `vtkSegmentation`: the fast way, one shared image for all labels of a layer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from MedAILib.results import Label, Segmentation
from MedAILib.scene.arrays import matrix_of, set_voxels
from MedAILib.scene.colors import Color
from MedAILib.scene.terminology import set_terminology

BINARY_LABELMAP = "Binary labelmap"
_CHUNK = 1 << 22


def fill_segmentation(segmentation: "slicer.vtkSegmentation", result: Segmentation, colors: Sequence[Color]) -> None:
    """Add a segment for each label that has voxels, all of a layer sharing one copy of its voxels.

    Slicer's own import goes through all voxels for every segment; here each segment only points at the shared image
    and knows its value in it, as segments do that Slicer reads from a file.

    Args:
        segmentation: without segments.
        result: the labels; each of its layers becomes a layer.
        colors: one for each of its labels.
    """
    segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
    images: dict[int, Any] = {}
    found = {layer: values_found(voxels) for layer, voxels in enumerate(result.layers)}
    for label, color in zip(result.labels, colors, strict=True):
        if label.value >= found[label.layer].size or not found[label.layer][label.value]:
            continue
        if label.layer not in images:
            images[label.layer] = _oriented_image(result, label.layer)
        segment = slicer.vtkSegment()
        segment.SetName(label.name)
        segment.SetColor(*color)
        set_terminology(segment, label.terminology)
        segment.SetLabelValue(label.value)
        segment.AddRepresentation(BINARY_LABELMAP, images[label.layer])
        segmentation.AddSegment(segment, segment_id(label))


def segment_id(label: Label) -> str:
    """The segment's ID: its value, and before it the layer where there is more than one."""
    return f"Segment_{label.layer}_{label.value}" if label.layer else f"Segment_{label.value}"


def values_found(voxels: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
    """For each value that the voxels' type can hold, whether a voxel has it."""
    found = np.zeros(np.iinfo(voxels.dtype).max + 1, bool)
    flat = voxels.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        found[flat[start : start + _CHUNK]] = True
    return found


@contextmanager
def labelmap_copy(node: "slicer.vtkMRMLSegmentationNode") -> "Iterator[slicer.vtkMRMLSegmentationNode]":
    """A segmentation node outside of every scene with the same segments, sharing their voxels, without surfaces.

    What has to derive or drop representations works on it and leaves the user's node as it is. The copy is good inside
    of the block only.
    """
    original = node.GetSegmentation()
    copy = slicer.vtkMRMLSegmentationNode()
    copy.SetName(node.GetName())
    segmentation = copy.GetSegmentation()
    segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
    segmentation.CopyConversionParameters(original)
    for index in range(original.GetNumberOfSegments()):
        segment = slicer.vtkSegment()
        segment.DeepCopyMetadata(original.GetNthSegment(index))
        segment.SetLabelValue(original.GetNthSegment(index).GetLabelValue())
        segment.AddRepresentation(BINARY_LABELMAP, original.GetNthSegment(index).GetRepresentation(BINARY_LABELMAP))
        segmentation.AddSegment(segment, original.GetNthSegmentID(index))
    try:
        yield copy
    finally:
        let_go_of_voxels(segmentation)


def let_go_of_voxels(segmentation: "slicer.vtkSegmentation") -> None:
    """Take all representations from segments that are about to be removed.

    `vtkSegmentation` erases a segment that it removes, at its own end too, from the image that it shares with others:
    a pass through all voxels for each, and the loss of the voxels of whoever else has that image.
    """
    for index in range(segmentation.GetNumberOfSegments()):
        segmentation.GetNthSegment(index).RemoveAllRepresentations()


def _oriented_image(result: Segmentation, layer: int) -> Any:
    image = slicer.vtkOrientedImageData()
    set_voxels(image, result.layers[layer])
    image.SetGeometryFromImageToWorldMatrix(matrix_of(result.geometry.ijk_to_ras))
    return image
