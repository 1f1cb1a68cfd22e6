"""From labelled images to a classification task: classes, sizes, network and folds, each choice with its reason."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from MedAILib.errors import InputError
from MedAILib.progress import Progress
from MedAILib.training.cases import LAYOUTS
from MedAILib.training.choices import Choice
from MedAILib.training.classification_networks import NETWORKS, class_network
from MedAILib.training.classification_task import DECISIONS, ClassificationTask
from MedAILib.training.labelled_images import (
    ENDINGS,
    LabelledImage,
    find_labelled_images,
    looks_like_dicom,
    read_labelled,
)
from MedAILib.training.plan_classes import PlannedClasses, counted, plan_classes
from MedAILib.volume import Volume, closest_axes

SEEN = 24  # images whose sizes are looked at
STEP = 8  # sizes are multiples of this
LARGEST = {2: 128, 3: 64}
SMALLEST = 16
FOLDS = 5
USUAL_FRAMES = 16
STEPS, EPOCHS = 400, (20, 100)
MANY = 5000  # images, from which on batches are larger
# Hounsfield units: the least and the most that scanners give, and what is nothing but air below it; of the values that
# are looked at for a window every so manieth.
LOWEST_CT, HIGHEST_CT, AIR, THINNED = -4000, 33000, -900, 7


def has_classes(data: Path) -> bool:
    """Whether a folder or file looks like labelled images: a `.npz`, a `.csv`, or a folder for each class."""
    if data.is_file():
        return data.suffix.lower() in (".npz", ".csv")
    if not data.is_dir() or (data / "dataset.json").is_file():
        return False
    inside = [path.name for path in data.iterdir() if path.is_dir() and not path.name.startswith(".")]
    labelled = {name for layout in LAYOUTS for name in layout} | {"imagesTs", "labelsTs"}
    return bool(inside) and not labelled & set(inside) and any(_holds_images(data / name) for name in inside)


def is_labelled(data: Path) -> bool:
    """Whether a folder has images and label maps, as for segmentation."""
    return any((data / images).is_dir() and (data / labels).is_dir() for images, labels in LAYOUTS)


def _holds_images(folder: Path) -> bool:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return any(path.name.lower().endswith((*ENDINGS, ".dcm")) or looks_like_dicom(path) for path in files)


@dataclass(frozen=True)
class Wanted:
    """What the user decided before a plan is made.

    Args:
        frames: of a sequence, 0 for single images; None: files of four axes are sequences.
        decision: one of `classification_task.DECISIONS`; empty: as the data has it.
        ordered: the classes will be given in their order.
    """

    frames: int | None = None
    decision: str = ""
    ordered: bool = False


def plan_classifier(
    name: str, data: Path, wanted: Wanted, progress: Progress
) -> tuple[ClassificationTask, list[Choice]]:
    """Plan a task from what labelled images are like.

    Args:
        name: of the task.
        data: see `labelled_images.find_labelled_images`.
        wanted: what is decided already.
        progress: is told of each image that is looked at.

    Raises:
        InputError: no images, or such that can't be learnt from; one class only.
        Cancelled: by `progress`.
    """
    if wanted.decision and wanted.decision not in DECISIONS:
        known = ", ".join(DECISIONS)
        raise InputError(f"--set decision={wanted.decision}: there is no such decision; known are {known}.")
    frames = wanted.frames
    images = find_labelled_images(data, bool(frames), (wanted.decision == "multilabel") if wanted.decision else None)
    classes = plan_classes(data, images, wanted.decision, wanted.ordered)
    labels = list(classes.labels)
    volumes = _seen(images, progress)
    if frames is None and all(volume.channels > 4 for volume in volumes):
        frames = min(USUAL_FRAMES, int(median(volume.channels for volume in volumes)))
        why = "files with a fourth axis are sequences; at most 16 of their frames are taken"
    else:
        why = "asked for by --set" if frames else "files hold single images; --set frames=16 takes them as sequences"
    frames = frames or 0
    flat = [_is_flat(volume, frames) for volume in volumes]
    axes = 2 if sum(flat) * 2 > len(flat) else 3
    names, why_channels = _channels(volumes, frames)
    channels = len(names)
    intensity, why_intensity = _intensity(volumes, channels)
    size, why_size = _size(volumes, axes)
    folds, why_folds = _folds(images, classes)
    network = class_network("DenseNet", channels, size, len(labels), frames)
    batch = max(2, min(16 if len(images) < MANY else 64, len(images) // 4))
    learnt = len(images) * (folds - 1) // folds if folds > 1 else sum(image.split == "train" for image in images)
    epochs = min(max(STEPS // max(learnt // batch, 1), EPOCHS[0]), EPOCHS[1])
    flip = [] if axes == 3 or _sided(labels) else [0]
    task = ClassificationTask(
        name=name,
        classes=[{"name": label, "labels": [label]} for label in labels],
        decision=classes.decision,
        channels=["CT"] if intensity else names,
        intensity=intensity,
        modality="CT" if intensity else "",
        size=size,
        network=network,
        frames=frames,
        orientation="RAS" if axes == 3 else "",
        folds=folds,
        batch=batch,
        epochs=epochs,
        distil_epochs=epochs,
        learning_rate=0.01,
        data_source=f"{len(images)} images in {data.resolve().name}",
        class_weights=classes.weights,
        threshold=classes.threshold,
        augmentation={"flip": flip, "rotate": 10, "scale": 0.1, "translate": 0.05, "gamma": 0.2, "noise": 0.1},
    )
    choices = [
        Choice("classes", ", ".join(labels), classes.counted),
        Choice("decision", classes.decision, classes.why),
        Choice("frames", frames, why),
        Choice("channels", ", ".join(task.channels), why_channels),
        Choice("size", size, why_size),
        Choice("orientation", task.orientation or "as it lies", "volumes are turned to it; pictures are not turned"),
        Choice("intensity", ", ".join(intensity) or "z-score", why_intensity),
        Choice("network", network["_target_"], _why_network(frames)),
        Choice("folds", folds, why_folds),
        Choice("loss", task.loss, _why_loss(classes.decision)),
        Choice("class_weights", task.class_weights, classes.why_weights),
        Choice("threshold", task.threshold, classes.why_threshold),
        Choice("batch", task.batch, f"16, from {MANY} images on 64; a quarter of the images where they are few"),
        Choice("epochs", task.epochs, f"about {STEPS} steps, {EPOCHS[0]} to {EPOCHS[1]} epochs"),
        Choice("learning_rate", f"{task.learning_rate:g}", "AdamW's highest; a tenth where the loss does not fall"),
        Choice("schedule", task.schedule, "rises over the first 15 % of the steps, then falls to nothing"),
        Choice("augmentation", ", ".join(task.augmentation), "mirrored left-right" if flip else "sides stay sides"),
    ]
    return task, choices


def _seen(images: Sequence[LabelledImage], progress: Progress) -> list[Volume]:
    chosen = images[:: max(1, len(images) // SEEN)]
    volumes = []
    for number, image in enumerate(chosen):
        progress.step(number, len(chosen), f"Looking at {image.name}")
        volumes.append(read_labelled(image, progress))
    progress.step(len(chosen), len(chosen), "Looking")
    return volumes


def _is_flat(volume: Volume, frames: int) -> bool:
    """Whether it is a picture, or for sequences one of pictures: frames are slices, or channels of a single one."""
    return 1 in volume.geometry.shape_kji or (frames > 0 and volume.channels in (1, 3))


def _size(volumes: Sequence[Volume], axes: int) -> tuple[list[int], str]:
    """Sizes of the working image: along I and J, or along the three axes of the patient."""
    shapes = []
    for volume in volumes:
        k, j, i = volume.geometry.shape_kji
        if axes == 2:
            shapes.append((i, j) if 1 not in (i, j) else tuple(sorted((i, j, k))[1:]))
        else:
            along = dict(zip((world for world, _ in closest_axes(volume.geometry.ijk_to_ras)), (i, j, k), strict=True))
            shapes.append((along[0], along[1], along[2]))
    usual = [int(median(shape[axis] for shape in shapes)) for axis in range(axes)]
    scale = min(1.0, LARGEST[axes] / max(usual))
    size = [max(SMALLEST, round(n * scale / STEP) * STEP) for n in usual]
    return (
        size,
        f"images are {' x '.join(map(str, usual))} in the middle; at most {LARGEST[axes]} along the longest axis",
    )


def _folds(images: Sequence[LabelledImage], classes: PlannedClasses) -> tuple[int, str]:
    parts = {image.split for image in images}
    if {"train", "val"} <= parts:
        return 1, "the data has parts to learn from and to validate on"
    pool = [image for image in images if image.split in ("", "train", "val")]
    least = min(counted(pool, classes.labels))
    patients = len({image.patient for image in pool if image.patient})
    return max(2, min(FOLDS, least, patients or FOLDS)), "cross-validation, as far as classes and patients go round"


def _why_loss(decision: str) -> str:
    each = {"multilabel": "of each label by itself", "ordinal": "of each step between grades"}
    return f"{each.get(decision, 'over all classes')}; --set loss=focal where the rare ones are missed"


def _why_network(frames: int) -> str:
    others = f"by --set network= also {', '.join(NETWORKS[1:])}"
    if frames:
        return f"a small DenseNet for each frame, a GRU over them; for frames {others}"
    return f"a small one, which few images can teach; {others}"


def _channels(volumes: Sequence[Volume], frames: int) -> tuple[list[str], str]:
    """The channels' names: of most images, but colour where some pictures are in colour and others grey."""
    if frames:
        return ["image 0"], "one for each frame; colour becomes grey"
    counts = Counter(volume.channels for volume in volumes)
    if set(counts) == {1, 3} and all(1 in volume.geometry.shape_kji for volume in volumes):
        return ["red", "green", "blue"], "some pictures are in colour; grey ones get the same value for each"
    count = counts.most_common(1)[0][0]
    if count == 3:
        return ["red", "green", "blue"], "images have three channels"
    return [f"image {n}" for n in range(count)], f"images have {count} channel{'s'[: count != 1]}"


