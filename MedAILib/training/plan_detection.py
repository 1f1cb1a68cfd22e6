"""A detector's task planned from images with boxes, each choice with its reason; and what a task leaves to its data."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.training.choices import ASKED, Choice, short
from MedAILib.training.data_folder import channel_names
from MedAILib.training.detection_task import POOLED, DetectionTask, strides_of
from MedAILib.training.examine import groups_of
from MedAILib.training.examine_boxes import BoxedFacts
from MedAILib.training.patients import patients_of
from MedAILib.training.plan_augmentation import planned_for_boxes, planned_mirror
from MedAILib.training.plan_grid import Budget
from MedAILib.training.plan_intensity import modality_of, planned_intensity
from MedAILib.volume import closest_axes

ORIENTATION = "RAS"
LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9  # of the boxes by volume
FINE = 8  # voxels; along an axis where boxes are smaller, the first convolution keeps every voxel
PATCHES = {"cpu": 64, "gpu": 96}
LONG = 1_000  # steps
RARE = 3  # times the rarest's boxes has the commonest class in images of several; then patches show each as often
EPOCHS = 50  # after each a checkpoint is written
STEPS = {"cpu": 1_500, "gpu": 15_000}


def plan_detector(
    name: str,
    folder: Path,
    classes: Mapping[str, Sequence[str]],
    facts: Sequence[BoxedFacts],
    budget: Budget,
    settings: Mapping[str, Any],
) -> tuple[DetectionTask, list[Choice]]:
    """Plan a task.

    Args:
        name: of the task, and so of the model.
        folder: the data.
        classes: names, and what the data calls each.
        facts: of each case.
        budget: of the device.
        settings: what the user has decided, by key of the task.

    Raises:
        InputError: a value of the settings makes no sense.
    """
    channels = settings.get("channels") or _channels(folder, facts)
    orientation = settings.get("orientation", ORIENTATION)
    spacing = settings.get("spacing_mm") or _median_spacing(facts, orientation)
    voxels = box_sizes(facts, orientation) / np.array(spacing)
    low, _, high = (voxels[place] for place in _places(voxels))
    strides = [1 if edge < FINE else 2 for edge in low]
    if "backbone" in settings:
        strides = strides_of(settings["backbone"])
    spread = float((high / low).max())
    layers = settings.get("returned_layers") or ([1] if spread < 2 else [1, 2])
    multiples = [POOLED * stride * 2 ** max(layers) for stride in strides]
    extents = [_along(one, one.geometry.shape_kji[::-1], orientation) for one in facts]
    median = np.median(np.array(extents) / np.array(spacing), axis=0)
    patch = settings.get("patch") or _patch(median, high, multiples, PATCHES[budget.name])
    batch = settings.get("batch") or (2 if budget.name == "cpu" else 4)
    drawn = STEPS[budget.name] * batch / (len(facts) * 0.8)  # patches of each image in the whole training
    filling = float(np.prod(median / patch)) if (median > np.array(patch) * 1.3).any() else 1.0
    samples = settings.get("samples") or int(min(max(round(filling), round(drawn / EPOCHS), 1), 8))
    epochs = settings.get("epochs") or max(round(drawn / samples), 5)
    steps = round(epochs * len(facts) * 0.8 * samples / batch)
    plain = [one.plain for one in facts]
    intensity, _, why_intensity = planned_intensity(channels, plain)
    mirror, why_mirror = planned_mirror(list(classes))
    changes, why_changes = planned_for_boxes(spacing, patch, len(mirror) < 3)
    patients = patients_of(folder, [one.case for one in plain])
    folds = min(5, len(set(groups_of(plain, patients).values())))
    wide = budget.name == "gpu"
    planned: dict[str, tuple[Any, str]] = {
        "channels": (list(channels), "dataset.json, or counted where nothing names them"),
        "classes": ([{"name": x, "labels": list(told)} for x, told in classes.items()], "the labels that the data has"),
        "spacing_mm": (spacing, "the median of all images along each axis"),
        "intensity": (intensity, why_intensity),
        "patch": (patch, f"the median image has {short([round(float(n)) for n in median])} voxels at this spacing"),
        "backbone": (_backbone(strides, wide), f"strides of 1 along axes where boxes have less than {FINE} voxels"),
        "returned_layers": (layers, "one level" if len(layers) == 1 else "two levels, since boxes differ much in size"),
        "width": (128 if wide else 32, f"features of each level, on a {budget.name.upper()}"),
        "batch": (batch, f"on a {budget.name.upper()}"),
        "samples": (
            samples,
            f"patches of each image in an epoch, for at most about {EPOCHS} epochs, or as many as fill it; 8 at most",
        ),
        "sampling": _sampling(facts),
        "mirror_axes": (mirror, why_mirror),
        "augmentation": (changes, why_changes),
        "precision": ("auto", "bfloat16 where the device computes in it, else float32"),
        "patience": (0, "no early stopping: the learning rate falls to its end"),
        "learning_rate": (0.002, "AdamW, rising over a twentieth of the steps, then falling by a cosine"),
        "ema_decay": (0.99 if steps >= LONG else 0.9, f"0.99 from {LONG} steps on, so that the first ones don't count"),
        "epochs": (epochs, f"{STEPS[budget.name]} steps in all on a {budget.name.upper()}"),
        "folds": (folds, "five" if folds == 5 else "as many as there are patients, or images"),
    }
    chosen = {key: settings.get(key, value) for key, (value, _) in planned.items()} | dict(settings)
    task = DetectionTask(**(_described(name, folder, list(classes), channels, len(facts)) | chosen))
    choices = [
        Choice(k, _shown(k, chosen[k]), ASKED if k in settings else reason) for k, (_, reason) in planned.items()
    ]
    task, left = plan_left(task, facts)
    return task, choices + left


def _sampling(facts: Sequence[BoxedFacts]) -> tuple[str, str]:
    """Around which findings patches lie, and why."""
    every = [[box.label for box in one.boxes] for one in facts]
    counts = Counter(label for labels in every if len(set(labels)) > 1 for label in labels)
    if not counts or max(counts.values()) < RARE * min(counts.values()):
        return "findings", "half of the patches lie around any of an image's findings"
    rare = min(counts, key=lambda name: counts[name])
    told = f"where images have several classes, {rare} has {counts[rare]} of {counts.total()} boxes"
    return "classes", f"{told}; there patches lie around each class as often"


def plan_left(task: DetectionTask, facts: Sequence[BoxedFacts]) -> tuple[DetectionTask, list[Choice]]:
    """A task with the spacing and the anchors that it leaves to its data."""
    choices = []
    if not task.spacing_mm:
        task = replace(task, spacing_mm=_median_spacing(facts, task.orientation))
        choices.append(Choice("spacing_mm", short(task.spacing_mm), "the median of all images along each axis"))
    if not task.anchors:
        voxels = box_sizes(facts, task.orientation) / np.array(task.spacing_mm)
        shapes = [[float(max(round(float(n)), 2)) for n in voxels[place]] for place in _places(voxels)]
        task = replace(task, anchors=[list(shape) for shape in dict.fromkeys(tuple(shape) for shape in shapes)])
        reason = "voxels; of the data's boxes by volume the tenth, half and nine tenths"
        choices.append(Choice("anchors", ", ".join(short(shape) for shape in task.anchors), reason))
    return task, choices


def box_sizes(facts: Sequence[BoxedFacts], orientation: str) -> NDArray[np.float64]:
    """Edge lengths (n, 3) of all boxes in mm, along the axes of an orientation such as "RAS"."""
    sizes = [
        _along(one, tuple(np.array(box.high_ijk) - np.array(box.low_ijk)), orientation)
        for one in facts
        for box in one.boxes
    ]
    return np.array(sizes, np.float64).reshape(-1, 3)


def _places(sizes: NDArray[np.float64]) -> list[int]:
    """Which of the boxes (n, 3) are the tenth, half and nine tenths by volume."""
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    return [int(order[int(share * (len(order) - 1))]) for share in (LOW, MIDDLE, HIGH)]


def _median_spacing(facts: Sequence[BoxedFacts], orientation: str) -> list[float]:
    told = np.median([_along(one, (1.0, 1.0, 1.0), orientation) for one in facts], axis=0)
    return [round(float(mm), 3) for mm in told]


def _along(one: BoxedFacts, ijk: Sequence[float], orientation: str) -> list[float]:
    """Lengths in voxels along I, J, K as lengths in mm along an orientation's axes."""
    towards = [world for world, _ in closest_axes(one.geometry.ijk_to_ras)]
    spacing = one.geometry.spacing_kji_mm[::-1]
    axes = [towards.index("RASLPI".index(letter) % 3) for letter in orientation]
    return [float(ijk[axis] * spacing[axis]) for axis in axes]


