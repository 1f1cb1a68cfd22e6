"""A segmentation task planned from the data by nnU-Net's published rules, each choice with its reason.

Rules: Isensee et al., Nature Methods 18, 203-211 (2021), supplementary note 2. What differs is in the
reasons.
"""

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from MedAILib.errors import InputError
from MedAILib.training.architectures import (
    LEAST_LEVELS,
    NETWORKS,
    Levels,
    feature_values,
    head_weights,
    levels_for,
    network_entry,
)
from MedAILib.training.choices import ASKED, Choice, short
from MedAILib.training.data_folder import DataFolder
from MedAILib.training.examine import CaseFacts, groups_of
from MedAILib.training.plan_augmentation import planned_augmentation, planned_mirror, sides_of
from MedAILib.training.plan_grid import Budget, Wishes, planned_batch, planned_grid, planned_patch
from MedAILib.training.plan_intensity import modality_of, planned_intensity
from MedAILib.training.task import SegmentationTask

SAMPLING = "images are larger than the patch: a third of the patches lies around a voxel of a structure, each alike"
COLOURS = ("red", "green", "blue")

USUAL = (
    Choice("loss", "dice_ce", "nnU-Net's; Dice weighs each structure alike, whatever its size"),
    Choice("class_weights", "none", "Dice and patches chosen by class balance them; see --set loss=weighted_ce"),
    Choice("learning_rate", 0.001, "AdamW falling by a power of 0.9; with moving averages of the weights"),
)


def plan_task(
    name: str, data: DataFolder, facts: Sequence[CaseFacts], budget: Budget, wishes: Wishes
) -> tuple[SegmentationTask, list[Choice]]:
    """Plan a task.

    Args:
        name: of the task, and so of the model.
        data: the folder.
        facts: of each of its cases.
        budget: of the device.
        wishes: what the user has decided.

    Raises:
        InputError: the data can't be trained on (gaps in the label values), or a wish can't be met.
    """
    labels = _labels(data, facts)
    budget = replace(budget, memory_gb=wishes.memory_gb or budget.memory_gb)
    flat = all(fact.is_slice for fact in facts)
    grid = planned_grid(facts, flat, wishes)
    network = wishes.network or "DynUNet"
    if network not in NETWORKS:
        raise InputError(f"There is no network '{network}' for segmentation; known are {', '.join(NETWORKS)}.")
    patch, why_patch = planned_patch(network, grid, budget, wishes.patch)
    levels = levels_for(grid.spacing, patch)
    if wishes.network is None and len(levels.strides) < LEAST_LEVELS:
        network = "UNet"  # of which the same patches are asked
    channels = _channel_names(data, facts)
    entry = network_entry(network, levels, len(channels), len(labels) + 1, budget.base)
    held = feature_values(levels, patch, budget.base)
    voxels = float(np.prod(grid.median)) * len(facts)
    batch, why_batch = planned_batch(budget, held, voxels, patch) if wishes.batch is None else (wishes.batch, ASKED)
    large = bool((grid.median > np.array(patch) * 1.3).any())
    samples = int(min(max(round(float(np.prod(grid.median / patch))), 1), 8)) if large else 1
    epochs = max(round(budget.steps * batch / (len(facts) * 0.8 * samples)), 5)
    intensity, crop, why_intensity = planned_intensity(channels, facts)
    mirror, why_mirror = planned_mirror(list(labels.values()), sides_of(facts, flat))
    folds = min(5, len(set(groups_of(facts, data.patients).values())))
    augmentation, why_augmentation = planned_augmentation(grid.spacing, patch, named_sides=len(mirror) < len(patch))
    choices = [
        Choice("labels", ", ".join(f"{value} {name}" for value, name in labels.items()), _why_labels(data)),
        Choice("channels", ", ".join(channels), _why_channels(data, channels)),
        Choice("images", "pictures" if flat else "volumes", "each has a single slice" if flat else "they have slices"),
        Choice("spacing_mm", "none" if grid.as_it_lies else short(grid.spacing), grid.reason),
        Choice("intensity", ", ".join(step["_target_"] for step in intensity), why_intensity),
        Choice("crop_foreground", crop, "the box of nonzero voxels takes less than three quarters of the images" if crop
               else "the box of nonzero voxels takes nearly all of the images, or there are values below zero"),
        Choice("patch", short(patch), why_patch),
        Choice("network", _describe(entry, levels), _why_network(network, wishes, levels)),
        Choice("batch", batch, why_batch),
        Choice("samples", samples, "patches of each case in an epoch, as many as fill the median image, 8 at most"),
        Choice("sampling", "classes" if large else "uniform", SAMPLING if large else "a patch is most of an image"),
        Choice("mirror_axes", mirror, why_mirror),
        Choice("augmentation", ", ".join(augmentation), why_augmentation),
        *USUAL,
        Choice("epochs", epochs, f"{budget.steps} steps in all on a {budget.name.upper()}; nnU-Net takes 250,000"),
        Choice("folds", folds, "nnU-Net's five" if folds == 5 else "as many as there are patients, or cases"),
    ]  # fmt: skip
    task = SegmentationTask(
        **_described(name, data, facts, labels, channels),
        orientation="" if flat else "RAS",
        spacing_mm=[] if grid.as_it_lies else [float(mm) for mm in grid.spacing],
        patch=[int(n) for n in patch],
        network=entry,
        seed=12345,
        folds=folds,
        epochs=epochs,
        batch=batch,
        learning_rate=0.001,
        weight_decay=0.0001,
        ema_decay=0.99 if epochs * len(facts) * 0.8 * samples / batch < 2000 else 0.998,
        mirror_axes=mirror,
        deep_supervision_weights=head_weights(entry),
        crop_foreground=crop,
        intensity=intensity,
        sampling="classes" if large else "uniform",
        sampling_ratios=[2.0, *[1.0 / len(labels)] * len(labels)] if large else [],
        samples=samples,
        augmentation=augmentation,
    )
    return task, choices


