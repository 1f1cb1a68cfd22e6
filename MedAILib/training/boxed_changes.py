"""Patches of images with boxes, cut and changed at random; boxes follow what was done to the voxels.

A box can't be turned: the smallest box around a turned box's corners is too large for what is in it. So a finding is
known as ellipsoids along the network's axes, of which an affine change makes others whose extents are exact. Where a
label map tells its shape, they are its outermost voxels, each as round as a voxel is; where a box alone is known, it
is the one that fills it (Kalra et al., Towards Rotation Invariance in Object Detection, ICCV 2021), as in MONAI's way
of turning boxes (`BoxToMask` with `ellipse_mask`, then `MaskToBox`), here without a mask and its rounding.
"""

import math
from typing import Any

import numpy as np
import torch
from monai.apps.detection.transforms.dictionary import RandCropBoxByPosNegLabeld
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCrop, Compose, RandAffine, Randomizable, SpatialPadd, Transform
from monai.utils import MAX_SEED
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from MedAILib.errors import InputError
from MedAILib.training.augmentations import affine_prob, affine_ranges, filled, flips, require_known, value_changes
from MedAILib.training.detection_task import DetectionTask

# What a sample has beside "image", "box" and "label"; see `detection_data.prepare_image`.
POINTS, REACH, OWNER = "points", "reach", "owner"
IMAGE = ("image",)
MARGIN = 1.25  # of a patch that is turned: how much wider it is cut, as for segmentation


def require_following(recipe: dict[str, dict[str, Any]]) -> None:
    """Raise `InputError` where a recipe names a change that there is not, or one that boxes can't follow."""
    if "elastic" in recipe:
        raise InputError("elastic bends images, and boxes can't follow that exactly; leave it out for detection.")
    if "mixup" in recipe:
        raise InputError("mixup blends images, and a box can't be there in part; leave it out for detection.")
    require_known(recipe)
    for name, key in (("rotation", "degrees"), ("translation", "voxels")):
        if len(found := recipe.get(name, {}).get(key, [0, 0, 0])) != 3:
            raise InputError(f"The augmentation '{name}' has '{key}' = {found}; give a number for each of three axes.")


def random_patches(task: DetectionTask) -> Compose:
    """From a sample, as `prepare_image` gives it, to a list of changed patches, as a network learns from them."""
    prob = affine_prob(filled(task))
    return Compose(
        [
            SpatialPadd(IMAGE, spatial_size=task.patch, method="end"),
            Patches(task, task.patch if prob is None else wide_patch(task.patch)),
            *([] if prob is None else [Turned(task, prob)]),
            *flips(task, IMAGE),
            followed,
            *value_changes(task),
            _plain,
        ]
    )


def wide_patch(patch: list[int]) -> list[int]:
    """The size of what is cut to be turned, wider by as much on both sides."""
    return [n + 2 * math.ceil(n * (MARGIN - 1) / 2) if n > 1 else 1 for n in patch]


