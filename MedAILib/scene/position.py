"""Where in the image a row of a result's table lies, and which row the slice views show; both in the world.

Tables know their image, findings' tables their regions, by node references, so that this works in a scene that was
saved and opened again.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from MedAILib.scene.nodes import NodeWriter
from MedAILib.scene.read import geometry_of, require_image
from MedAILib.volume import Geometry, closest_axes

# Role of a result's table's reference to its image.
IMAGE_ROLE = "MedAI.image"
# The attribute of the table of a plot's line, which says along which voxel axis it stands.
AXIS_ATTRIBUTE = "MedAI.position_axis"
# World axes across which the standard views lie, by the names that Slicer gives them.
VIEWS = {"axial": 2, "sagittal": 0, "coronal": 1}
_SLICE = re.compile(r"slice ([IJK]) (\d+)")


@dataclass(frozen=True)
class Spot:
    """One row of a result for people, and where it lies.

    Args:
        text: what was found or decided there, and how surely.
        place_ras: in the world, mm; None where there is no single place, or its image or region is gone.
    """

    text: str
    place_ras: tuple[float, float, float] | None


def spots_of(table_node: "slicer.vtkMRMLTableNode") -> list[Spot]:
    """The rows of a table of findings or of a classification (a row for each place); empty for other tables."""
    table = table_node.GetTable()
    if table.GetColumnByName("Finding") is not None:
        return [_finding(table_node, row) for row in range(table.GetNumberOfRows())]
    if table.GetColumnByName("Place") is None or table.GetColumnByName("Decision") is None:
        return []
    rows: dict[str, list[int]] = {}
    for row in range(table.GetNumberOfRows()):
        rows.setdefault(_text(table, "Place", row), []).append(row)
    return [_decision(table_node, place, lines) for place, lines in rows.items()]


def region_role(row: int) -> str:
    """The role of a findings' table's reference to the region of a row; one each, as the user may delete regions."""
    return f"MedAI.region.{row}"


def place_of_slice(
    volume_node: "slicer.vtkMRMLScalarVolumeNode", axis: str, index: float
) -> tuple[float, float, float]:
    """The middle of a slice of an image ("I", "J" or "K", counted from 0) in the world, mm."""
    geometry = geometry_of(volume_node)
    middle = (np.array(geometry.shape_kji[::-1]) - 1) / 2
    middle["IJK".index(axis)] = index
    return _between(volume_node, geometry.ras_of(middle[None])[0], to_world=True)


def voxel_axis(geometry: Geometry, view: str) -> str:
    """The voxel axis, "I", "J" or "K", along which the slices of a standard view ("axial" …) follow each other."""
    towards = [world for world, _ in closest_axes(geometry.ijk_to_ras)]
    return "IJK"[towards.index(VIEWS[view])]


def shown_slice(volume_node: "slicer.vtkMRMLScalarVolumeNode", axis: str) -> int | None:
    """The slice of an image that the slice views show: of the view that lies most across the axis.

    None where there is no such view, or it shows what is beside the image.
    """
    require_image(volume_node)
    geometry = geometry_of(volume_node)
    view = _view_across(volume_node, geometry, axis)
    if view is None:
        return None
    index = round(_index_in(view, volume_node, geometry, axis))
    return index if 0 <= index < geometry.shape_kji["KJI".index(axis)] else None


def add_position_line(writer: NodeWriter, data_node: Any, axis: str, title: str) -> Any:
    """A series of a plot: an upright line where the slice that is shown lies; see `follow_views`."""
    table = writer.add("vtkMRMLTableNode", "position")
    table.SetAttribute(AXIS_ATTRIBUTE, axis)
    table.SetNodeReferenceID(IMAGE_ROLE, writer.source.GetID())
    first = data_node.GetTable().GetColumn(0).GetValue(0)
    for name, values in ((title, (first, first)), ("Shown", (0.0, 1.0))):
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        for value in values:
            column.InsertNextValue(value)
        table.AddColumn(column)
    series = writer.add("vtkMRMLPlotSeriesNode", "slice shown")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(title)
    series.SetYColumnName("Shown")
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
    series.SetColor(0.3, 0.3, 0.3)
    return series


def follow_views(scene: "slicer.vtkMRMLScene") -> None:
    """Put the lines of all plots of slices where the slice views are; quick, and changes nothing else."""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLTableNode")):
        table = scene.GetNthNodeByClass(number, "vtkMRMLTableNode")
        axis, image = table.GetAttribute(AXIS_ATTRIBUTE), table.GetNodeReference(IMAGE_ROLE)
        if not axis or image is None or image.GetImageData() is None:
            continue
        geometry = geometry_of(image)
        view = _view_across(image, geometry, axis)
        column = table.GetTable().GetColumn(0)
        if view is None or column is None:
            continue
        place = "KJI".index(axis)
        index = float(np.clip(_index_in(view, image, geometry, axis), 0, geometry.shape_kji[place] - 1))
        position = index * geometry.spacing_kji_mm[place]
        if abs(column.GetValue(0) - position) > 1e-6:
            for row in range(column.GetNumberOfValues()):
                column.SetValue(row, position)
            table.GetTable().Modified()
            table.Modified()


def place_on_plot(series_node: "slicer.vtkMRMLPlotSeriesNode", point: int) -> tuple[float, float, float] | None:
    """Where in the world a point of a probability plot lies; None for plots of other things."""
    data = series_node.GetTableNode()
    image = None if data is None else data.GetNodeReference(IMAGE_ROLE)
    axis = _axis_of_plot(data)
    column = None if data is None else data.GetTable().GetColumn(0)
    if image is None or axis is None or column is None or not 0 <= point < column.GetNumberOfValues():
        return None
    spacing = geometry_of(image).spacing_kji_mm["KJI".index(axis)]
    return place_of_slice(image, axis, column.GetValue(point) / spacing)


def _axis_of_plot(data_node: Any) -> str | None:
    """The axis of a plot's data: its line's table, beside it in a chart, has it."""
    if data_node is None:
        return None
    scene = data_node.GetScene()
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode")):
        chart = scene.GetNthNodeByClass(number, "vtkMRMLPlotChartNode")
        count = chart.GetNumberOfPlotSeriesNodes()
        tables = [chart.GetNthPlotSeriesNode(n).GetTableNode() for n in range(count)]
        if data_node in tables:
            axes = [table.GetAttribute(AXIS_ATTRIBUTE) for table in tables if table is not None]
            return next((axis for axis in axes if axis), None)
    return None


def _finding(table_node: Any, row: int) -> Spot:
    table, region = table_node.GetTable(), table_node.GetNodeReference(region_role(row))
    score = table.GetColumnByName("Score").GetValue(row)
    text = f"{_text(table, 'Finding', row)}: {_text(table, 'Label', row)} ({score:.0%})"
    if region is None:
        return Spot(text, None)
    center = [0.0, 0.0, 0.0]
    region.GetCenterWorld(center)
    return Spot(text, (center[0], center[1], center[2]))


def _decision(table_node: Any, place: str, rows: list[int]) -> Spot:
    table = table_node.GetTable()
    probability = {row: table.GetColumnByName("Probability").GetValue(row) for row in rows}
    yes = [row for row in rows if _text(table, "Decision", row) == "yes"]
    chosen = ", ".join(f"{_text(table, 'Class', row)} ({probability[row]:.0%})" for row in yes)
    if not chosen:
        likeliest = max(rows, key=lambda row: probability[row])
        unsure = _text(table, "Decision", likeliest) == "not sure"
        chosen = f"{'not sure' if unsure else 'none'}; {_text(table, 'Class', likeliest)} {probability[likeliest]:.0%}"
    found, image = _SLICE.fullmatch(place), table_node.GetNodeReference(IMAGE_ROLE)
    there = place_of_slice(image, found[1], int(found[2])) if found and image is not None else None
    return Spot(f"{place}: {chosen}", there)


def _text(table: Any, column: str, row: int) -> str:
    return str(table.GetColumnByName(column).GetVariantValue(row).ToString())


def _view_across(volume_node: Any, geometry: Geometry, axis: str) -> Any:
    """The slice node that lies most across a voxel axis, in the world."""
    number = "IJK".index(axis)
    start = _between(volume_node, geometry.ijk_to_ras[:3, 3], to_world=True)
    end = _between(volume_node, geometry.ijk_to_ras[:3, 3] + geometry.ijk_to_ras[:3, number], to_world=True)
    along = np.array(end) - start
    scene = volume_node.GetScene()
    views = [scene.GetNthNodeByClass(n, "vtkMRMLSliceNode") for n in range(_count_views(scene))]
    return max(views, key=lambda view: abs(float(_normal(view) @ along)), default=None)


def _count_views(scene: Any) -> int:
    return int(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode"))


def _normal(view: Any) -> NDArray[np.float64]:
    matrix = view.GetSliceToRAS()
    return np.array([matrix.GetElement(row, 2) for row in range(3)])


def _index_in(view: Any, volume_node: Any, geometry: Geometry, axis: str) -> float:
    matrix = view.GetSliceToRAS()
    middle = np.array([matrix.GetElement(row, 3) for row in range(3)])
    return float(geometry.ijk_of(np.array([_between(volume_node, middle, to_world=False)]))[0]["IJK".index(axis)])


def _between(volume_node: Any, place: NDArray[np.float64], *, to_world: bool) -> tuple[float, float, float]:
    """A place in the image's own RAS as the world has it, or back."""
    transform = vtk.vtkGeneralTransform()
    parent = volume_node.GetParentTransformNode()
    ends = (parent, None) if to_world else (None, parent)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(*ends, transform)
    r, a, s = transform.TransformPoint(place.tolist())
    return r, a, s