def _described(
    name: str, data: DataFolder, facts: Sequence[CaseFacts], labels: dict[int, str], channels: Sequence[str]
) -> dict[str, Any]:
    """What the task says of itself to people."""
    return {
        "name": name,
        "version": "0.1.0",
        "title": name.replace("_", " ").capitalize(),
        "description": f"{', '.join(labels.values())} in {', '.join(channels)}",
        "authors": "",
        "copyright": "",
        "licence": "unknown",
        "data_source": f"{len(facts)} cases in the folder {data.folder.resolve().name}",
        "intended_use": "Research and teaching. Not a medical device; not for diagnosis or treatment.",
        "references": [
            "Isensee F et al. nnU-Net: a self-configuring method for deep learning-based biomedical image "
            "segmentation. Nature Methods 18, 203-211 (2021). doi:10.1038/s41592-020-01008-z"
        ],
        "warnings": [],
        "modality": modality_of(channels),
        "channels": list(channels),
        "labels": [{"value": value, "name": name} for value, name in labels.items()],
    }


def balanced_weights(facts: Sequence[CaseFacts], classes: int) -> list[float]:
    """Weights of classes, background first: one over the root of each class's share of the voxels, 1 on average."""
    counts = np.array([sum(fact.voxels.get(value, 0) for fact in facts) for value in range(classes)], dtype=np.float64)
    weights = 1 / np.sqrt(np.maximum(counts, 1) / counts.sum())
    return [round(float(weight), 4) for weight in weights / weights.mean()]


TOLD = (
    *("channels", "labels", "orientation", "spacing_mm", "intensity", "crop_foreground", "patch", "network", "batch"),
    *("samples", "sampling", "mirror_axes", "augmentation", "loss", "class_weights", "learning_rate", "schedule"),
    *("epochs", "patience", "folds", "frozen_stages", "shipped", "final_epochs"),
)


def task_choices(task: SegmentationTask, asked: Container[str]) -> list[Choice]:
    """What a task that was given says, each with where it is from; `asked` are the command line's keys."""
    return [Choice(key, getattr(task, key), ASKED if key in asked else "the task's") for key in TOLD]


def _labels(data: DataFolder, facts: Sequence[CaseFacts]) -> dict[int, str]:
    labels = data.labels
    if labels is None:
        labels = {value: f"label {value}" for value in sorted({v for fact in facts for v in fact.voxels} - {0})}
    if sorted(labels) != list(range(1, len(labels) + 1)):
        raise InputError(
            f"The label values are {', '.join(map(str, sorted(labels)))}; they have to be 1, 2, 3 and so on without "
            "gaps: renumber them in the label files."
        )
    return dict(sorted(labels.items()))


def _why_labels(data: DataFolder) -> str:
    if (data.folder / "dataset.json").is_file():
        return "dataset.json"
    return "the segments' names, as they come" if data.labels is not None else "the values found in the label files"


def _channel_names(data: DataFolder, facts: Sequence[CaseFacts]) -> tuple[str, ...]:
    count = facts[0].channels
    coloured = count == len(COLOURS) and all(fact.is_picture for fact in facts)
    if data.channels is not None and len(data.channels) == count:
        return data.channels
    if coloured:
        return COLOURS
    return tuple(f"channel {number}" for number in range(count)) if count > 1 else ("image",)


def _why_channels(data: DataFolder, channels: tuple[str, ...]) -> str:
    if channels == data.channels:
        return "dataset.json"
    return "pictures in colour" if channels == COLOURS else "counted; nothing names them"


def _describe(entry: dict[str, Any], levels: Levels) -> str:
    text = str(entry["_target_"])
    if text in ("DynUNet", "UNet", "FCN", "AutoEncoder"):
        features = entry.get("filters", entry.get("channels"))
        text += f", strides {' '.join(short(stride) for stride in levels.strides)}, features {features}"
        if text.startswith("DynUNet"):
            text += f", kernels {' '.join(short(kernel) for kernel in levels.kernels)}"
    return text


def _why_network(network: str, wishes: Wishes, levels: Levels) -> str:
    what = f"{len(levels.strides)} levels: each axis is halved while 4 voxels are left and it is as fine as the others"
    if network == "AutoEncoder":
        what += "; encoder and decoder without connections between them"
    if network == "FCN":
        what += "; scores of the three coarsest are upsampled and summed (Long, Shelhamer and Darrell 2015)"
    if len(levels.strides) < LEAST_LEVELS and not wishes.network:
        return f"the images are too small for nnU-Net's own U-Net; {what}"
    return f"{ASKED}; {what}" if wishes.network else f"nnU-Net's own U-Net; {what}"
