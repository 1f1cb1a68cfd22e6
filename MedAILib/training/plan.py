"""A segmentation task planned from the data by nnU-Net's published rules, each choice with its reason.

Rules: Isensee et al., Nature Methods 18, 203-211 (2021), supplementary note 2. What differs is in the
reasons.
"""

import math
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
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
    multiple_of,
    network_entry,
)
from MedAILib.training.data_folder import DataFolder
from MedAILib.training.examine import CaseFacts
from MedAILib.training.recipe import PARAMETERS, Z_SCORE, usual_recipe
from MedAILib.training.task import SegmentationTask

ANISOTROPIC = 3.0
# Feature values that training holds for each GB, from nnU-Net's own reference: 560 million for 8 GB.
VALUES_PER_GB = 70e6
LARGEST_BATCH = 16
LARGEST_ON_CPU = {2: 8, 3: 2}  # by axes
LARGEST_PATCH = {2: 2048**2, 3: 256**3}  # voxels that nnU-Net starts from, by axes
LONG = 1.5  # nnU-Net's: pictures this much longer than wide are turned but little
COLOURS = ("red", "green", "blue")
NUMBERS = {2: "two", 3: "three"}
DIRECTIONS = (
    ("left", "right", "lh", "rh", "links", "rechts"),
    ("anterior", "posterior", "front", "back", "ventral", "dorsal"),
    ("superior", "inferior", "upper", "lower", "cranial", "caudal", "top", "bottom"),
)


@dataclass(frozen=True)
class Budget:
    """What a training may take: memory for feature values, features at the finest level, steps in all."""

    name: str
    memory_gb: float
    base: int
    steps: int


CPU = Budget("cpu", 1.0, 16, 5_000)
GPU = Budget("gpu", 8.0, 32, 25_000)


