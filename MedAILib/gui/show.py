"""Brings images, tables and segmentations before the user's eyes in Slicer's window."""

from typing import Any

import slicer
import slicer.util


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


def edit_segmentation(segmentationNode: Any, volumeNode: Any) -> None:
    """Open the Segment Editor on a segmentation and the image that it belongs to."""
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentationNode)
    if volumeNode is not None:
        editor.setSourceVolumeNode(volumeNode)