def _patch(median: NDArray[np.float64], largest: NDArray[np.float64], multiples: Sequence[int], most: int) -> list[int]:
    """As large as the median image, up to `most` voxels or twice the large boxes, in multiples of the network's."""
    sides = np.minimum(median, np.maximum(most, 2 * largest))
    return [math.ceil(float(side) / multiple) * multiple for side, multiple in zip(sides, multiples, strict=True)]


def _backbone(strides: Sequence[int], wide: bool) -> dict[str, Any]:
    features = [64, 128, 256, 512] if wide else [16, 32, 64, 128]
    return {
        "_target_": "ResNet",
        "block": "basic",
        "layers": [2, 2, 2, 2] if wide else [1, 1, 1, 1],
        "block_inplanes": features,
        "conv1_t_size": [5, 5, 5],
        "conv1_t_stride": list(strides),
        "norm": ["group", {"num_groups": 4}],
    }


def _channels(folder: Path, facts: Sequence[BoxedFacts]) -> list[str]:
    count, named = facts[0].plain.channels, channel_names(folder / "dataset.json")
    if named is not None and len(named) == count:
        return list(named)
    return ["image"] if count == 1 else [f"channel {number}" for number in range(count)]


def _described(name: str, folder: Path, classes: list[str], channels: Sequence[str], count: int) -> dict[str, Any]:
    """What a task says of itself for people."""
    return {
        "name": name,
        "version": "0.1.0",
        "title": name.replace("_", " ").capitalize(),
        "description": f"Boxes around {', '.join(classes)} in {', '.join(channels)}",
        "authors": "",
        "copyright": "",
        "licence": "unknown",
        "data_source": f"{count} images in the folder {folder.resolve().name}",
        "intended_use": "Research and teaching. Not a medical device; not for diagnosis or treatment.",
        "references": [
            "Lin TY et al. Focal loss for dense object detection. ICCV 2017. doi:10.1109/ICCV.2017.324",
            "Zhang S et al. Bridging the gap between anchor-based and anchor-free detection via adaptive training "
            "sample selection. CVPR 2020. doi:10.1109/CVPR42600.2020.00978",
        ],
        "warnings": [],
        "modality": modality_of(channels),
    }


def _shown(key: str, value: Any) -> Any:
    match key:
        case "classes":
            return ", ".join(str(entry["name"]) for entry in value)
        case "channels" | "augmentation":
            return ", ".join(str(entry) for entry in value)
        case "intensity":
            return ", ".join(str(step["_target_"]) for step in value)
        case "spacing_mm" | "patch":
            return short(value)
        case "backbone":
            told = [f"{key} {value[key]}" for key in ("block_inplanes", "conv1_t_stride") if key in value]
            return ", ".join([str(value.get("_target_")), *told])
    return value


def require_boxes(facts: Sequence[BoxedFacts], names: Sequence[str], what: str) -> None:
    """Raise `InputError` where none of some cases has a box."""
    if not any(one.boxes for one in facts if one.case.name in names):
        raise InputError(f"There is no box in the images that are for {what}; add findings, or choose another --fold.")