@dataclass(frozen=True)
class Choice:
    """One decision of a plan: which key of the task, what it became, and why."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Wishes:
    """What the user decides instead of the rules; None leaves it to them."""

    network: str | None = None
    patch: list[int] | None = None
    spacing_mm: list[float] | None = None
    batch: int | None = None
    memory_gb: float | None = None


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
    spacings = np.array([_on_network(fact, fact.spacing_kji_mm[::-1], flat) for fact in facts])
    shapes = np.array([_on_network(fact, fact.shape_kji[::-1], flat) for fact in facts])
    as_they_lie = flat and wishes.spacing_mm is None and any(fact.is_picture for fact in facts)
    if as_they_lie:
        spacings = np.ones_like(spacings)
        spacing, why_spacing = [1.0, 1.0], "pixel by pixel: pictures (PNG, JPEG) don't tell how large a pixel is"
    elif wishes.spacing_mm is None:
        spacing, why_spacing = _spacing(spacings, shapes)
    else:
        spacing, why_spacing = _asked_spacing(wishes.spacing_mm, spacings.shape[1]), ASKED
    median = np.median(shapes * spacings / spacing, axis=0)
    network = wishes.network or "DynUNet"
    if network not in NETWORKS:
        raise InputError(f"There is no network '{network}' for segmentation; known are {', '.join(NETWORKS)}.")
    if wishes.patch is None:
        patch, why_patch = _patch(network, spacing, median, budget)
    else:
        patch, why_patch = _rounded(network, spacing, _asked_patch(wishes.patch, len(spacing))), ASKED
    levels = levels_for(spacing, patch)
    if wishes.network is None and len(levels.strides) < LEAST_LEVELS:
        network = "UNet"  # of which the same patches are asked
    channels = _channel_names(data, facts)
    entry = network_entry(network, levels, len(channels), len(labels) + 1, budget.base)
    held = feature_values(levels, patch, budget.base)
    voxels = float(np.prod(median)) * len(facts)
    batch, why_batch = _batch(budget, held, voxels, patch) if wishes.batch is None else (wishes.batch, ASKED)
    large = bool((median > np.array(patch) * 1.3).any())
    samples = int(min(max(round(float(np.prod(median / patch))), 1), 8)) if large else 1
    epochs = max(round(budget.steps * batch / (len(facts) * 0.8 * samples)), 5)
    intensity, crop, why_intensity = planned_intensity(channels, facts)
    mirror, why_mirror = planned_mirror(list(labels.values()), _sides(facts, flat))
    folds = min(5, len(facts))
    augmentation, why_augmentation = _augmentation(spacing, patch, named_sides=len(mirror) < len(patch))
    sampling = [2.0, *[1.0 / len(labels)] * len(labels)] if large else []
    choices = [
        Choice("labels", ", ".join(f"{value} {name}" for value, name in labels.items()), _why_labels(data)),
        Choice("channels", ", ".join(channels), _why_channels(data, channels)),
        Choice("images", "pictures" if flat else "volumes", "each has a single slice" if flat else "they have slices"),
        Choice("spacing_mm", "none" if as_they_lie else short(spacing), why_spacing),
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
        Choice("loss", "dice_ce", "nnU-Net's; Dice weighs each structure alike, whatever its size"),
        Choice("class_weights", "none", "Dice and patches chosen by class balance them; see --set loss=weighted_ce"),
        Choice("learning_rate", 0.001, "AdamW falling by a power of 0.9; with moving averages of the weights"),
        Choice("epochs", epochs, f"{budget.steps} steps in all on a {budget.name.upper()}; nnU-Net takes 250,000"),
        Choice("folds", folds, "nnU-Net's five" if folds == 5 else "as many as there are cases"),
    ]  # fmt: skip
    task = SegmentationTask(
        name=name,
        version="0.1.0",
        title=name.replace("_", " ").capitalize(),
        description=f"{', '.join(labels.values())} in {', '.join(channels)}",
        authors="",
        copyright="",
        licence="unknown",
        data_source=f"{len(facts)} cases in the folder {data.folder.resolve().name}",
        intended_use="Research and teaching. Not a medical device; not for diagnosis or treatment.",
        references=[
            "Isensee F et al. nnU-Net: a self-configuring method for deep learning-based biomedical image "
            "segmentation. Nature Methods 18, 203-211 (2021). doi:10.1038/s41592-020-01008-z"
        ],
        warnings=[],
        modality=modality_of(channels),
        channels=list(channels),
        labels=[{"value": value, "name": name} for value, name in labels.items()],
        orientation="" if flat else "RAS",
        spacing_mm=[] if as_they_lie else [float(mm) for mm in spacing],
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
        sampling_ratios=sampling,
        samples=samples,
        augmentation=augmentation,
    )
    return task, choices


ASKED = "asked for by --set"
SAMPLING = "images are larger than the patch: a third of the patches lies around a voxel of a structure, each alike"


def balanced_weights(facts: Sequence[CaseFacts], classes: int) -> list[float]:
    """Weights of classes, background first: one over the root of each class's share of the voxels, 1 on average."""
    counts = np.array([sum(fact.voxels.get(value, 0) for fact in facts) for value in range(classes)], dtype=np.float64)
    weights = 1 / np.sqrt(np.maximum(counts, 1) / counts.sum())
    return [round(float(weight), 4) for weight in weights / weights.mean()]


TOLD = (
    *("channels", "labels", "orientation", "spacing_mm", "intensity", "crop_foreground", "patch", "network", "batch"),
    *("samples", "sampling", "mirror_axes", "augmentation", "loss", "class_weights", "learning_rate", "schedule"),
    *("epochs", "patience", "folds", "frozen_stages"),
)


def task_choices(task: SegmentationTask, asked: Container[str]) -> list[Choice]:
    """What a task that was given says, each with where it is from; `asked` are the command line's keys."""
    return [Choice(key, getattr(task, key), ASKED if key in asked else "the task's") for key in TOLD]


def told_choices(choices: Sequence[Choice]) -> str:
    """A table of what was chosen and why, for a terminal."""
    wide = max(len(choice.key) for choice in choices)
    return "\n".join(
        f"  {choice.key:<{wide}}  {choice.value}\n  {'':<{wide}}    ({choice.reason})" for choice in choices
    )


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
    return "dataset.json" if data.labels is not None else "the values found in the label files"


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


def modality_of(channels: Sequence[str]) -> str:
    """What the channels' names tell of the modality: "CT", "MR" or "OT"."""
    if all(_is_ct(name) for name in channels):
        return "CT"
    words = {word for name in channels for word in re.split(r"\W+", name.lower())}
    return "MR" if words & {"mri", "mr", "t1", "t1w", "t2", "t2w", "flair", "adc", "t1gd", "t1c"} else "OT"


def _is_ct(name: str) -> bool:
    return name.strip().lower() in ("ct", "cta", "ct image")


