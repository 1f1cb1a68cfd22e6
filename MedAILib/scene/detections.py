"""From boxes around findings to nodes of the scene that their image is in: a region for each, and a table."""

from typing import Any

import numpy as np
import slicer
import vtk

from MedAILib.detections import Box, Detections
from MedAILib.errors import InputError
from MedAILib.scene.arrays import matrix_of
from MedAILib.scene.nodes import NodeWriter
from MedAILib.scene.position import IMAGE_ROLE, region_role
from MedAILib.scene.read import geometry_of, require_image
from MedAILib.scene.results import keep_result
from MedAILib.scene.segments import PROVENANCE_PREFIX
from MedAILib.scene.write import all_or_nothing

_TITLES = ("Finding", "Label", "Score", "R [mm]", "A [mm]", "S [mm]", "Size I [mm]", "Size J [mm]", "Size K [mm]")
_WORDS = ("Finding", "Label")


def write_detections(
    result: Detections, source_node: "slicer.vtkMRMLScalarVolumeNode", name: str | None = None
) -> "list[slicer.vtkMRMLNode]":
    """Make a markups ROI node of each finding, turned with the image's axes, and a table node of all.

    The regions lie under the source's parent transform, have the finding's class and score as attributes "MedAI.label"
    and "MedAI.score", and are locked: a click does not move them.

    Args:
        result: on the grid of `source_node`.
        source_node: the volume; the first one, where the model took several.
        name: what the nodes' names begin with; None takes the source's name and the model's.

    Returns:
        The new nodes: the table, then a region for each finding, the surest first.

    Raises:
        InputError: the source has left its scene or was changed to another grid. No node is left behind then, nor on
            any other failure.
    """
    require_image(source_node)
    if not geometry_of(source_node).same_grid_as(result.geometry):
        raise InputError(
            f"{source_node.GetName()} has another grid than when findings were looked for; run the model again."
        )
    prefix = name or " ".join(x for x in (source_node.GetName(), result.provenance.get("model")) if x)
    with all_or_nothing(source_node.GetScene()):
        writer = NodeWriter(source_node, prefix, result.provenance)
        table = writer.add("vtkMRMLTableNode", "findings")
        _fill_table(table, result)
        table.SetNodeReferenceID(IMAGE_ROLE, source_node.GetID())
        keep_result(table, result)
        for number, box in enumerate(result.boxes, start=1):
            region = writer.add("vtkMRMLMarkupsROINode", f"{box.label} {number}")
            _fill_region(region, result, box)
            table.SetNodeReferenceID(region_role(number - 1), region.GetID())
    return writer.nodes


def _fill_region(node: Any, result: Detections, box: Box) -> None:
    directions = result.directions_ras()
    if np.linalg.det(directions) < 0:
        directions = directions * (1, 1, -1)  # a box is the same seen from behind; a region's axes are right-handed
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = directions, result.center_ras(box)
    node.SetROIType(node.ROITypeBox)
    node.SetAndObserveObjectToNodeMatrix(matrix_of(matrix))
    node.SetSize(*result.size_mm(box).tolist())
    node.SetLocked(True)
    node.CreateDefaultDisplayNodes()
    node.SetAttribute(PROVENANCE_PREFIX + "label", box.label)
    node.SetAttribute(PROVENANCE_PREFIX + "score", f"{box.score:.4f}")


def _fill_table(node: Any, result: Detections) -> None:
    for title in _TITLES:
        column = vtk.vtkStringArray() if title in _WORDS else vtk.vtkDoubleArray()
        column.SetName(title)
        for number, box in enumerate(result.boxes, start=1):
            values = (str(number), box.label, box.score, *result.center_ras(box), *result.size_mm(box))
            column.InsertNextValue(values[_TITLES.index(title)])
        node.AddColumn(column)
    for title in _TITLES:
        node.SetColumnTitle(title, title)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)
