"""Which image of a scene a run was started on, so that its result comes back to that very image or nowhere."""

from dataclasses import dataclass

import slicer

from MedAILib.errors import InputError
from MedAILib.scene.read import require_image


@dataclass(frozen=True)
class Origin:
    """A volume node without a pointer to it: what may be kept while a model computes.

    An ID alone does not do: once a scene was closed, the next one gives the same IDs to other images. No two images of
    a process share a time of modification, though, so node and voxels together are known by both.

    Args:
        node_id: the node's ID in its scene.
        name: its name when the run was started, for messages.
        voxels_time: VTK's time of the last change of its voxels; names, transforms and display leave it as it is.
    """

    node_id: str
    name: str
    voxels_time: int


def origin_of(volume_node: "slicer.vtkMRMLScalarVolumeNode") -> Origin:
    """What to remember of a volume before a run.

    Raises:
        InputError: no volume node with voxels in a scene.
    """
    require_image(volume_node)
    return Origin(volume_node.GetID(), volume_node.GetName(), volume_node.GetImageData().GetMTime())


def find_origin(scene: "slicer.vtkMRMLScene", origin: Origin) -> "slicer.vtkMRMLScalarVolumeNode":
    """The volume node that a run was started on, whatever it is called now and under whichever transform it lies.

    Raises:
        InputError: it was removed, its scene was closed, or its voxels were changed; the result belongs nowhere then.
    """
    node = scene.GetNodeByID(origin.node_id)
    if node is None or not node.IsA("vtkMRMLScalarVolumeNode"):
        raise InputError(f"{origin.name} was removed from the scene before its result came; load it and run again.")
    image = node.GetImageData()
    if image is None or image.GetMTime() != origin.voxels_time:
        raise InputError(
            f"{origin.name} was given other voxels, or its scene was closed, before its result came; run it again."
        )
    return node