def _on_network(fact: CaseFacts, values: Sequence[float], flat: bool) -> list[float]:
    """Values for I, J, K in the order of the network's axes: I and J of pictures, else R, A and S."""
    return [float(value) for value in values[:2]] if flat else _on_ras(fact.orientation, values)


def _sides(facts: Sequence[CaseFacts], flat: bool) -> list[tuple[str, ...]]:
    """For each of the network's axes the words that tell its two ends apart."""
    if not flat:
        return list(DIRECTIONS)
    found: list[tuple[str, ...]] = [(), ()]
    for fact in facts:
        if fact.is_picture:  # which way it was taken is not told: what is not left and right may be up and down
            return [DIRECTIONS[0], (*DIRECTIONS[1], *DIRECTIONS[2])]
        for axis in range(2):
            found[axis] += DIRECTIONS["RLAPSI".index(fact.orientation[axis]) // 2]
    return found


def _on_ras(orientation: str, values: Sequence[float]) -> list[float]:
    """Values for I, J, K in the order of the axes R, A, S, given where I, J, K grow ("LPS", "SAR")."""
    axes = ["RLAPSI".index(letter) // 2 for letter in orientation]
    return [float(values[axes.index(axis)]) for axis in range(3)]


def _spacing(spacings: Any, shapes: Any) -> tuple[list[float], str]:
    """nnU-Net's target: the median, and along a coarse axis its 10th percentile."""
    target = np.median(spacings, axis=0)
    size = np.median(shapes, axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != coarse]
    if (
        len(target) == 3
        and target[coarse] > ANISOTROPIC * target[others].max()
        and size[coarse] * ANISOTROPIC < size[others].min()
    ):
        low = float(np.percentile(spacings[:, coarse], 10))
        target[coarse] = max(low, float(target[others].max()) + 1e-5)
        reason = "the median; along the coarse axis, over three times the others, the 10th percentile"
    else:
        reason = "the median of all cases along each axis"
    return [round(float(mm), 5) for mm in target], reason


def _asked_spacing(spacing: list[float], axes: int) -> list[float]:
    if len(spacing) != axes:
        raise InputError(
            f"--set spacing has {len(spacing)} numbers, and the images have {axes} axes; give {NUMBERS[axes]} numbers."
        )
    return spacing


def _asked_patch(patch: list[int], axes: int) -> list[int]:
    if len(patch) != axes or any(not isinstance(n, int) or n < 4 for n in patch):
        example = ",".join(["64"] * axes)
        raise InputError(
            f"The patch {patch} is none: give {NUMBERS[axes]} whole numbers of at least 4, as in --set patch={example}."
        )
    return patch


def _rounded(network: str, spacing: Sequence[float], patch: Sequence[int]) -> list[int]:
    """The patch, each side up to what the network's levels divide it into."""
    sides = [int(n) for n in patch]
    for _ in range(3):  # more voxels may mean more levels
        multiple = multiple_of(network, levels_for(spacing, sides))
        sides = [math.ceil(n / m) * m for n, m in zip(sides, multiple, strict=True)]
    if sides == list(multiple):  # normalisation needs more than one voxel at the coarsest level
        sides[sides.index(max(sides))] *= 2
    return sides


def _patch(network: str, spacing: Sequence[float], median: Any, budget: Budget) -> tuple[list[int], str]:
    """nnU-Net's: start from a cube (for pictures: a square) in mm no larger than the median image.

    It is shrunk until two fit into the budget.
    """
    inverse, axes = 1 / np.array(spacing), len(spacing)
    start = inverse * (LARGEST_PATCH[axes] / inverse.prod()) ** (1 / axes)
    sides = [max(round(min(a, b)), 8) for a, b in zip(start, median, strict=True)]
    patch = _rounded(network, spacing, sides)
    shrunk = False
    while 2 * feature_values(levels_for(spacing, patch), patch, budget.base) > budget.memory_gb * VALUES_PER_GB:
        multiple = multiple_of(network, levels_for(spacing, patch))
        able = [axis for axis in range(axes) if patch[axis] > multiple[axis]]
        if not able:
            break
        axis = max(able, key=lambda a: patch[a] / median[a])
        sides = list(patch)
        sides[axis] -= multiple[axis]
        patch, before = _rounded(network, spacing, sides), patch
        shrunk = True
        if patch == before:
            break
    reason = f"the median image has {short([round(float(n)) for n in median])} voxels at this spacing"
    fits = (
        f"; shrunk until two patches fit into {budget.memory_gb:g} GB" if shrunk else "; it fits whole into the budget"
    )
    return patch, reason + fits


def _batch(budget: Budget, held: float, voxels: float, patch: Sequence[int]) -> tuple[int, str]:
    fits = int(budget.memory_gb * VALUES_PER_GB / held)
    share = round(voxels * 0.05 / math.prod(patch))
    most = LARGEST_BATCH if budget.name == "gpu" else LARGEST_ON_CPU[len(patch)]
    return max(min(fits, share, most), 2), (
        f"what fits into {budget.memory_gb:g} GB, at most a twentieth of all voxels, at least 2"
        + (f"; on a CPU at most {most}, since a larger one only makes steps slower" if budget.name == "cpu" else "")
    )


def planned_intensity(channels: Sequence[str], facts: Sequence[CaseFacts]) -> tuple[list[dict[str, Any]], bool, str]:
    """Steps that bring values into one range, whether images are cut to what is above zero, and why."""
    crop = float(np.median([fact.nonzero for fact in facts])) < 0.75 and min(fact.lowest for fact in facts) >= 0
    if all(_is_ct(name) for name in channels):
        values = np.concatenate([fact.values.ravel() for fact in facts]).astype(np.float64)
        low, high = (float(x) for x in np.percentile(values, (0.5, 99.5)))
        mean, sd = float(values.mean()), max(float(values.std()), 1e-8)
        entry = {"_target_": "ScaleIntensityRanged", "a_min": round(low, 2), "a_max": round(max(high, low + 1), 2)} | {
            "b_min": round((low - mean) / sd, 5),
            "b_max": round((max(high, low + 1) - mean) / sd, 5),
            "clip": True,
        }
        return (
            [entry],
            crop,
            (
                f"CT: clipped to {low:.0f} to {high:.0f} HU (0.5 and 99.5 % of what lies inside structures), "
                f"their mean {mean:.0f} to 0 and their standard deviation {sd:.0f} to 1"
            ),
        )
    mixed = any(_is_ct(name) for name in channels)
    entry = dict(Z_SCORE) | ({"nonzero": True} if crop else {})
    return (
        [entry],
        crop,
        "each channel of each image to mean 0 and standard deviation 1"
        + (", inside its nonzero voxels" if crop else "")
        + ("; CT is not clipped, since MONAI's transforms clip all channels alike" if mixed else ""),
    )


def planned_mirror(names: Sequence[str], sides: Sequence[tuple[str, ...]] = DIRECTIONS) -> tuple[list[int], str]:
    """The axes along which images may be mirrored, and why: none of them whose sides the names tell apart.

    Args:
        names: of structures.
        sides: for each axis the words that tell its two ends apart.
    """
    words = {word for name in names for word in re.split(r"[\W_\d]+", name.lower())}
    kept = [axis for axis, told in enumerate(sides) if not words & set(told)]
    if len(kept) == len(sides):
        return kept, "all axes: no structure's name speaks of a side"
    ways = ("along rows", "along columns") if len(sides) == 2 else ("left to right", "back to front", "bottom to top")
    out = [way for axis, way in enumerate(ways) if axis not in kept]
    return kept, f"not {' nor '.join(out)}: names of structures tell these sides apart"


def _augmentation(
    spacing: Sequence[float], patch: Sequence[int], named_sides: bool
) -> tuple[dict[str, dict[str, Any]], str]:
    recipe = usual_recipe()
    if len(patch) == 2:
        little = named_sides or max(patch) / min(patch) > LONG
        recipe["rotation"]["degrees"] = [15.0 if little else 180.0]
        why = "sides have names" if named_sides else "the patch is long" if little else "pictures have no upright"
        return recipe, f"nnU-Net's for pictures: turned by at most {15 if little else 180} degrees, since {why}"
    coarse = int(np.argmax(spacing))
    if max(patch) / min(patch) > ANISOTROPIC and patch[coarse] == min(patch):
        recipe["rotation"]["degrees"] = [180.0 if axis == coarse else 0.0 for axis in range(3)]
        return recipe, "nnU-Net's; slices are thick, so that turning keeps to their plane"
    return recipe, f"nnU-Net's; also known: {', '.join(sorted(PARAMETERS.keys() - recipe.keys()))}"


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


def short(numbers: Sequence[float]) -> str:
    """Numbers as in 1x1x2.5."""
    return "x".join(f"{number:g}" for number in numbers)
