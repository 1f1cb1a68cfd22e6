"""From a classification to nodes of the scene that its image is in: table, text, plot and the voxels that explain."""

from colorsys import hsv_to_rgb
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from MedAILib.classification_record import in_words, table
from MedAILib.errors import InputError
from MedAILib.results import Classification, Saliency
from MedAILib.scene.nodes import NodeWriter
from MedAILib.scene.position import IMAGE_ROLE, add_position_line
from MedAILib.scene.read import geometry_of, require_image
from MedAILib.scene.results import keep_result
from MedAILib.scene.segments import PROVENANCE_PREFIX
from MedAILib.scene.write import all_or_nothing

_TITLES = ("Place", "Position [mm]", "Class", "Probability", "Threshold", "Decision")
_NUMBERS = ("Position [mm]", "Probability", "Threshold")
_PLOTTED = "Position [mm]"
# Colours of a saliency, from against a class over neither to for it: value, red, green, blue, opacity.
_SIGNED = (
    (-1.0, 0.1, 0.3, 1.0, 0.8),
    (-0.2, 0.3, 0.6, 1.0, 0.2),
    (0.0, 0.5, 0.5, 0.5, 0.0),
    (0.2, 1.0, 0.7, 0.1, 0.2),
    (1.0, 1.0, 0.1, 0.0, 0.8),
)
_COLORS = 256


@dataclass(frozen=True)
class ClassificationOutputs:
    """Which nodes a classification becomes, beside the saliency, which is there where it was asked for.

    Args:
        table: a line for each place and class.
        text: a text node for people.
        plot: for several slices or frames, each class's probability along them.
        note: the decision as an attribute of the volume node.
    """

    table: bool = True
    text: bool = True
    plot: bool = True
    note: bool = True


def write_classification(
    result: Classification,
    source_node: "slicer.vtkMRMLScalarVolumeNode",
    name: str | None = None,
    outputs: ClassificationOutputs | None = None,
) -> "list[slicer.vtkMRMLNode]":
    """Make nodes of a classification, beside the volume node that it was computed from.

    A table node (a line for each place and class), a text node for people, for several slices a plot of each class's
    probability along the axis, and, if the result has it, the saliency as a volume node with colours of its own. The
    volume node gets the decision as a new attribute "MedAI.classification.<model>"; none that it has is changed.

    Args:
        result: on the grid of `source_node`.
        source_node: the volume; the first one, where the model took several.
        name: what the nodes' names begin with; None takes the source's name and the model's.
        outputs: which nodes to make; None makes all that apply.

    Returns:
        The new nodes: table, text, then for a plot its table, its series and its chart (for slices also the table and
        the series of the position that is shown), for a saliency its colour node and its volume.

    Raises:
        InputError: the source has left its scene or was changed to another grid. No node is left behind then, nor on
            any other failure.
    """
    require_image(source_node)
    if not geometry_of(source_node).same_grid_as(result.geometry):
        raise InputError(
            f"{source_node.GetName()} has another grid than when its classification was started; run the model again."
        )
    wanted = outputs or ClassificationOutputs()
    prefix = name or " ".join(x for x in (source_node.GetName(), result.provenance.get("model")) if x)
    with all_or_nothing(source_node.GetScene()):
        writer = NodeWriter(source_node, prefix, result.provenance)
        if wanted.table:
            _fill_table(writer.add("vtkMRMLTableNode", "classification"), result)
            writer.nodes[-1].SetNodeReferenceID(IMAGE_ROLE, source_node.GetID())
            keep_result(writer.nodes[-1], result)
        if wanted.text:
            writer.add("vtkMRMLTextNode", "classification text").SetText(in_words(result))
        if wanted.plot and len(result.places) > 1:
            _add_plot(writer, result)
        if result.saliency is not None:
            _add_saliency(writer, result.saliency)
        if wanted.note:
            _note_on(source_node, result)
    return writer.nodes


