"""New nodes beside an image's: name, place in the world and in the hierarchy, provenance; all of them, or none."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import slicer
import vtk
from numpy.typing import NDArray

from MedAILib.scene.arrays import matrix_of, set_voxels
from MedAILib.volume import Geometry

PROVENANCE_PREFIX = "MedAI."


class NodeWriter:
    """Adds nodes to the scene of a volume node, and collects them in `nodes`.

    Args:
        source: the volume node that a result was computed from.
        prefix: what the nodes' names begin with.
        provenance: becomes each node's attributes.
    """

    def __init__(self, source: Any, prefix: str, provenance: Mapping[str, str]) -> None:
        self.nodes: list[Any] = []
        self.source, self.prefix, self.provenance = source, prefix, provenance
        self.scene = source.GetScene()

    def add(self, class_name: str, what: str) -> Any:
        """A new node under the source's parent transform, beside the source in the hierarchy."""
        name = self.scene.GenerateUniqueName(f"{self.prefix} {what}")
        node = self.scene.AddNewNodeByClass(class_name, name)
        self.nodes.append(node)
        if node.IsA("vtkMRMLTransformableNode"):
            node.SetAndObserveTransformNodeID(self.source.GetTransformNodeID())
        for key, value in self.provenance.items():
            node.SetAttribute(PROVENANCE_PREFIX + key, value)
        if not node.IsA("vtkMRMLColorNode"):
            self._place_in_hierarchy(node)
        return node

    def add_volume(self, class_name: str, what: str, voxels: NDArray[Any], geometry: Geometry) -> Any:
        """A new volume node with voxels (K, J, I) on a grid."""
        node = self.add(class_name, what)
        image = vtk.vtkImageData()
        set_voxels(image, voxels)
        node.SetIJKToRASMatrix(matrix_of(geometry.ijk_to_ras))
        node.SetAndObserveImageData(image)
        return node

    def _place_in_hierarchy(self, node: Any) -> None:
        """Beside the source, where the hierarchy knows the source: outside of Slicer it may not."""
        hierarchy = self.scene.GetSubjectHierarchyNode()
        source_item = hierarchy.GetItemByDataNode(self.source) if hierarchy else 0
        if not source_item:
            return
        parent = hierarchy.GetItemParent(source_item)
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
        hierarchy.SetItemParent(item, parent)


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
