"""How an image and its segments are shown when their scene is opened in Slicer."""

import numpy as np
import slicer

from MedAILib.scene.arrays import node_geometry

_SLICE_VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


def set_up_display(
    volume_node: "slicer.vtkMRMLScalarVolumeNode",
    segmentation_node: "slicer.vtkMRMLSegmentationNode | None" = None,
    overlay_node: "slicer.vtkMRMLScalarVolumeNode | None" = None,
) -> None:
    """Show the image in the three slice views, and the segments in these and in 3D.

    The window is set from the image; the slices go through the middle of the segments, else of the image. Closed
    surfaces are made where there are none.

    Args:
        volume_node: the image, in a scene.
        segmentation_node: in the same scene; None where there is none.
        overlay_node: likewise a volume shown over the image, half transparent.
    """
    volume_node.CreateDefaultDisplayNodes()
    volume_node.GetScalarVolumeDisplayNode().AutoWindowLevelOn()
    bounds = [0.0] * 6
    volume_node.GetRASBounds(bounds)
    if segmentation_node is not None and segmentation_node.GetSegmentation().GetNumberOfSegments():
        _show_segments(segmentation_node)
        segmentation_node.GetRASBounds(bounds)
    _show_slices(volume_node, (np.array(bounds[::2]) + bounds[1::2]) / 2, overlay_node)


def _show_segments(node: "slicer.vtkMRMLSegmentationNode") -> None:
    node.CreateDefaultDisplayNodes()
    node.CreateClosedSurfaceRepresentation()
    display = node.GetDisplayNode()
    display.SetPreferredDisplayRepresentationName2D("Binary labelmap")
    display.SetPreferredDisplayRepresentationName3D("Closed surface")
    display.SetVisibility(True)
    display.SetOpacity2DFill(0.4)
    display.SetOpacity2DOutline(1.0)


def _show_slices(
    volume_node: "slicer.vtkMRMLScalarVolumeNode",
    center: "np.ndarray",
    overlay_node: "slicer.vtkMRMLScalarVolumeNode | None",
) -> None:
    """The nodes of the slice views, by the names that Slicer's standard layouts give them."""
    scene = volume_node.GetScene()
    geometry = node_geometry(volume_node)
    field_mm = max(n * mm for n, mm in zip(geometry.shape_kji, geometry.spacing_kji_mm, strict=True))
    for view, orientation in _SLICE_VIEWS.items():
        composite = _view_node(scene, "vtkMRMLSliceCompositeNode", view)
        composite.SetBackgroundVolumeID(volume_node.GetID())
        if overlay_node is not None:
            composite.SetForegroundVolumeID(overlay_node.GetID())
            composite.SetForegroundOpacity(0.5)
        slices = _view_node(scene, "vtkMRMLSliceNode", view)
        slices.SetOrientation(orientation)
        slices.SetFieldOfView(field_mm, field_mm, slices.GetFieldOfView()[2])
        slices.JumpSliceByCentering(*center.tolist())
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    if selection is not None:
        selection.SetActiveVolumeID(volume_node.GetID())


def _view_node(scene: "slicer.vtkMRMLScene", class_name: str, view: str) -> "slicer.vtkMRMLNode":
    node = scene.GetSingletonNode(view, class_name)
    if node is None:
        node = scene.CreateNodeByClass(class_name)
        node.UnRegister(None)
        node.SetSingletonTag(view)
        node.SetName(view)
        node.SetLayoutName(view)
        node = scene.AddNode(node)
    return node
