"""From a case's files to training samples: fixed preprocessing, then random changes after nnU-Net's recipe.

Where images are larger than the patch, a part around a chosen voxel is cut first, a margin wider than the patch so
that turning it leaves no empty corners; otherwise the whole image is changed and the patch cut from it.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai.transforms
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    ClassesToIndicesd,
    Compose,
    CropForegroundd,
    EnsureTyped,
    FgBgToIndicesd,
    Orientationd,
    RandCropByLabelClassesd,
    RandCropByPosNegLabeld,
    Randomizable,
    RandSpatialCropd,
    Spacingd,
    SpatialPadd,
    Transform,
)
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from MedAILib.models import corrections
from MedAILib.models.steps import OWN_INTENSITIES
from MedAILib.training.augmentations import flips, spatial_changes, value_changes
from MedAILib.training.case_images import read_case
from MedAILib.training.cases import Case
from MedAILib.training.intensities import require_runnable
from MedAILib.training.task import SegmentationTask
from MedAILib.volume import Geometry

BOTH = ("image", "label")
MARGIN = 1.25
# Voxels of each class that a case remembers for choosing patches around them.
REMEMBERED = 5000


def read_sample(entry: Mapping[str, Any]) -> dict[str, MetaTensor]:
    """Files as `medai segment` reads them: image and label (C, X, Y, Z) in float32, with their places in RAS."""
    case = Case("", tuple(Path(file) for file in entry["image"]), Path(entry["label"]), entry.get("values", ()))
    image, values = read_case(case)
    return {"image": _tensor(image.data, image.geometry), "label": _tensor(values[None], image.geometry)}


def without_third_axis(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A picture (C, X, Y, 1) and its label as (C, X, Y)."""
    return {**sample, **{key: sample[key][..., 0] for key in BOTH}}


def fixed_steps(task: SegmentationTask) -> Compose:
    """Files to normalised tensors (C, X, Y[, Z]), as the exported bundle's preprocessing does it; the label alike."""
    require_runnable(task.intensity)
    steps: list[Any] = [read_sample]
    if task.orientation:
        steps.append(Orientationd(BOTH, axcodes=task.orientation, labels=None))
    if task.crop_foreground:
        steps.append(CropForegroundd(BOTH, source_key="image", allow_smaller=True))
    if task.spacing_mm:
        kept = [-1.0] * (3 - task.axes)  # a slice's thickness
        steps.append(Spacingd(BOTH, pixdim=[*task.spacing_mm, *kept], mode=("bilinear", "nearest")))
    if task.axes == 2:
        steps.append(without_third_axis)
    for entry in task.intensity:
        arguments = {key: value for key, value in entry.items() if key != "_target_"}
        target = str(entry["_target_"])
        where = corrections if target in OWN_INTENSITIES else monai.transforms
        steps.append(getattr(where, target.rpartition(".")[2])("image", **arguments))
    steps.append(EnsureTyped(BOTH, track_meta=False))
    if task.sampling != "uniform":
        steps.append(SpatialPadd(BOTH, spatial_size=wide_patch(task)))
    if task.sampling == "classes":
        steps.append(ClassesToIndicesd("label", num_classes=task.classes, max_samples_per_class=REMEMBERED))
    elif task.sampling == "foreground":
        steps.append(FgBgToIndicesd("label"))
    return Compose(steps)


def random_steps(task: SegmentationTask) -> Compose:
    """Normalised tensors to augmented samples of the patch's size."""
    whole = task.sampling == "uniform"
    return Compose(
        [
            *([SpatialPadd(BOTH, spatial_size=task.patch)] if whole else _cut(task)),
            *spatial_changes(task, None if whole else task.patch),
            *([RandSpatialCropd(BOTH, roi_size=task.patch, random_size=False)] if whole else []),
            *flips(task),
            *value_changes(task),
            EnsureTyped(BOTH, track_meta=False),
        ]
    )


def wide_patch(task: SegmentationTask) -> list[int]:
    """The size of what is cut from a larger image before it is turned and scaled."""
    return [math.ceil(n * MARGIN) if n > 1 else 1 for n in task.patch]


def _cut(task: SegmentationTask) -> list[Transform]:
    if task.sampling == "foreground":
        inside, outside = task.sampling_ratios or [1.0, 2.0]
        return [
            OnePatch(
                RandCropByPosNegLabeld(
                    BOTH,
                    label_key="label",
                    spatial_size=wide_patch(task),
                    pos=inside,
                    neg=outside,
                    fg_indices_key="label_fg_indices",
                    bg_indices_key="label_bg_indices",
                )
            ),
        ]
    return [
        OnePatch(
            RandCropByLabelClassesd(
                BOTH,
                label_key="label",
                spatial_size=wide_patch(task),
                ratios=list(task.sampling_ratios) or None,
                num_classes=task.classes,
                indices_key="label_cls_indices",
                warn=False,
            )
        ),
    ]


class OnePatch(Randomizable, Transform):
    """A crop that gives a list of one sample, as one that gives the sample, without what served to choose it."""

    def __init__(self, crop: Randomizable) -> None:
        self.crop = crop

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "OnePatch":
        super().set_random_state(seed, state)
        self.crop.set_random_state(seed, state)
        return self

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        (patch,) = self.crop(sample)  # type: ignore[operator]  # it is a crop
        return {key: patch[key] for key in BOTH}


def _tensor(data: NDArray[Any], geometry: Geometry) -> MetaTensor:
    voxels = np.ascontiguousarray(data.astype(np.float32).transpose(0, 3, 2, 1))
    return MetaTensor(
        torch.from_numpy(voxels),
        affine=torch.from_numpy(geometry.ijk_to_ras.copy()),
        meta={MetaKeys.SPACE: SpaceKeys.RAS},
    )
