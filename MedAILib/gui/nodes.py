"""The nodes that a panel's parameters and the console's arguments mean."""

from collections.abc import Sequence
from typing import Any

import slicer

from MedAILib.errors import InputError


def node_of(nodeOrID: Any, what: str) -> Any:
    """The node of an ID in Slicer's scene; a node as it is.

    Raises:
        InputError: the ID is no node's any more.
    """
    if not isinstance(nodeOrID, str):
        return nodeOrID
    node = slicer.mrmlScene.GetNodeByID(nodeOrID)
    if node is None:
        raise InputError(f"The {what} {nodeOrID} is not in the scene any more; choose another.")
    return node


def nodes_of(nodesOrIDs: Any, what: str) -> list[Any]:
    """The nodes of one node or ID, or of a list of them; see `node_of`."""
    several = isinstance(nodesOrIDs, Sequence) and not isinstance(nodesOrIDs, str)
    return [node_of(item, what) for item in (nodesOrIDs if several else [nodesOrIDs])]


def is_there(node: Any) -> bool:
    """Whether a parameter's node is there: a parameter may still know a node that has left the scene."""
    return node is not None and node.GetScene() is not None


def id_of(node: Any) -> str | None:
    """The ID of a parameter's node; None where it is not there."""
    return node.GetID() if is_there(node) else None
