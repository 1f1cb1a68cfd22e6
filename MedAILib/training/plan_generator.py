"""From pictures to the task of a generator: size, networks and length, each choice with its reason."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from MedAILib.errors import InputError
from MedAILib.progress import Progress
from MedAILib.training.choices import Choice
from MedAILib.training.generation_task import GenerationTask
from MedAILib.training.labelled_images import find_labelled_images, part_of, read_labelled

SEEN = 24  # pictures whose sizes are looked at
STEPS, EPOCHS = 2500, (20, 400)
USUAL_BATCH = 32
# Sizes that a generator may make, each with what its networks are; the first that is no smaller than the pictures.
LAYOUTS: Mapping[int, dict[str, Any]] = {
    28: {"start": [64, 7, 7], "made": [48, 24, 1], "judged": [32, 64, 128]},
    32: {"start": [64, 8, 8], "made": [48, 24, 1], "judged": [32, 64, 128]},
    64: {"start": [96, 8, 8], "made": [64, 48, 24, 1], "judged": [32, 64, 96, 128]},
}


def plan_generator(name: str, data: Path, label: str, progress: Progress) -> tuple[GenerationTask, list[Choice]]:
    """Plan a DCGAN from what the pictures are like.

    Args:
        name: of the task.
        data: see `labelled_images.find_labelled_images`.
        label: learn from the pictures of this label alone; empty for all.
        progress: is told of each picture that is looked at.

    Raises:
        InputError: no pictures, or too few.
        Cancelled: by `progress`.
    """
    images = part_of(find_labelled_images(data), ("train",))
    images = tuple(image for image in images if not label or image.label == label)
    if len(images) < 2:
        of = f" of the label '{label}'" if label else ""
        raise InputError(f"{data} has {len(images)} pictures{of} to learn from; a generator needs at least 2.")
    sides = []
    chosen = images[:: max(1, len(images) // SEEN)]
    for number, image in enumerate(chosen):
        progress.step(number, len(chosen), f"Looking at {image.name}")
        sides.append(max(read_labelled(image, progress).geometry.shape_kji))
    usual = median(sides)
    size = next((one for one in LAYOUTS if one >= usual), max(LAYOUTS))
    layout = LAYOUTS[size]
    batch = min(USUAL_BATCH, len(images))
    epochs = min(max(STEPS // max(len(images) // batch, 1), EPOCHS[0]), EPOCHS[1])
    halvings = [2] * (len(layout["made"]) - 1)
    task = GenerationTask(
        name=name,
        version="0.1.0",
        title=name.replace("_", " ").capitalize(),
        description=f"Pictures of {size} x {size} pixels like those of {data.resolve().name}, made of random numbers",
        authors="",
        copyright="",
        licence="unknown",
        data_source=f"{len(images)} pictures in {data.resolve().name}",
        intended_use="Teaching and research. The pictures show nobody; not a medical device.",
        references=[
            "Radford A et al. Unsupervised representation learning with deep convolutional generative adversarial "
            "networks. ICLR (2016). arXiv:1511.06434"
        ],
        warnings=[],
        modality="",
        label=label,
        part="train",
        size=size,
        latent=64,
        generator={"start_shape": layout["start"], "channels": layout["made"], "strides": [*halvings, 1]}
        | {"num_res_units": 0, "act": "RELU", "norm": "BATCH"},
        discriminator={"channels": layout["judged"], "strides": [2] * len(layout["judged"]), "num_res_units": 0}
        | {"act": ["LEAKYRELU", {"negative_slope": 0.2}], "norm": "INSTANCE"},
        seed=12345,
        epochs=epochs,
        batch=batch,
        learning_rate=0.0002,
        beta1=0.5,
        real_target=0.9,
        ema_decay=0.995,
        mirror=True,
    )
    choices = [
        Choice("label", label or "all", "asked for by --set" if label else "--set label=NAME takes those of one alone"),
        Choice("size", size, f"pictures are {usual:g} along their longer side in the middle; {max(LAYOUTS)} at most"),
        Choice("generator", f"{layout['made']} from {layout['start']}", "MONAI's, each layer twice the size (DCGAN)"),
        Choice("discriminator", layout["judged"], "MONAI's, each layer half the size"),
        Choice("batch", batch, f"{USUAL_BATCH}, or all pictures where they are fewer"),
        Choice("epochs", epochs, f"about {STEPS} steps, {EPOCHS[0]} to {EPOCHS[1]} epochs"),
        Choice("learning_rate", task.learning_rate, "DCGAN's, with its Adam (beta1 0.5)"),
        Choice("patience", task.patience, "no early stopping; --set patience=100 keeps a fifth of the pictures aside"),
        Choice("mirror", task.mirror, "left and right alike; --set mirror=false where sides matter"),
    ]
    return task, choices
