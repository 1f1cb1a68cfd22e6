"""Where new nodes of a result belong: with the image that it came from, saying how it came about."""

from collections.abc import Mapping
from typing import Any

from MedAILib.scene.segments import PROVENANCE_PREFIX


def put_beside(node: Any, source_node: Any, provenance: Mapping[str, str]) -> None:
    """Put a node under the source's parent transform and beside it in the hierarchy; note its provenance.

    Args:
        node: in the source's scene; what kinds of nodes know no transform or hierarchy go without.
        source_node: the image.
        provenance: becomes attributes that begin with "MedAI.".
    """
    if node.IsA("vtkMRMLTransformableNode"):
        node.SetAndObserveTransformNodeID(source_node.GetTransformNodeID())
    for key, value in provenance.items():
        node.SetAttribute(PROVENANCE_PREFIX + key, value)
    if not node.IsA("vtkMRMLColorNode"):
        _place_in_hierarchy(node, source_node)


def _place_in_hierarchy(node: Any, source_node: Any) -> None:
    """Beside the source, where the hierarchy knows the source: outside of Slicer it may not."""
    hierarchy = source_node.GetScene().GetSubjectHierarchyNode()
    source_item = hierarchy.GetItemByDataNode(source_node) if hierarchy else 0
    if not source_item:
        return
    parent = hierarchy.GetItemParent(source_item)
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
    hierarchy.SetItemParent(item, parent)