def _fill_table(node: Any, result: Classification) -> None:
    lines = list(table(result))
    columns = vtk.vtkTable()
    for title, values in zip(_TITLES, zip(*lines, strict=True), strict=True):
        column = vtk.vtkDoubleArray() if title in _NUMBERS else vtk.vtkStringArray()
        column.SetName(title)
        for value in values:
            column.InsertNextValue(float("nan") if value is None else value)
        columns.AddColumn(column)
    node.SetAndObserveTable(columns)
    for title in _TITLES:
        node.SetColumnTitle(title, title)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)


def _add_plot(writer: NodeWriter, result: Classification) -> None:
    """Probability against position (or number, for frames), a series for each class."""
    data = writer.add("vtkMRMLTableNode", "probabilities")
    along = [place.index if place.position_mm is None else place.position_mm for place in result.places]
    title = "Frame" if result.places[0].position_mm is None else _PLOTTED
    columns = vtk.vtkTable()
    for name, values in ((title, along), *zip(result.classes, result.probabilities.T, strict=True)):
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        for value in values:
            column.InsertNextValue(float(value))
        columns.AddColumn(column)
    data.SetAndObserveTable(columns)
    data.SetNodeReferenceID(IMAGE_ROLE, writer.source.GetID())
    series = []
    for number, name in enumerate(result.classes):
        one = writer.add("vtkMRMLPlotSeriesNode", f"probability of {name}")
        one.SetAndObserveTableNodeID(data.GetID())
        one.SetXColumnName(title)
        one.SetYColumnName(name)
        one.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        one.SetColor(*hsv_to_rgb(number / len(result.classes), 0.8, 0.8))
        series.append(one)
    if result.places[0].what == "slice":
        series.append(add_position_line(writer, data, result.places[0].axis, title))
    chart = writer.add("vtkMRMLPlotChartNode", "probability plot")
    for one in series:
        chart.AddAndObservePlotSeriesNodeID(one.GetID())
    chart.SetTitle(chart.GetName())
    chart.SetXAxisTitle(title)
    chart.SetYAxisTitle("Probability")
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, 1.0)


def _add_saliency(writer: NodeWriter, saliency: Saliency) -> None:
    colors = writer.add("vtkMRMLColorTableNode", "saliency colours")
    low = -1.0 if saliency.values.min() < 0 else 0.0
    colors.SetTypeToUser()
    colors.SetNumberOfColors(_COLORS)
    colors.SetHideFromEditors(False)
    stops = np.array(_SIGNED).T
    for index, value in enumerate(np.linspace(low, 1, _COLORS)):
        parts = [float(np.interp(value, stops[0], row)) for row in stops[1:]]
        colors.SetColor(index, f"{value:.2f}", *parts)
    colors.GetLookupTable().SetRange(low, 1.0)
    node = writer.add_volume(
        "vtkMRMLScalarVolumeNode", f"saliency for {saliency.class_name}", saliency.values, saliency.geometry
    )
    for key in ("class_name", "method", "scale", "description"):
        node.SetAttribute(f"{PROVENANCE_PREFIX}saliency.{key}", str(getattr(saliency, key)))
    node.CreateDefaultDisplayNodes()
    display = node.GetScalarVolumeDisplayNode()
    display.SetAndObserveColorNodeID(colors.GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(low, 1.0)
    display.SetInterpolate(True)


def _note_on(source_node: Any, result: Classification) -> None:
    """Write the decision onto the volume node, under a name that it does not have yet."""
    base = f"{PROVENANCE_PREFIX}classification.{result.provenance.get('model', 'model')}"
    key, number = base, 1
    while source_node.GetAttribute(key) is not None:
        number += 1
        key = f"{base}.{number}"
    verdicts = {result.verdict(row).text for row in range(len(result.places))}
    source_node.SetAttribute(key, verdicts.pop() if len(verdicts) == 1 else f"{len(result.places)} places, see table")


def is_saliency(node: "slicer.vtkMRMLNode") -> bool:
    """Whether a node is the volume of an explanation."""
    return node.IsA("vtkMRMLScalarVolumeNode") and node.GetAttribute(f"{PROVENANCE_PREFIX}saliency.method") is not None
