"""Images that a model made as volume nodes: all of them, or none."""

import slicer

from MedAILib.errors import InputError
from MedAILib.results import Generated
from MedAILib.scene.nodes import NodeWriter
from MedAILib.scene.read import geometry_of, require_image
from MedAILib.scene.segments import PROVENANCE_PREFIX
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.scene.write import all_or_nothing


def write_generated(
    result: Generated,
    scene: "slicer.vtkMRMLScene",
    source_node: "slicer.vtkMRMLScalarVolumeNode | None" = None,
) -> "list[slicer.vtkMRMLScalarVolumeNode]":
    """Make a scalar volume node of each image, and of each channel where it has several.

    Each carries the result's provenance as attributes that begin with "MedAI.", and its seed as "MedAI.seed".

    Args:
        result: the images.
        scene: where the nodes go.
        source_node: the image that they were made of; they lie under its parent transform then, and beside it.

    Raises:
        InputError: the source has left its scene or was changed to another grid. No node is left behind then, nor on
            any other failure.
    """
    if source_node is None:
        with all_or_nothing(scene):
            return _of_noise(result, scene)
    require_image(source_node)
    if not all(geometry_of(source_node).same_grid_as(volume.geometry) for volume in result.volumes):
        raise InputError(f"{source_node.GetName()} has another grid than when the model was started; run it again.")
    with all_or_nothing(source_node.GetScene()):
        writer = NodeWriter(source_node, f"{source_node.GetName()} {result.provenance['model']}", result.provenance)
        for volume in result.volumes:
            names = result.names if volume.channels > 1 else ("image",)
            for name, voxels in zip(names, volume.data, strict=True):
                node = writer.add_volume("vtkMRMLScalarVolumeNode", name, voxels, volume.geometry)
                node.CreateDefaultDisplayNodes()
        return writer.nodes


def _of_noise(result: Generated, scene: "slicer.vtkMRMLScene") -> "list[slicer.vtkMRMLScalarVolumeNode]":
    nodes = []
    for number, volume in enumerate(result.volumes):
        said = result.provenance | ({"seed": str(result.seeds[number])} if result.seeds else {})
        for node in add_volume_nodes(scene, volume):
            for key, value in said.items():
                node.SetAttribute(PROVENANCE_PREFIX + key, value)
            nodes.append(node)
    return nodes
