"""The whole of a classification or of findings, kept by its table node, so that it can be reported at any time."""

from typing import Any

from MedAILib.detections import Detections
from MedAILib.errors import InputError
from MedAILib.results import Classification
from MedAILib.scene.position import IMAGE_ROLE
from MedAILib.scene.read import require_image
from MedAILib.scene.segments import PROVENANCE_PREFIX
from MedAILib.stored_results import result_from, text_of

_ATTRIBUTE = PROVENANCE_PREFIX + "result"


def keep_result(table_node: Any, result: "Classification | Detections") -> None:
    """Let a table node keep the result that it shows; it is saved with the scene."""
    table_node.SetAttribute(_ATTRIBUTE, text_of(result))


def has_result(node: Any) -> bool:
    """Whether a node keeps a result."""
    return node.GetAttribute(_ATTRIBUTE) is not None


def result_of(table_node: Any) -> "Classification | Detections":
    """The result that a table node shows; without its saliency.

    Raises:
        InputError: no table of a result.
    """
    if table_node is None or not hasattr(table_node, "IsA") or not table_node.IsA("vtkMRMLTableNode"):
        raise InputError("This is no table of a classification or of findings; choose one.")
    if not has_result(table_node):
        raise InputError(f"{table_node.GetName()} is no table of a classification or of findings; choose one.")
    return result_from(table_node.GetAttribute(_ATTRIBUTE))


def image_of(table_node: Any) -> Any:
    """The volume node that a table's result is of.

    Raises:
        InputError: it is not in the scene any more, or has no voxels.
    """
    node = table_node.GetNodeReference(IMAGE_ROLE)
    if node is None:
        raise InputError(f"The image of {table_node.GetName()} is not in the scene any more; save as .json or .csv.")
    require_image(node)
    return node
