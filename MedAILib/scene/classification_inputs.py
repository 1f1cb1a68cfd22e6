"""What a classifier takes beside a volume node: a segment's region, a sequence's frames, covariates from a table."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import vtk

from MedAILib.errors import InputError
from MedAILib.scene.arrays import array_of, voxels_of
from MedAILib.scene.read import geometry_of, require_image
from MedAILib.volume import Volume

# A region is known by the places of its box's faces: as many along each edge.
_LATTICE = 9


def box_of_segment(
    segmentation_node: "slicer.vtkMRMLSegmentationNode",
    segment_id: str,
    volume_node: "slicer.vtkMRMLScalarVolumeNode",
) -> tuple[tuple[int, int], ...]:
    """(first, last + 1) voxel of the volume along K, J and I around a segment's voxels, cut to the volume.

    Both nodes' parent transforms count; between turned grids it is the box around the segment's own box.

    Raises:
        InputError: no such segment, one without voxels, or one that misses the volume.
    """
    require_image(volume_node)
    name = f"{segment_id} of {segmentation_node.GetName()}"
    image = slicer.vtkOrientedImageData()
    if segmentation_node.GetSegmentation().GetSegment(segment_id) is None:
        raise InputError(f"There is no segment {name}; choose one of the segmentation's.")
    if not segmentation_node.GetBinaryLabelmapRepresentation(segment_id, image) or not image.GetNumberOfPoints():
        raise InputError(f"The segment {name} has no voxels to look at; paint some, or choose another.")
    found = np.argwhere(voxels_of(image)[0])
    if not len(found):
        raise InputError(f"The segment {name} has no voxels to look at; paint some, or choose another.")
    start = np.array(image.GetExtent()[::2])
    low, high = found.min(axis=0)[::-1] + start, found.max(axis=0)[::-1] + start
    axes = [np.linspace(a, b, _LATTICE) for a, b in zip(low, high, strict=True)]
    ijk = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    ras = ijk @ array_of(matrix)[:3, :3].T + array_of(matrix)[:3, 3]
    between = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        segmentation_node.GetParentTransformNode(), volume_node.GetParentTransformNode(), between
    )
    geometry = geometry_of(volume_node)
    places = np.rint(geometry.ijk_of([between.TransformPoint(point) for point in ras.tolist()])).astype(int)
    first = np.maximum(places.min(axis=0), 0)
    last = np.minimum(places.max(axis=0), np.array(geometry.shape_kji[::-1]) - 1)
    if (first > last).any():
        raise InputError(f"The segment {name} lies outside of {volume_node.GetName()}.")
    return tuple((int(a), int(b) + 1) for a, b in zip(first[::-1], last[::-1], strict=True))


def frames_from_sequence(sequence_node: "slicer.vtkMRMLSequenceNode") -> Volume:
    """The frames of a sequence of volumes as the channels of one image, in the sequence's order.

    Playback is not touched: frames are read where the sequence keeps them.

    Raises:
        InputError: no frames, frames that are no images, or of several sizes.
        GeometryError: a sheared grid.
    """
    count = sequence_node.GetNumberOfDataNodes()
    if not count:
        raise InputError(f"The sequence {sequence_node.GetName()} has no frames.")
    nodes = [sequence_node.GetNthDataNode(n) for n in range(count)]
    for node in nodes:
        require_image(node)
    parts = [voxels_of(node.GetImageData()) for node in nodes]
    for number, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise InputError(
                f"Frame {number} of {sequence_node.GetName()} has {list(part.shape)} voxels (C, K, J, I), frame 0 has "
                f"{list(parts[0].shape)}; a sequence has frames of one size."
            )
    return Volume(np.concatenate(parts), geometry_of(nodes[0]), sequence_node.GetName())


def covariates_from_table(
    table_node: "slicer.vtkMRMLTableNode", wanted: Sequence[str], row: int = 0
) -> dict[str, float]:
    """Numbers of one row of a table node, by their columns' names.

    Raises:
        InputError: no such column or row, or a cell that is no finite number.
    """
    table, name = table_node.GetTable(), table_node.GetName()
    if not 0 <= row < table.GetNumberOfRows():
        raise InputError(f"The table {name} has no row {row}; it has {table.GetNumberOfRows()}.")
    found: dict[str, float] = {}
    for column in wanted:
        cells: Any = table.GetColumnByName(column)
        if cells is None:
            raise InputError(f"The table {name} has no column {column}; the model wants {', '.join(wanted)}.")
        text = cells.GetVariantValue(row).ToString()
        try:
            found[column] = float(text)
        except ValueError as error:
            raise InputError(f"The covariate {column} in {name} is '{text}', which is no number.") from error
        if not math.isfinite(found[column]):
            raise InputError(f"The covariate {column} in {name} is {text}, which is no finite number.")
    return found
