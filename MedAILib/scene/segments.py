"""Labels as the segments of a `vtkSegmentation`: the fast way, one shared image for all labels of a layer."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import slicer
from numpy.typing import NDArray

from MedAILib.results import Label, Segmentation
from MedAILib.scene.arrays import matrix_of, set_voxels
from MedAILib.scene.colors import Color
from MedAILib.scene.terminology import set_terminology

BINARY_LABELMAP = "Binary labelmap"
# What attributes of nodes and tags of segments begin with that tell how a result came about.
PROVENANCE_PREFIX = "MedAI."
# Files of segmentations part tags by these.
_NOT_IN_TAGS = str.maketrans({"|": "/", "\n": " ", "\r": " "})
_CHUNK = 1 << 22


def fill_segmentation(
    segmentation: "slicer.vtkSegmentation",
    result: Segmentation,
    colors: Sequence[Color],
    names: Collection[str] | None = None,
) -> None:
    """Add a segment for each label that has voxels to a `vtkSegmentation` without segments.

    Args:
        segmentation: without segments.
        result: the labels; each of its layers becomes a layer.
        colors: one for each of its labels.
        names: of the labels that have voxels, where they are known; None looks through all voxels.
    """
    segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
    images = [label_image(layer, result.geometry.ijk_to_ras) for layer in result.layers]
    for identifier, segment in segments_of(result, colors, images, names):
        segmentation.AddSegment(segment, identifier)


def segments_of(
    result: Segmentation,
    colors: Sequence[Color],
    images: "Sequence[slicer.vtkOrientedImageData]",
    names: Collection[str] | None = None,
) -> "list[tuple[str, slicer.vtkSegment]]":
    """A segment for each label that has voxels, with its ID; all of a layer share one image.

    Slicer's own import goes through all voxels for every segment; here each segment only points at the shared image
    and knows its value in it, as segments do that Slicer reads from a file. No other segmentation may have that image:
    `vtkSegmentation` erases from it what it removes.

    Args:
        result: the labels and their provenance, which becomes tags of the segment: files of segmentations keep these.
        colors: one for each of its labels.
        images: one for each of its layers.
        names: of the labels that have voxels, where they are known; None looks through all voxels.
    """
    if names is None:
        names = names_found(result)
    tags = {PROVENANCE_PREFIX + key: value.translate(_NOT_IN_TAGS) for key, value in result.provenance.items()}
    segments = []
    for label, color in zip(result.labels, colors, strict=True):
        if label.name not in names:
            continue
        segment = slicer.vtkSegment()
        segment.SetName(label.name)
        segment.SetColor(*color)
        set_terminology(segment, label.terminology)
        for key, value in tags.items():
            segment.SetTag(key, value)
        segment.SetLabelValue(label.value)
        segment.AddRepresentation(BINARY_LABELMAP, images[label.layer])
        segments.append((segment_id(label), segment))
    return segments


def segment_id(label: Label) -> str:
    """The segment's ID: its value, and before it the layer where there is more than one."""
    return f"Segment_{label.layer}_{label.value}" if label.layer else f"Segment_{label.value}"


def names_found(result: Segmentation) -> set[str]:
    """Names of the labels that have voxels."""
    found = [values_found(voxels) for voxels in result.layers]
    return {x.name for x in result.labels if x.value < found[x.layer].size and found[x.layer][x.value]}


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


def let_go_of_voxels(segmentation: "slicer.vtkSegmentation", segment_ids: Sequence[str] | None = None) -> None:
    """Take all representations from segments that are about to be removed; None means all segments.

    `vtkSegmentation` erases a segment that it removes, at its own end too, from the image that it shares with others:
    a pass through all voxels for each, and the loss of the voxels of whoever else has that image.
    """
    for segment_id in segmentation.GetSegmentIDs() if segment_ids is None else segment_ids:
        segmentation.GetSegment(segment_id).RemoveAllRepresentations()


def label_image(voxels: NDArray[np.unsignedinteger], ijk_to_ras: NDArray[np.float64]) -> "slicer.vtkOrientedImageData":
    """A copy of labels (K, J, I) as an image that segments can share."""
    image = slicer.vtkOrientedImageData()
    set_voxels(image, voxels)
    image.SetGeometryFromImageToWorldMatrix(matrix_of(ijk_to_ras))
    return image