def _intensity(volumes: Sequence[Volume], channels: int) -> tuple[list[Any], str]:
    """A window where all images look like CT; each channel is brought to mean 0 and standard deviation 1 after that."""
    usual = "each channel of each image to mean 0 and standard deviation 1"
    if channels != 1 or not all(looks_like_ct(volume) for volume in volumes):
        return [], usual
    values = np.concatenate([volume.data[volume.data > AIR][::THINNED] for volume in volumes]).astype(np.float64)
    low, high = (round(float(x)) for x in np.percentile(values, (0.5, 99.5)))
    why = f"values look like CT's: clipped to {low} to {high} HU (0.5 and 99.5 % of what is no air), then {usual}"
    return [f"window:{low}:{max(high, low + 1)}"], f"{why}; --set intensity= leaves the clipping out"


def looks_like_ct(volume: Volume) -> bool:
    """Whether values are Hounsfield units, as far as can be told: air and something denser than water, no beyond."""
    low, high = float(volume.data.min()), float(volume.data.max())
    return volume.provenance.get("Modality", "CT") == "CT" and LOWEST_CT <= low <= AIR and 100 <= high <= HIGHEST_CT


def _sided(labels: Sequence[str]) -> bool:
    return any(word in label.casefold() for label in labels for word in ("left", "right"))
