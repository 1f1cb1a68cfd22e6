"""From a model's result to nodes of the scene that its image is in: all of them, or none."""

from dataclasses import dataclass
from typing import Any

import slicer

from MedAILib.errors import InputError
from MedAILib.results import Segmentation
from MedAILib.scene.arrays import voxels_of
from MedAILib.scene.colors import Color, label_colors
from MedAILib.scene.nodes import NodeWriter, all_or_nothing
from MedAILib.scene.read import geometry_of, require_image
from MedAILib.scene.segments import fill_segmentation
from MedAILib.scene.tables import fill_statistics
from MedAILib.statistics import segment_statistics
from MedAILib.volume import Volume


@dataclass(frozen=True)
class Outputs:
    """Which nodes a result becomes.

    Args:
        segmentation: a segmentation node: names, colours, terminology, overlapping segments.
        label_map: a label map volume node for each layer, with a colour table node.
        probabilities: a volume node for each class's probability, if the result has them.
        surfaces: closed surfaces of the segments, in the segmentation node, for 3D views.
        table: a table node: voxels, volume and intensities of each segment.

    Raises:
        InputError: surfaces without the segmentation node that they belong to.
    """

    segmentation: bool = True
    label_map: bool = False
    probabilities: bool = False
    surfaces: bool = False
    table: bool = True

    def __post_init__(self) -> None:
        if self.surfaces and not self.segmentation:
            raise InputError("Surfaces are a part of the segmentation; ask for the segmentation too.")


def write_result(
    result: Segmentation, source_node: "slicer.vtkMRMLScalarVolumeNode", outputs: Outputs, name: str | None = None
) -> "list[slicer.vtkMRMLNode]":
    """Make nodes of a result, beside the volume node that it was computed from.

    Each node lies under the source's parent transform, beside the source in the subject hierarchy where that has it,
    and carries the result's provenance as attributes that begin with "MedAI.". Labels that were not found get no
    segment, but a line in the table.

    Args:
        result: on the grid of `source_node`.
        source_node: the volume; the first one, where the model took several.
        outputs: which nodes to make.
        name: what the nodes' names begin with; None takes the source's name and the model's.

    Returns:
        The new nodes: segmentation, label maps each after its colour table, probabilities, table.

    Raises:
        InputError: the source has left its scene or was changed to another grid, or the result lacks what is asked
            for. No node is left behind then, nor on any other failure.
    """
    require_image(source_node)
    if not geometry_of(source_node).same_grid_as(result.geometry):
        raise InputError(
            f"{source_node.GetName()} has another grid than when its segmentation was started; run the model again."
        )
    if outputs.probabilities and result.probabilities is None:
        raise InputError("The result has no probabilities; run the model again and ask for them.")
    prefix = name or " ".join(x for x in (source_node.GetName(), result.provenance.get("model")) if x)
    with all_or_nothing(source_node.GetScene()):
        writer = _Writer(result, source_node, prefix)
        if outputs.segmentation:
            writer.add_segmentation(outputs.surfaces)
        if outputs.label_map:
            writer.add_label_maps()
        if outputs.probabilities:
            writer.add_probabilities()
        if outputs.table:
            writer.add_table()
    return writer.nodes


class _Writer(NodeWriter):
    """Makes the nodes of one result, one kind a method, and collects them in `nodes`."""

    def __init__(self, result: Segmentation, source: Any, prefix: str) -> None:
        super().__init__(source, prefix, result.provenance)
        self._result = result
        self._colors: list[Color] = label_colors(self.scene, result.labels)

    def add_segmentation(self, surfaces: bool) -> None:
        node = self.add("vtkMRMLSegmentationNode", "segmentation")
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.source)
        fill_segmentation(node.GetSegmentation(), self._result, self._colors)
        node.CreateDefaultDisplayNodes()
        if surfaces:
            node.CreateClosedSurfaceRepresentation()

    def add_label_maps(self) -> None:
        geometry = self._result.geometry
        for layer, voxels in enumerate(self._result.layers):
            suffix = f" layer {layer + 1}" if layer else ""
            table = self.add("vtkMRMLColorTableNode", "label colours" + suffix)
            self._fill_colors(table, layer)
            node = self.add_volume("vtkMRMLLabelMapVolumeNode", "label map" + suffix, voxels, geometry)
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetAndObserveColorNodeID(table.GetID())

    def _fill_colors(self, table: Any, layer: int) -> None:
        """Names and colours of one layer's labels, each at its value; values between are without name and colour."""
        labels = [(x, color) for x, color in zip(self._result.labels, self._colors, strict=True) if x.layer == layer]
        table.SetTypeToUser()
        table.SetHideFromEditors(False)
        table.SetNumberOfColors(max((x.value for x, _ in labels), default=0) + 1)
        table.SetColor(0, "background", 0.0, 0.0, 0.0, 0.0)
        for label, color in labels:
            table.SetColor(label.value, label.name, *color, 1.0)

    def add_probabilities(self) -> None:
        probabilities = self._result.probabilities
        assert probabilities is not None
        geometry = self._result.geometry
        for class_name, voxels in zip(self._result.probability_names, probabilities, strict=True):
            node = self.add_volume("vtkMRMLScalarVolumeNode", f"probability of {class_name}", voxels, geometry)
            node.CreateDefaultDisplayNodes()
            display = node.GetScalarVolumeDisplayNode()
            display.AutoWindowLevelOff()
            display.SetWindowLevelMinMax(0.0, 1.0)

    def add_table(self) -> None:
        channel = voxels_of(self.source.GetImageData())[:1]
        image = Volume(channel, self._result.geometry, self.source.GetName())
        rows = segment_statistics(self._result, image)
        fill_statistics(self.add("vtkMRMLTableNode", "statistics"), rows)
