"""Results that need MRML: segmentation files, surfaces and scenes, made in a scene of their own."""

from MedAILib.commands.targets import Targets
from MedAILib.output import WholeFiles
from MedAILib.results import Segmentation
from MedAILib.scene.display import set_up_display
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.storage import save_scene, save_segmentation, write_surfaces
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.scene.write import Outputs, write_result
from MedAILib.volume import Volume


def write_scene_outputs(volume: Volume, result: Segmentation, targets: Targets, files: WholeFiles) -> None:
    """Write those that are asked for: a `.seg.nrrd` file, an `.mrb` scene (image, segmentation, table), surfaces.

    Where nothing was found, the segmentation has no segments and there are no surfaces.

    Raises:
        OutputError: a file can't be written.
    """
    with headless_scene() as owner:
        source = add_volume_nodes(owner.scene, volume)[0]
        outputs = Outputs(surfaces=targets.surfaces is not None, probabilities=result.probabilities is not None)
        node = write_result(result, source, outputs)[0]
        if targets.segmentation is not None:
            with files.writing(targets.segmentation) as part:
                save_segmentation(node, part)
        if targets.surfaces is not None and node.GetSegmentation().GetNumberOfSegments():
            write_surfaces(node, targets.surfaces, files)
        if targets.scene is not None:
            set_up_display(source, node)
            with files.writing(targets.scene) as part:
                save_scene(owner.scene, part)
