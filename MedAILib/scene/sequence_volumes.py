"""Volumes of segments over the frames of a sequence, as a table node and a plot."""

from collections.abc import Mapping, Sequence
from typing import Any

import slicer
import vtk

from MedAILib.scene.colors import Color

_ML = " [mL]"


def index_title(sequence_node: "slicer.vtkMRMLSequenceNode") -> str:
    """What a sequence goes over, with its unit: "time [s]"."""
    name, unit = sequence_node.GetIndexName() or "index", sequence_node.GetIndexUnit()
    return f"{name} [{unit}]" if unit else name


def fill_volumes(
    node: "slicer.vtkMRMLTableNode",
    sequence_node: "slicer.vtkMRMLSequenceNode",
    index_values: Sequence[str],
    volumes: Sequence[Mapping[str, float]],
) -> None:
    """Give a table node one line per frame: its index value, then each segment's volume in mL.

    Args:
        node: the table.
        sequence_node: says what the index values are, and whether they are numbers.
        index_values: one per frame.
        volumes: one per frame, in mL by segment name; a segment that a frame's model does not know has 0 there.
    """
    numeric = sequence_node.GetIndexType() == slicer.vtkMRMLSequenceNode.NumericIndex
    index = vtk.vtkDoubleArray() if numeric else vtk.vtkStringArray()
    columns: list[Any] = [index]
    index.SetName(index_title(sequence_node))
    for value in index_values:
        index.InsertNextValue(float(value) if numeric else value)
    for name in dict.fromkeys(name for frame in volumes for name in frame):
        column = vtk.vtkDoubleArray()
        column.SetName(name + _ML)
        for frame in volumes:
            column.InsertNextValue(frame.get(name, 0.0))
        columns.append(column)
    table = vtk.vtkTable()
    for column in columns:
        table.AddColumn(column)
    node.SetAndObserveTable(table)
    for column in columns:
        node.SetColumnTitle(column.GetName(), column.GetName())
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)


def fill_series(
    node: "slicer.vtkMRMLPlotSeriesNode", table_node: "slicer.vtkMRMLTableNode", name: str, color: Color
) -> None:
    """Make a plot series node the line of one segment's volume over the frames."""
    index = table_node.GetTable().GetColumn(0)
    node.SetAndObserveTableNodeID(table_node.GetID())
    node.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    if index.IsA("vtkStringArray"):
        node.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeLine)
        node.SetLabelColumnName(index.GetName())
    else:
        node.SetXColumnName(index.GetName())
    node.SetYColumnName(name + _ML)
    node.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
    node.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleSolid)
    node.SetColor(*color)


def fill_chart(
    node: "slicer.vtkMRMLPlotChartNode", series_nodes: "Sequence[slicer.vtkMRMLPlotSeriesNode]", index: str
) -> None:
    """Make a plot chart node show the lines of all segments."""
    node.SetTitle(node.GetName())
    node.SetXAxisTitle(index)
    node.SetYAxisTitle("Volume" + _ML)
    for series in series_nodes:
        node.AddAndObservePlotSeriesNodeID(series.GetID())
