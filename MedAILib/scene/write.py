"""From a model's result to nodes of the scene that its image is in: all of them, or none."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import slicer

from MedAILib.errors import InputError
from MedAILib.results import Segmentation
from MedAILib.scene.arrays import voxels_of
from MedAILib.scene.colors import Color, fill_label_colors, label_colors
from MedAILib.scene.into import add_segments, kept_on_failure, require_segmentation
from MedAILib.scene.nodes import NodeWriter
from MedAILib.scene.read import geometry_of, require_image
from MedAILib.scene.segments import fill_segmentation
from MedAILib.scene.tables import fill_statistics
from MedAILib.statistics import SegmentStatistics, segment_statistics
from MedAILib.volume import Volume


@dataclass(frozen=True)
class Outputs:
    """Which nodes a result becomes.

    Args:
        segmentation: a segmentation node: names, colours, terminology, overlapping segments.
        label_map: a label map volume node for each layer, with a colour table node.
        probabilities: a volume node for each class's probability, if the result has them.
        uncertainty: a volume node for each voxel's entropy, 0 to 1, if the result has it.
        surfaces: closed surfaces of the segments, in the segmentation node, for 3D views.
        table: a table node: voxels, volume and intensities of each segment.
        into: the ID of a segmentation node of the source's scene that takes the segments, in place of a new node.

    Raises:
        InputError: surfaces, or a segmentation to add to, without asking for the segmentation.
    """

    segmentation: bool = True
    label_map: bool = False
    probabilities: bool = False
    surfaces: bool = False
    table: bool = True
    into: str | None = None
    uncertainty: bool = False

    def __post_init__(self) -> None:
        if self.into is not None and not self.segmentation:
            raise InputError("A segmentation to add to was given, but no segmentation asked for; ask for it too.")
        if self.surfaces and not self.segmentation:
            raise InputError("Surfaces are a part of the segmentation; ask for the segmentation too.")


def write_result(
    result: Segmentation,
    source_node: "slicer.vtkMRMLScalarVolumeNode",
    outputs: Outputs,
    name: str | None = None,
    statistics: Sequence[SegmentStatistics] | None = None,
) -> "list[slicer.vtkMRMLNode]":
    """Make nodes of a result, beside the volume node that it was computed from.

    Each node lies under the source's parent transform, beside the source in the subject hierarchy where that has it,
    and carries the result's provenance as attributes that begin with "MedAI."; so does each segment as tags. Labels
    that were not found get no segment, but a line in the table.

    A segmentation that is there already (`outputs.into`) keeps its segments, its reference geometry and its parent
    transform; the new segments lie in the world where the source does.

    Args:
        result: on the grid of `source_node`.
        source_node: the volume; the first one, where the model took several.
        outputs: which nodes to make.
        name: what the nodes' names begin with; None takes the source's name and the model's.
        statistics: of this result and image, where they were counted before (a large image takes seconds); None
            counts them here, if the table is asked for.

    Returns:
        The new nodes: segmentation (or the one that was added to), label maps each after its colour table,
        probabilities, uncertainty, table.

    Raises:
        InputError: the source has left its scene or was changed to another grid, the result lacks what is asked for,
            or `outputs.into` is no segmentation that can take the segments. No node is left behind then, nor on any
            other failure, and the segmentation to add to is as it was.
    """
    require_image(source_node)
    if not geometry_of(source_node).same_grid_as(result.geometry):
        raise InputError(
            f"{source_node.GetName()} has another grid than when its segmentation was started; run the model again."
        )
    if outputs.probabilities and result.probabilities is None:
        raise InputError("The result has no probabilities; run the model again and ask for them.")
    if outputs.uncertainty and result.uncertainty is None:
        raise InputError("The result has no uncertainty; run the model again and ask for it.")
    prefix = name or " ".join(x for x in (source_node.GetName(), result.provenance.get("model")) if x)
    scene = source_node.GetScene()
    into = None if outputs.into is None else require_segmentation(scene, outputs.into, source_node)
    with ExitStack() as whole:
        whole.enter_context(all_or_nothing(scene))
        writer = _Writer(result, source_node, prefix, statistics)
        if into is not None:
            whole.enter_context(kept_on_failure(into))
            writer.extend_segmentation(into, outputs.surfaces)
        elif outputs.segmentation:
            writer.add_segmentation(outputs.surfaces)
        if outputs.label_map:
            writer.add_label_maps()
        if outputs.probabilities:
            writer.add_probabilities()
        if outputs.uncertainty:
            writer.add_uncertainty()
        if outputs.table:
            writer.add_table()
    return writer.nodes


class _Writer(NodeWriter):
    """Makes the nodes of one result, one kind a method, and collects them in `nodes`."""

    def __init__(
        self, result: Segmentation, source: Any, prefix: str, statistics: Sequence[SegmentStatistics] | None
    ) -> None:
        super().__init__(source, prefix, result.provenance)
        self._result = result
        self._statistics = statistics
        self._found = None if statistics is None else {row.name for row in statistics if row.voxels}
        self._colors: list[Color] = label_colors(self.scene, result.labels)

    def add_segmentation(self, surfaces: bool) -> None:
        node = self.add("vtkMRMLSegmentationNode", "segmentation")
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.source)
        fill_segmentation(node.GetSegmentation(), self._result, self._colors, self._found)
        node.CreateDefaultDisplayNodes()
        if surfaces:
            node.CreateClosedSurfaceRepresentation()

    def extend_segmentation(self, node: Any, surfaces: bool) -> None:
        self.nodes.append(node)
        add_segments(node, self._result, self.source, self._found)
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
        if surfaces:
            node.CreateClosedSurfaceRepresentation()

    def add_label_maps(self) -> None:
        for layer, voxels in enumerate(self._result.layers):
            suffix = f" layer {layer + 1}" if layer else ""
            table = self.add("vtkMRMLColorTableNode", "label colours" + suffix)
            fill_label_colors(table, self._result.labels, self._colors, layer)
            node = self.add_volume("vtkMRMLLabelMapVolumeNode", "label map" + suffix, voxels, self._result.geometry)
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetAndObserveColorNodeID(table.GetID())

    def add_probabilities(self) -> None:
        probabilities = self._result.probabilities
        assert probabilities is not None
        for class_name, voxels in zip(self._result.probability_names, probabilities, strict=True):
            node = self.add_volume(
                "vtkMRMLScalarVolumeNode", f"probability of {class_name}", voxels, self._result.geometry
            )
            node.CreateDefaultDisplayNodes()
            display = node.GetScalarVolumeDisplayNode()
            display.AutoWindowLevelOff()
            display.SetWindowLevelMinMax(0.0, 1.0)

    def add_uncertainty(self) -> None:
        voxels = self._result.uncertainty
        assert voxels is not None
        node = self.add_volume("vtkMRMLScalarVolumeNode", "uncertainty", voxels, self._result.geometry)
        node.CreateDefaultDisplayNodes()
        display = node.GetScalarVolumeDisplayNode()
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(0.0, 1.0)

    def add_table(self) -> None:
        rows = self._statistics
        if rows is None:
            channel = voxels_of(self.source.GetImageData())[:1]
            rows = segment_statistics(self._result, Volume(channel, self._result.geometry, self.source.GetName()))
        fill_statistics(self.add("vtkMRMLTableNode", "statistics"), rows)


@contextmanager
def all_or_nothing(scene: "slicer.vtkMRMLScene") -> Iterator[None]:
    """Take every node that appears in the block out of the scene again if the block fails."""
    before = {node.GetID() for node in _nodes(scene)}
    try:
        yield
    except BaseException:
        hierarchy = scene.GetSubjectHierarchyNode()
        for node in [node for node in _nodes(scene) if node.GetID() not in before]:
            item = hierarchy.GetItemByDataNode(node) if hierarchy else 0
            if item:
                hierarchy.RemoveItem(item, False, False)
            scene.RemoveNode(node)
        raise


def _nodes(scene: "slicer.vtkMRMLScene") -> list[Any]:
    return [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
