"""Closed surfaces of segments, made one after another, so that a window can go on answering in between."""

from collections.abc import Iterator

import slicer

from MedAILib.scene.segments import BINARY_LABELMAP, let_go_of_voxels

CLOSED_SURFACE = "Closed surface"


def add_surfaces(node: "slicer.vtkMRMLSegmentationNode") -> Iterator[tuple[int, int]]:
    """Give each segment its closed surface, as `CreateClosedSurfaceRepresentation` would give them all at once.

    Args:
        node: in a scene; its segments have binary label maps.

    Yields:
        How many segments have theirs, and how many there are; before the first one and after each.
    """
    segmentation = node.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    yield 0, len(ids)
    surfaces = {}
    for done, segment_id in enumerate(ids, 1):
        segment = segmentation.GetSegment(segment_id)
        if segment is not None:
            surfaces[segment_id] = _surface(segmentation, segment)
        yield done, len(ids)
    # Together at the end: a representation that only some segments have counts as none.
    modified = node.StartModify()
    for segment_id, surface in surfaces.items():
        segment = segmentation.GetSegment(segment_id)
        if segment is not None and surface is not None:
            segment.AddRepresentation(CLOSED_SURFACE, surface)
    node.Modified()  # what shows it in 3D looks for surfaces then
    node.EndModify(modified)


def _surface(segmentation: "slicer.vtkSegmentation", segment: "slicer.vtkSegment") -> "slicer.vtkDataObject | None":
    """The surface of one segment, by Slicer's own conversion, on a copy that shares its voxels."""
    alone = slicer.vtkSegmentation()
    alone.SetSourceRepresentationName(BINARY_LABELMAP)
    alone.CopyConversionParameters(segmentation)
    copy = slicer.vtkSegment()
    copy.DeepCopyMetadata(segment)
    copy.SetLabelValue(segment.GetLabelValue())
    copy.AddRepresentation(BINARY_LABELMAP, segment.GetRepresentation(BINARY_LABELMAP))
    alone.AddSegment(copy, "alone")
    try:
        alone.CreateRepresentation(CLOSED_SURFACE)
        return copy.GetRepresentation(CLOSED_SURFACE)
    finally:
        let_go_of_voxels(alone)
