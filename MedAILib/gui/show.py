"""Brings images, tables, plots and segmentations before the user's eyes in Slicer's window."""

from collections.abc import Callable
from typing import Any

import slicer
import slicer.util
import vtk


def show_image(volumeNode: Any) -> None:
    """Show an image in the slice views, where it is not shown already."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    if any(node.GetBackgroundVolumeID() != volumeNode.GetID() for node in composites):
        slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)


def center_3d_views() -> None:
    """Look at what the 3D views hold, from a distance at which it fits."""
    slicer.util.resetThreeDViews()


def show_table(tableNode: Any) -> None:
    """Show a table, in a layout that is like the present one but has a place for it."""
    layoutManager = slicer.app.layoutManager()
    layoutManager.setLayout(slicer.modules.tables.logic().GetLayoutWithTable(layoutManager.layout))
    applicationLogic = slicer.app.applicationLogic()
    applicationLogic.GetSelectionNode().SetActiveTableID(tableNode.GetID())
    applicationLogic.PropagateTableSelection()


def show_plot(chartNode: Any) -> None:
    """Show a plot, in a layout that is like the present one but has a place for it."""
    slicer.modules.plots.logic().ShowChartInLayout(chartNode)


def show_overlay(volumeNode: Any, overlayNode: Any, opacity: float) -> None:
    """Show a volume over an image in the slice views, as opaque as asked (0 to 1)."""
    slicer.util.setSliceViewerLayers(background=volumeNode, foreground=overlayNode, foregroundOpacity=opacity)


def set_overlay_opacity(isOverlay: "Callable[[Any], bool]", opacity: float) -> None:
    """Make overlays more or less opaque, in the slice views where such a volume is in the foreground."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        node = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID() or "")
        if node is not None and isOverlay(node):
            composite.SetForegroundOpacity(opacity)


def show_plot_and_table(chartNode: Any, tableNode: Any) -> None:
    """Show a plot and a table, in a layout that has a place for both."""
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotTableView)
    applicationLogic = slicer.app.applicationLogic()
    selectionNode = applicationLogic.GetSelectionNode()
    selectionNode.SetActivePlotChartID(chartNode.GetID())
    applicationLogic.PropagatePlotChartSelection()
    selectionNode.SetActiveTableID(tableNode.GetID())
    applicationLogic.PropagateTableSelection()


def jump_to(place_ras: "tuple[float, float, float]") -> None:
    """Bring the slices of all views to a place in the world (RAS, mm), in the views' middle."""
    views = slicer.vtkMRMLSliceNode
    views.JumpAllSlices(slicer.mrmlScene, *place_ras, views.CenteredJumpSlice)


def plot_views() -> "list[Any]":
    """The views of plots that the layout has."""
    layoutManager = slicer.app.layoutManager()
    return [layoutManager.plotWidget(number).plotView() for number in range(layoutManager.plotViewCount)]


def write_at_edge(text: str) -> None:
    """Write a text at the lower edge of the slice views; empty takes it away.

    Not into a corner: Slicer's own annotations write all four anew, with nothing too, whenever a slice moves.
    """
    layoutManager = slicer.app.layoutManager()
    for name in layoutManager.sliceViewNames():
        view = layoutManager.sliceWidget(name).sliceView()
        view.cornerAnnotation().SetText(vtk.vtkCornerAnnotation.LowerEdge, text)
        view.scheduleRender()


def edit_segmentation(segmentationNode: Any, volumeNode: Any) -> None:
    """Open the Segment Editor on a segmentation and the image that it belongs to."""
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentationNode)
    if volumeNode is not None:
        editor.setSourceVolumeNode(volumeNode)
