"""Results that need MRML: segmentation files, surfaces and scenes, made in a scene of their own."""

from pathlib import Path

from MedAILib.commands.targets import Targets
from MedAILib.detections import Detections
from MedAILib.output import WholeFiles
from MedAILib.results import Classification, Generated, Segmentation
from MedAILib.scene.classification import write_classification
from MedAILib.scene.detections import write_detections
from MedAILib.scene.display import set_up_display
from MedAILib.scene.generated import write_generated
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
        outputs = Outputs(
            surfaces=targets.surfaces is not None,
            probabilities=result.probabilities is not None,
            uncertainty=result.uncertainty is not None,
        )
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


def write_classification_scene(volume: Volume, result: Classification, path: Path) -> None:
    """Write a scene with the image, the classification's nodes, and the saliency over the image if there is one.

    Raises:
        OutputError: the file can't be written.
    """
    with headless_scene() as owner:
        source = add_volume_nodes(owner.scene, volume)[0]
        nodes = write_classification(result, source)
        overlay = nodes[-1] if result.saliency is not None else None
        set_up_display(source, overlay_node=overlay)
        save_scene(owner.scene, path)


def write_detection_scene(volume: Volume, found: Detections, path: Path) -> None:
    """Write a scene with the image, a region for each finding, and their table.

    Raises:
        OutputError: the file can't be written.
    """
    with headless_scene() as owner:
        source = add_volume_nodes(owner.scene, volume)[0]
        write_detections(found, source)
        set_up_display(source)
        save_scene(owner.scene, path)


def write_generated_scene(made: Generated, volume: Volume | None, path: Path) -> None:
    """Write a scene with images that a model made, and the one that they were made of if there is one.

    Raises:
        OutputError: the file can't be written.
    """
    with headless_scene() as owner:
        source = None if volume is None else add_volume_nodes(owner.scene, volume)[0]
        nodes = write_generated(made, owner.scene, source)
        set_up_display(nodes[0])
        save_scene(owner.scene, path)
