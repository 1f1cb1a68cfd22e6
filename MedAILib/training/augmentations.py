"""The augmentations that tasks may name by which patches are cut, each as MONAI's transform (ghosts are our own)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from monai.transforms import (
    CenterSpatialCropd,
    Rand2DElasticd,
    Rand3DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandKSpaceSpikeNoised,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
    Transform,
)

from MedAILib.errors import InputError
from MedAILib.training.ghosting import RandGhostingd
from MedAILib.training.recipe import PARAMETERS
from MedAILib.training.task import SegmentationTask

BOTH = ("image", "label")
PICTURE_SHARE = 60.0  # magnitude of bending for a point's shift of one pixel
AFFINE = ("rotation", "scaling", "translation")


class Augmented(Protocol):
    """A task that says how its images are changed."""

    @property
    def augmentation(self) -> dict[str, dict[str, Any]]: ...

    @property
    def axes(self) -> int: ...

    @property
    def mirror_axes(self) -> list[int]: ...


def require_name(name: str) -> None:
    """Raise `InputError` where there is no augmentation of a name."""
    if name not in PARAMETERS:
        raise InputError(f"There is no augmentation '{name}'; known are {', '.join(PARAMETERS)}.")


def require_known(recipe: dict[str, dict[str, Any]]) -> None:
    """Raise `InputError` where a recipe names an augmentation, or a parameter of one, that there is not."""
    for name, found in recipe.items():
        require_name(name)
        if not isinstance(found, dict) or found.keys() - PARAMETERS[name].keys():
            raise InputError(
                f"The augmentation '{name}' has the parameters {', '.join(PARAMETERS[name])} and no other."
            )
        for key, value in found.items():
            if not _is_like(value, PARAMETERS[name][key]):
                raise InputError(
                    f"The augmentation '{name}' has '{key}' = {value}; give what is like {PARAMETERS[name][key]}."
                )
        if not 0 <= found.get("prob", 0) <= 1:
            raise InputError(f"The augmentation '{name}' has the probability {found['prob']}; give one from 0 to 1.")
        if not found.get("alpha", 1) > 0:
            raise InputError(f"The augmentation '{name}' has alpha = {found['alpha']}; give a number above 0.")


def _is_like(value: Any, usual: Any) -> bool:
    """Whether a value is a number where that is usual, or else as many; of those for each axis there may be fewer."""
    if not isinstance(usual, list):
        return isinstance(value, int | float) and not isinstance(value, bool)
    few = isinstance(value, list) and (len(value) == len(usual) or (len(usual) == 3 and 0 < len(value) < 3))
    return few and all(_is_like(part, 0) for part in value)


def spatial_changes(task: SegmentationTask, size: list[int] | None) -> list[Transform]:
    """What moves voxels, image and label alike; with `size` the result is the middle of that size."""
    recipe, axes = filled(task), task.axes
    steps: list[Transform] = []
    if (prob := affine_prob(recipe)) is not None:
        told: dict[str, Any] = {**affine_ranges(recipe, axes), "mode": ("bilinear", "nearest"), "padding_mode": "zeros"}
        steps.append(RandAffined(BOTH, spatial_size=size, prob=prob, **told))
    elif size is not None:
        steps.append(CenterSpatialCropd(BOTH, roi_size=size))
    if found := recipe.get("elastic"):
        steps.append(_elastic(found, axes))
    return steps


def affine_prob(recipe: Mapping[str, dict[str, Any]]) -> float | None:
    """How often images are turned, scaled and shifted, which is drawn together; None where a recipe has none of it."""
    return max((recipe[name]["prob"] for name in AFFINE if name in recipe), default=None)


def affine_ranges(recipe: Mapping[str, dict[str, Any]], axes: int) -> dict[str, Any]:
    """By how much, as MONAI's transforms are told; parameters are complete, see `filled`."""
    return {
        "rotate_range": _angles(recipe["rotation"]["degrees"], axes) if "rotation" in recipe else None,
        "scale_range": [tuple(recipe["scaling"]["range"])] * axes if "scaling" in recipe else None,
        "translate_range": recipe["translation"]["voxels"][:axes] if "translation" in recipe else None,
    }


def _angles(degrees: list[float], axes: int) -> list[float]:
    """In radians around each axis; pictures turn around the axis that looks at them, the last that is told."""
    return [math.radians(angle) for angle in (degrees if axes == 3 else degrees[-1:])]


def _elastic(found: dict[str, Any], axes: int) -> Transform:
    """Bending; MONAI's for pictures moves a grid of points, here as wide as its counterpart smooths."""
    shared: dict[str, Any] = {"prob": found["prob"], "mode": ("bilinear", "nearest"), "padding_mode": "zeros"}
    low, high = found["magnitude"]
    if axes == 3:
        return Rand3DElasticd(BOTH, sigma_range=tuple(found["sigma"]), magnitude_range=(low, high), **shared)
    width = sum(found["sigma"])  # twice the mean
    return Rand2DElasticd(
        BOTH, spacing=(width, width), magnitude_range=(low / PICTURE_SHARE, high / PICTURE_SHARE), **shared
    )


def flips(task: Augmented, keys: Sequence[str] = BOTH) -> list[Transform]:
    """Mirroring along each of the task's axes."""
    found = filled(task).get("flip")
    return [RandFlipd(keys, prob=found["prob"], spatial_axis=axis) for axis in task.mirror_axes] if found else []


def value_changes(task: Augmented) -> list[Transform]:
    """What changes the image's values; the artefacts of a scanner come before noise and blur.

    What blends several samples is `Mixup`'s.
    """
    steps: list[Transform] = []
    finer = "bilinear" if task.axes == 2 else "trilinear"
    for name, a in filled(task).items():
        prob = a["prob"]
        match name:
            case "bias_field":
                steps.append(RandBiasFieldd("image", coeff_range=tuple(a["coefficients"]), prob=prob))
            case "ghosting":
                steps.append(RandGhostingd("image", prob, tuple(a["ghosts"]), tuple(a["strength"])))
            case "spike":
                steps.append(RandKSpaceSpikeNoised("image", prob=prob, channel_wise=False))
            case "noise":
                steps.append(RandGaussianNoised("image", prob=prob, std=a["std"]))
            case "blur":
                sigma = tuple(a["sigma"])
                steps.append(RandGaussianSmoothd("image", prob=prob, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma))
            case "brightness":
                steps.append(RandScaleIntensityd("image", prob=prob, factors=a["factor"]))
            case "offset":
                steps.append(RandShiftIntensityd("image", prob=prob, offsets=a["amount"]))
            case "contrast":
                steps.append(
                    RandScaleIntensityFixedMeand("image", prob=prob, factors=tuple(a["factor"]), preserve_range=True)
                )
            case "low_resolution":
                steps.append(
                    RandSimulateLowResolutiond("image", prob=prob, zoom_range=tuple(a["zoom"]), upsample_mode=finer)
                )
            case "gamma":
                gamma: dict[str, Any] = {"gamma": tuple(a["range"]), "retain_stats": True}
                steps.append(RandAdjustContrastd("image", prob=a["inverted_prob"], invert_image=True, **gamma))
                steps.append(RandAdjustContrastd("image", prob=prob, **gamma))
    return steps


def filled(task: Augmented) -> dict[str, dict[str, Any]]:
    """The task's augmentations in the order in which they are done, parameters that it leaves out added."""
    return {name: usual | task.augmentation[name] for name, usual in PARAMETERS.items() if name in task.augmentation}