class Patches(Randomizable, Transform):
    """Cuts patches, half of them around a finding, from where MONAI chooses; beyond the image they are 0.

    With `sampling` "classes" the finding is one of a class that is drawn for each patch, from those of the image.

    A patch keeps in its affine matrix where it is from: from its voxels' numbers to those of the whole image.

    Args:
        task: whose patch is chosen for, as many of them as it says.
        size: what is cut around the middle of the chosen patch.
    """

    def __init__(self, task: DetectionTask, size: list[int]) -> None:
        self._patch, self._size = task.patch, size
        self._drawn = task.samples if task.sampling == "classes" else 0
        self._choice = RandCropBoxByPosNegLabeld(
            IMAGE, "box", ["label"], task.patch, num_samples=1 if self._drawn else task.samples, allow_smaller=True
        )
        self._choice.spatial_size = tuple(task.patch)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "Patches":
        super().set_random_state(seed, state)
        self._choice.set_random_state(seed, state)
        return self

    def __call__(self, sample: dict[str, Any]) -> list[dict[str, Any]]:
        image = torch.as_tensor(sample["image"])
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        return [{**sample, "image": self._cut(image, center)} for center in self._centers(sample, image.shape[1:])]

    def _centers(self, sample: dict[str, Any], shape: Any) -> list[Any]:
        """Voxels in the middle of patches."""
        boxes, labels = sample["box"], sample["label"]
        classes = labels.unique()
        chosen: list[Any] = []
        for _ in range(self._drawn or 1):
            if self._drawn and len(classes) > 1:
                boxes = sample["box"][labels == classes[self.R.randint(len(classes))]]
            self._choice.randomize(boxes, shape)
            chosen += self._choice.centers or ()
        return chosen

    def _cut(self, image: Tensor, center: Any) -> MetaTensor:
        start = [
            int(middle) - n // 2 - (wide - n) // 2
            for middle, n, wide in zip(center, self._patch, self._size, strict=True)
        ]
        places, beyond = [slice(None)], []
        for low, wide, there in zip(start, self._size, image.shape[1:], strict=True):
            places.append(slice(max(low, 0), min(low + wide, there)))
            beyond.append((max(-low, 0), max(low + wide - there, 0)))
        widths = [width for pair in reversed(beyond) for width in pair]
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, 3] = torch.tensor(start, dtype=torch.float64)
        return MetaTensor(pad(image[tuple(places)], widths).clone(), affine=affine)


class Turned(Randomizable, Transform):
    """Turns, scales and shifts some patches, and cuts the middle of all; their affine matrix tells.

    MONAI's own `RandAffined` tells it wrongly of images that it cuts without turning them.
    """

    def __init__(self, task: DetectionTask, prob: float) -> None:
        ranges = affine_ranges(filled(task), task.axes)
        self._prob = prob
        self._change = RandAffine(1.0, spatial_size=task.patch, mode="bilinear", padding_mode="zeros", **ranges)
        self._cut = CenterSpatialCrop(task.patch)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "Turned":
        super().set_random_state(seed, state)
        self._change.set_random_state(int(self.R.randint(MAX_SEED, dtype="uint32")))  # not what decides about it
        return self

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        step = self._change if self.R.rand() < self._prob else self._cut
        return {**sample, "image": step(sample["image"])}


def followed(sample: dict[str, Any]) -> dict[str, Any]:
    """A patch with the boxes of what of its findings is in it, voxels reaching from n - 0.5 to n + 0.5."""
    image = sample["image"]
    whole_of_patch = image.affine.numpy()
    low, high = extents(sample, np.linalg.inv(whole_of_patch))
    limits = np.array(image.shape[1:]) - 0.5
    low, high = np.clip(low, -0.5, limits), np.clip(high, -0.5, limits)
    there = (high - low >= 1).all(axis=1)  # a voxel at least, as MONAI's cropping has it
    boxes = np.concatenate([low, high], axis=1)[there]
    return {
        "image": image.as_tensor(),
        "box": torch.from_numpy(boxes.astype(np.float32)),
        "label": sample["label"][torch.from_numpy(there)],
    }


def extents(sample: dict[str, Any], matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far each finding reaches after an affine change: lowest and highest places (n, 3).

    Args:
        sample: its ellipsoids' middles `POINTS` (m, 3), half axes `REACH` (m, 3), and findings `OWNER` (m,).
        matrix: 4x4, from the whole image's voxels to those of the changed one.
    """
    points, reach, owner = (sample[key].numpy() for key in (POINTS, REACH, OWNER))
    middle = points @ matrix[:3, :3].T + matrix[:3, 3]
    half = np.sqrt((reach**2) @ (matrix[:3, :3] ** 2).T)
    count = len(sample["label"])
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(low, owner, middle - half)
    np.maximum.at(high, owner, middle + half)
    return low, high


def _plain(sample: dict[str, Any]) -> dict[str, Tensor]:
    image = torch.as_tensor(sample["image"])
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    return {**sample, "image": plain.float(), "label": sample["label"].long()}
