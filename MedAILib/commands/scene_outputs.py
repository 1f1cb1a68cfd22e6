"""Results that need MRML: segmentation files, surfaces and scenes, made in a scene of their own."""

from pathlib import Path

from MedAILib.results import Segmentation
from MedAILib.scene.display import set_up_display
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.storage import save_scene, save_segmentation, save_surfaces
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.scene.write import Outputs, write_result
from MedAILib.volume import Volume


def write_scene_outputs(
    volume: Volume, result: Segmentation, segmentation: Path | None, scene: Path | None, surfaces: Path | None
) -> None:
    """Write what is asked for: a `.seg.nrrd` file, an `.mrb` scene (image, segmentation, table), a folder of surfaces.

    Where nothing was found, the segmentation has no segments and there are no surfaces.

    Raises:
        OutputError: a file can't be written.
    """
    with headless_scene() as owner:
        source = add_volume_nodes(owner.scene, volume)[0]
        outputs = Outputs(surfaces=surfaces is not None, probabilities=result.probabilities is not None)
        node = write_result(result, source, outputs)[0]
        if segmentation is not None:
            save_segmentation(node, segmentation)
        if surfaces is not None and node.GetSegmentation().GetNumberOfSegments():
            save_surfaces(node, surfaces)
        if scene is not None:
            set_up_display(source, node)
            save_scene(owner.scene, scene)
