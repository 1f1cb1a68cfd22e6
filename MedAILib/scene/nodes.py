"""New nodes beside an image's: name, place in the world and in the hierarchy, provenance."""

from collections.abc import Mapping
from typing import Any

import vtk
from numpy.typing import NDArray

from MedAILib.scene.arrays import matrix_of, set_voxels
from MedAILib.scene.beside import put_beside
from MedAILib.volume import Geometry


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
        put_beside(node, self.source, self.provenance)
        return node

    def add_volume(self, class_name: str, what: str, voxels: NDArray[Any], geometry: Geometry) -> Any:
        """A new volume node with voxels (K, J, I) on a grid."""
        node = self.add(class_name, what)
        image = vtk.vtkImageData()
        set_voxels(image, voxels)
        node.SetIJKToRASMatrix(matrix_of(geometry.ijk_to_ras))
        node.SetAndObserveImageData(image)
        return node
